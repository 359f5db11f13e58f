"""Slips that users make, each with the sentence that sets them right."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import polarity as pol
from tests.laws.refusals import W0, W2, in_the_middle
from tests.laws.world import World, plain_net
from tests.models import square


@pytest.fixture
def world(tmp_path):
    return World(lambda: tmp_path)


SLIPS = {
    "a score of the whole model, not computed": (
        lambda w: pol.prune(w.model, pol.scores.snip, density=0.1),
        "scores=snip takes (model, loss_fn, batches, mode, targets, exclude, generator), expected "
        "a function of (name, weight): compute it first, prune(model, snip(model, loss_fn, "
        "batches), …)",
    ),
    "a score that needs the initial weights": (
        lambda w: pol.imp_prune(w.model, score=pol.scores.magnitude_increase),
        "score=magnitude_increase takes (init), expected a function of (name, weight): call it "
        "first, and pass on what magnitude_increase(…) returns",
    ),
    "scores where a score is expected": (
        lambda w: pol.imp_prune(w.model, score=w.scores),
        "score is a dict, expected a function (name, weight) -> tensor: "
        "polarity.prune(model, scores=…) takes scores that were computed before",
    ),
    "loss function and batches exchanged": (
        lambda w: pol.scores.snip(w.model, w.batches, square),
        "loss_fn is a list, expected a function (output, target) -> scalar tensor",
    ),
    "model and optimizer exchanged": (
        lambda w: pol.enforce_in_step(w.optimizer, w.model),
        "optimizer is a Sequential, expected a torch.optim.Optimizer",
    ),
    "a loss class without brackets": (
        lambda w: pol.sharpness(w.model, nn.MSELoss, w.batches),
        "loss_fn is the class MSELoss, expected a function (output, target) -> mean loss: "
        "MSELoss(…) makes one",
    ),
    "one batch instead of batches": (
        lambda w: pol.recalibrate_batch_norm(w.model, w.batches[0][0]),
        "batches is a Tensor, expected batches: a list of them or a DataLoader, [batch] for a "
        "single one",
    ),
    "a perturbation without its fraction": (
        lambda w: pol.reinit_signs(w.model, perturb=pol.Epsilon, init=w.start),
        "perturb holds the class Epsilon, expected an Epsilon, Delta or Phi",
    ),
    "a tensor for a number": (
        lambda w: pol.imp_prune(w.model, torch.tensor(0.2)),
        "expected a number: .item() gives it",
    ),
    "a percentage for a fraction": (
        lambda w: pol.imp_prune(w.model, 20),
        "amount=20 is out of range, expected a number in [0, 1]",
    ),
    "a state_dict for the model": (
        lambda w: pol.masks(w.model.state_dict()),
        "model is an OrderedDict, expected a torch.nn.Module",
    ),
    "factors out of the range of the weight's dtype": (
        lambda w: pol.sign_in(w.plain, beta=1e300),
        "beta=1e+300 gives '0.weight' factors that torch.float32 cannot hold, expected one nearer "
        "to 1",
    ),
}


@pytest.mark.parametrize(("call", "message"), SLIPS.values(), ids=SLIPS)
def test_a_slip_is_answered_with_what_sets_it_right(world, call, message):
    with pytest.raises((TypeError, ValueError)) as raised:
        call(world)
    assert message in str(raised.value)


def test_prune_takes_amount_third_as_imp_prune_takes_it_second():
    one, other, named = (in_the_middle().model for _ in range(3))
    scores = {name: target.weight.abs() for name, target in pol.find_targets(one).items()}
    report = pol.prune(one, scores, 0.1)
    assert report.survivors == 24  # of 27: round(2.7) are pruned
    pol.imp_prune(other, 0.1)
    pol.prune(named, scores, amount=0.1)
    for model in (other, named):
        assert all(
            torch.equal(pol.masks(one)[name], mask) for name, mask in pol.masks(model).items()
        )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("beta", [1e-300, 1e-60, 1e60, 1e300])
def test_a_scaling_is_taken_only_where_its_factors_are_finite_and_give_the_weight(dtype, beta):
    model = plain_net().to(dtype)
    before = {name: value.clone() for name, value in pol.dense_state_dict(model).items()}
    representable = dtype == torch.float64
    if not representable:
        with pytest.raises(ValueError, match=r"^beta=1e[-+]\d+ gives '0.weight' factors"):
            pol.sign_in(model, beta=beta)
        assert not any(isinstance(each, pol.MaskedWeight) for each in model.modules())
    else:
        pol.sign_in(model, beta=beta)
    after = pol.dense_state_dict(model)
    assert all(value.isfinite().all() for value in after.values())
    for name in (W0, W2):
        torch.testing.assert_close(after[name], before[name])


class Mine(Exception):
    """An error that takes more than a message, as a user's own may."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(code, why)


def raising(*args: object, **kwargs: object) -> Tensor:
    raise Mine(3, "the user's own")


OWN = {
    "score": lambda w: pol.imp_prune(w.model, score=raising),
    "scores": lambda w: pol.prune(w.plain, raising, 0.1),
    "loss_fn of snip": lambda w: pol.scores.snip(w.model, raising, w.batches),
    "loss_fn of grasp": lambda w: pol.scores.grasp(w.model, raising, w.batches),
    "loss_fn of sharpness": lambda w: pol.sharpness(w.model, raising, w.batches),
    "parameters": lambda w: pol.sharpness(w.model, square, w.batches, parameters=raising),
    "targets": lambda w: pol.mask_weights(w.plain, targets=raising),
    "exclude": lambda w: pol.sign_in(w.model, exclude=raising),
    "norms": lambda w: pol.interpolate_norms(w.plain, targets=raising),
    "include": lambda w: pol.signed_mask(w.model, include=raising),
    "perturb": lambda w: pol.reinit_signs(w.model, perturb=raising, init=w.start),
    "evaluate": lambda w: pol.error_barrier(w.plain, w.plain, w.plain, raising, batches=w.batches),
    "train": lambda w: pol.sgd_noise_stability(w.plain, raising, lambda n: 0.5, batches=w.batches),
    "build": lambda w: pol.init_noise_stability(raising, lambda n, s: None, lambda n: 0.5),
    "forward": lambda w: pol.recalibrate_batch_norm(w.model, w.batches, forward=raising),
    "measure": lambda w: pol.deploy.compress(
        w.plain, w.batches[0][0], break_even=1, measure=raising
    ),
    "batches": lambda w: pol.scores.snip(w.model, square, (raising() for _ in range(1))),
}


@pytest.mark.parametrize("call", OWN.values(), ids=OWN)
def test_an_error_of_the_callers_own_function_surfaces_unchanged(world, call):
    _ = world.run, world.plain, world.batches
    before = world.everything([])
    with pytest.raises(Mine) as raised:
        call(world)
    assert raised.value.args == (3, "the user's own")
    assert raised.value.__cause__ is None
    assert world.everything([]) == before


NUMBERS = [0.5, np.float16(0.5), np.float32(0.5), np.float64(0.5)]


@pytest.mark.parametrize("half", NUMBERS, ids=lambda each: type(each).__name__)
def test_numpys_numbers_are_numbers(half):
    model, start = plain_net(), pol.RewindPoint.capture(plain_net())
    report = pol.imp_prune(model, half)
    assert report.survivors == 23  # of 45: round(22.5) are pruned, which is 22
    assert pol.Epsilon(half).count(10**9) == 5 * 10**8  # not in the number's own precision
    pol.reinit_signs(model, "gradual", pol.Epsilon(half), init=start, trained=start, mix=half)
    assert pol.densities.uniform(model, half) == {W0: 0.5, W2: 0.5}
    schedule = pol.RescaleSchedule(pol.sign_in(model, beta=half), every=np.int64(2))
    assert [schedule.step() for _ in range(4)] == [False, True, False, True]


def test_rounds_count_by_numpys_integers():
    counts = {"every": np.int64(2), "rounds": np.int64(1)}
    rounds = pol.PruneRounds(plain_net(), np.float16(0.5), **counts)
    assert [rounds.step() is not None for _ in range(4)] == [False, True, False, False]


@pytest.mark.parametrize("flag", [1, 0, None, "no", []])
def test_a_flag_is_true_or_false(flag):
    with pytest.raises(TypeError, match=r"^verbose=.* is .*, expected True or False$"):
        pol.mask_weights(plain_net(), verbose=flag)
    assert pol.mask_weights(plain_net(), verbose=np.bool_(False))


def test_a_schedule_resumes_with_what_its_state_says_or_stays_as_it_was():
    model = pol.sign_in(plain_net())
    schedule = pol.RescaleSchedule(model, every=3, until=9)
    schedule.step()
    state = schedule.state_dict()
    for wrong in ({}, {**state, "every": 0}, {**state, "epoch": math.nan}, {**state, "extra": 1}):
        with pytest.raises((TypeError, ValueError), match="state"):
            schedule.load_state_dict(wrong)
        assert schedule.state_dict() == state
    other = pol.RescaleSchedule(model, every=7)
    other.load_state_dict(state)
    assert other.state_dict() == state
