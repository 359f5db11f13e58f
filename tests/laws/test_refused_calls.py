"""Bad input to signing and masking, and to models that have nothing to offer."""

import math

import pytest
import torch
from torch import nn

import polarity as pol
from polarity import Delta, Epsilon, Phi
from tests.laws.refusals import W0, W2, Run, fingerprint, in_the_middle, refuse, wide


@pytest.fixture
def run() -> Run:
    return in_the_middle()


SIGNS = {
    "unknown strategy": (
        lambda r: pol.reinit_signs(r.model, "mask2", init=r.start),
        ["strategy='mask2'", "'mask1'", "'gradual'", "'trained'"],
    ),
    "unknown scope": (
        lambda r: pol.reinit_signs(r.model, scope="model", init=r.start),
        ["scope='model'", "'global'", "'layer'"],
    ),
    "mix above one": (
        lambda r: pol.reinit_signs(r.model, "gradual", mix=70, init=r.start),
        ["mix=70", "[0, 1]"],
    ),
    "mix that is NaN": (
        lambda r: pol.reinit_signs(r.model, "gradual", mix=math.nan, init=r.start),
        ["mix=nan", "[0, 1]"],
    ),
    "epsilon out of range": (
        lambda r: pol.reinit_signs(r.model, perturb=Epsilon(1.3), init=r.start),
        ["epsilon=1.3", "[0, 1]"],
    ),
    "delta out of range": (
        lambda r: pol.reinit_signs(r.model, perturb=Delta(-1), init=r.start),
        ["delta=-1", "[0, 1]"],
    ),
    "two centres": (
        lambda r: pol.reinit_signs(r.model, perturb=[Phi(0.1), Phi(0.2)], init=r.start),
        ["perturb", "0.1", "0.2"],
    ),
    "init lacks a layer": (
        lambda r: pol.reinit_signs(r.model, init=r.without(W2)),
        ["init", W2],
    ),
    "init point lacks a layer": (
        lambda r: pol.reinit_signs(r.model, init=pol.RewindPoint(r.without(W2))),
        ["init", W2],
    ),
    "init of another shape": (
        lambda r: pol.reinit_signs(r.model, init=r.init | {W2: torch.ones(5, 3)}),
        ["init", W2, "(5, 3)", "(3, 5)"],
    ),
    "init of NaN": (
        lambda r: pol.reinit_signs(r.model, init=r.init | {W2: wide(math.nan, (3, 5))}),
        ["init", W2, "15 NaN"],
    ),
    "infinite init": (
        lambda r: pol.reinit_signs(r.model, init=r.init | {W2: wide(math.inf, (3, 5))}),
        ["init", W2, "infinite"],
    ),
}


@pytest.mark.parametrize(("call", "parts"), SIGNS.values(), ids=SIGNS.keys())
def test_signing_refuses(run, call, parts):
    refuse(run, call, ValueError, parts)


WRONG_TYPES = {
    "init": (lambda r: pol.reinit_signs(r.model, init=[1]), ["init", "list"]),
    "init's values": (lambda r: pol.reinit_signs(r.model, init={W0: [1], W2: [1]}), [W0, "list"]),
    "mix": (lambda r: pol.reinit_signs(r.model, "gradual", init=r.start, mix="0.7"), ["mix='0.7'"]),
    "perturb": (lambda r: pol.reinit_signs(r.model, perturb=0.3, init=r.start), ["perturb", "0.3"]),
    "perturb, class": (
        lambda r: pol.reinit_signs(r.model, perturb=[Epsilon], init=r.start),
        ["perturb", "Epsilon"],
    ),
    "mask": (lambda r: pol.load_masks(r.model, {W0: [[1]]}), [W0, "list"]),
}


@pytest.mark.parametrize(("call", "parts"), WRONG_TYPES.values(), ids=WRONG_TYPES.keys())
def test_an_argument_of_another_type_is_refused(run, call, parts):
    refuse(run, call, TypeError, parts)


MASKS = {
    "unknown name": (
        lambda r: pol.load_masks(r.model, {W0: torch.ones(5, 6), "3.weight": torch.ones(1)}),
        ["masks", "'3.weight'"],
    ),
    "other shape": (
        lambda r: pol.load_masks(r.model, {W0: torch.zeros(5, 6), W2: torch.ones(5, 3)}),
        [W2, "(5, 3)", "(3, 5)"],
    ),
    "other values": (
        lambda r: pol.load_masks(r.model, {W0: torch.zeros(5, 6), W2: wide(2, (3, 5))}),
        [W2, "zeros and ones"],
    ),
    "NaN": (
        lambda r: pol.load_masks(r.model, {W0: torch.zeros(5, 6), W2: wide(math.nan, (3, 5))}),
        [W2, "zeros and ones"],
    ),
    "none": (lambda r: pol.load_masks(r.model, {}), ["masks is empty"]),
    "not selected": (
        lambda r: pol.mask_weights(r.model, targets="0", masks={W2: torch.zeros(3, 5)}),
        ["masks", W2],
    ),
    "typo": (lambda r: pol.mask_weights(r.model, targets="0.wieght"), ["targets='0.wieght'", W0]),
}


@pytest.mark.parametrize(("call", "parts"), MASKS.values(), ids=MASKS.keys())
def test_masking_refuses(run, call, parts):
    refuse(run, call, ValueError, parts)


@pytest.mark.parametrize("name", [W0, W2])
def test_delta_of_a_layer_without_survivors_is_refused_by_its_name(run, name):
    pol.load_masks(run.model, {name: torch.zeros_like(pol.masks(run.model)[name])})
    perturb = [Epsilon(0.1), Delta(0.2)]
    refuse(
        run,
        lambda r: pol.reinit_signs(r.model, perturb=perturb, init=r.start),
        ValueError,
        ["delta=0.2", name, "0 survivors"],
    )
    assert pol.reinit_signs(run.model, perturb=perturb, scope="global", init=run.start).survivors


def test_delta_of_a_model_without_survivors_is_refused(run):
    pol.imp_prune(run.model, density=0)
    refuse(
        run,
        lambda r: pol.reinit_signs(r.model, perturb=Delta(0.2), scope="global", init=r.start),
        ValueError,
        ["delta=0.2", "0 survivors"],
    )


PLAIN = {
    "amount": lambda m: pol.imp_prune(m, 1.5),
    "scope": lambda m: pol.imp_prune(m, 0.5, scope="x"),
    "rewind": lambda m: pol.imp_prune(m, 0.5, rewind=pol.RewindPoint({})),
    "optimizer": lambda m: pol.imp_prune(m, 0.5, optimizer=torch.optim.SGD([torch.ones(1)], 0.1)),
    "score": lambda m: pol.imp_prune(m, 0.5, score=lambda name, weight: weight.sum()),
    "scores": lambda m: pol.prune(m, {"0.weight": torch.ones(1)}, density=0.5),
    "densities": lambda m: pol.prune(m, {"0.weight": torch.ones(2, 2)}, densities={"0.weight": 2}),
    "unknown": lambda m: pol.prune(m, {"9.weight": torch.ones(2, 2)}, density=0.5),
    "masks": lambda m: pol.load_masks(m, {"0.weight": torch.eye(2), "1.weight": torch.eye(3)}),
    "reinit": lambda m: pol.reinit_signs(m, init={}),
    "merge": pol.merge,
    "masks of": pol.masks,
}


@pytest.mark.parametrize("call", PLAIN.values(), ids=PLAIN.keys())
def test_a_plain_model_stays_plain_when_a_call_is_refused(call):
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    before, kinds = fingerprint(model.state_dict()), [type(each) for each in model.modules()]
    parameters = list(model.parameters())
    with pytest.raises(ValueError, match=r"\w"):
        call(model)
    assert fingerprint(model.state_dict()) == before
    assert [type(each) for each in model.modules()] == kinds
    assert [old is new for old, new in zip(parameters, model.parameters(), strict=True)] == [
        True
    ] * 4


@pytest.mark.parametrize(
    "call",
    [pol.mask_weights, pol.find_targets, pol.imp_prune, pol.density, pol.sparsity],
    ids=lambda call: call.__name__,
)
def test_a_model_without_prunable_weights_is_refused_by_its_type(call):
    with pytest.raises(ValueError, match=r"^BatchNorm1d has no prunable weights"):
        call(nn.BatchNorm1d(3))


@pytest.mark.parametrize(
    "call",
    [pol.masks, pol.merge, pol.compact, lambda model: pol.reinit_signs(model, init={})],
    ids=["masks", "merge", "compact", "reinit_signs"],
)
def test_a_model_without_masks_is_refused_by_its_type(call):
    with pytest.raises(ValueError, match=r"^Linear has no masked weights"):
        call(nn.Linear(2, 2))


MODELS = {
    "mask_weights": pol.mask_weights,
    "load_masks": lambda m: pol.load_masks(m, {W0: torch.ones(1)}),
    "masks": pol.masks,
    "density": pol.density,
    "sparsity": pol.sparsity,
    "find_targets": pol.find_targets,
    "sign_in": pol.sign_in,
    "compact": pol.compact,
    "expand": pol.expand,
    "rescale": pol.rescale,
    "RescaleSchedule": lambda m: pol.RescaleSchedule(m, every=1),
    "inner_scaling": pol.inner_scaling,
    "frobenius_decay": pol.frobenius_decay,
    "interpolate_norms": pol.interpolate_norms,
    "norm_alpha": pol.norm_alpha,
    "norm_alpha_state": pol.norm_alpha_state,
    "load_norm_alpha_state": lambda m: pol.load_norm_alpha_state(m, {}),
    "set_norm_alpha": lambda m: pol.set_norm_alpha(m, 0.5),
    "enforce_in_step": lambda m: pol.enforce_in_step(m, torch.optim.SGD([torch.ones(1)], 0.1)),
    "merge": pol.merge,
    "dense_state_dict": pol.dense_state_dict,
    "save": lambda m: pol.save(m, "nowhere/model.safetensors"),
    "load": lambda m: pol.load(m, "nowhere/model.safetensors"),
    "prune": lambda m: pol.prune(m, pol.scores.magnitude, density=0.5),
    "imp_prune": pol.imp_prune,
    "lrr_step": lambda m: pol.lrr_step(m, rewind=pol.RewindPoint({})),
    "PruneRounds": lambda m: pol.PruneRounds(m, every=1, rounds=1),
    "capture": pol.RewindPoint.capture,
    "restore_weights": lambda m: pol.RewindPoint({}).restore_weights(m),
    "reinit_signs": lambda m: pol.reinit_signs(m, init={}),
    "signed_mask": pol.signed_mask,
    "apply": lambda m: pol.SignedMask({}, {}).apply(m),
}


@pytest.mark.parametrize("call", MODELS.values(), ids=MODELS.keys())
@pytest.mark.parametrize("model", [{W0: torch.ones(2)}, nn.Linear], ids=["mapping", "class"])
def test_what_is_not_a_module_is_refused_as_such(call, model):
    kind = "the class Linear" if model is nn.Linear else "a dict"
    with pytest.raises(TypeError, match=rf"^model is {kind}, expected a torch\.nn\.Module"):
        call(model)


OPTIMIZERS = {
    "prune": lambda r, o: pol.prune(r.model, r.scores, density=0.1, optimizer=o),
    "imp_prune": lambda r, o: pol.imp_prune(r.model, optimizer=o),
    "imp_prune and rewind": lambda r, o: pol.imp_prune(r.model, rewind=r.start, optimizer=o),
    "lrr_step": lambda r, o: pol.lrr_step(r.model, rewind=r.start, optimizer=o),
    "PruneRounds": lambda r, o: pol.PruneRounds(r.model, every=1, rounds=1, optimizer=o),
    "capture": lambda r, o: pol.RewindPoint.capture(r.model, o),
    "restore_schedule": lambda r, o: r.start.restore_schedule(o),
    "sign_in": lambda r, o: pol.sign_in(r.model, optimizer=o),
    "merge": lambda r, o: pol.merge(r.model, optimizer=o),
    "enforce_in_step": lambda r, o: pol.enforce_in_step(r.model, o),
    "rescale": lambda r, o: pol.rescale(pol.sign_in(nn.Linear(2, 2)), optimizer=o),
    "RescaleSchedule": lambda r, o: pol.RescaleSchedule(
        pol.sign_in(nn.Linear(2, 2)), every=1, optimizer=o
    ),
    "sign_in again": lambda r, o: pol.sign_in(pol.sign_in(nn.Linear(2, 2)), optimizer=o),
}


@pytest.mark.parametrize("call", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_what_is_not_an_optimizer_is_refused_as_such(run, call):
    wrongs = {"a generator": run.model.parameters(), "a dict": {"lr": 0.1}}
    for kind, wrong in {**wrongs, "the class SGD": torch.optim.SGD}.items():
        refuse(
            run,
            lambda r, wrong=wrong: _without_drawing(lambda: call(r, wrong)),
            TypeError,
            [f"optimizer is {kind}, expected a torch.optim.Optimizer"],
        )


def _without_drawing(call):
    """Call with the random state restored, for calls that build a model of their own."""
    with torch.random.fork_rng(devices=[]):
        call()


DRAWING = {
    "gradual": lambda r, g: pol.reinit_signs(r.model, "gradual", init=r.start, generator=g),
    "epsilon": lambda r, g: pol.reinit_signs(
        r.model,
        perturb=[Epsilon(0.1), lambda signs, magnitudes, generator: signs * 0],
        init=r.start,
        generator=g,
    ),
    "tensors": lambda r, g: pol.signed_constants(
        r.init,
        r.init,
        {W0: torch.ones(5, 6), W2: torch.ones(3, 5)},
        "mask0",
        [Epsilon(0.1), lambda signs, magnitudes, generator: signs * 0],
        generator=g,
    ),
    "imp_prune": lambda r, g: pol.imp_prune(r.model, 0.2, score=pol.scores.random, generator=g),
    "lrr_step": lambda r, g: pol.lrr_step(
        r.model, 0.2, rewind=r.start, score=pol.scores.random, generator=g
    ),
    "prune": lambda r, g: pol.prune(r.model, pol.scores.random, amount=0.2, generator=g),
    "prune too much": lambda r, g: pol.prune(r.model, pol.scores.random, density=0.99, generator=g),
    "directly": lambda r, g: Epsilon(0.5)(
        torch.ones(3), torch.ones(3), g, masks={W0: torch.ones(2, dtype=torch.bool)}
    ),
}


@pytest.mark.parametrize("own", [False, True], ids=["global", "generator"])
@pytest.mark.parametrize("call", DRAWING.values(), ids=DRAWING.keys())
def test_a_refused_call_consumes_no_random_numbers(run, call, own):
    """The second weight is the one that is refused, after the first was drawn for."""
    with torch.no_grad():
        run.model[2].parametrizations.weight.original[pol.masks(run.model)[W2]] = math.nan
    generator = torch.Generator().manual_seed(5) if own else None
    before = generator.get_state() if own else None
    refuse(run, lambda r: call(r, generator), ValueError, [])
    assert not own or torch.equal(generator.get_state(), before)


GENERATORS = {
    **{name: call for name, call in DRAWING.items() if name != "prune too much"},
    "imp_prune by magnitude": lambda r, g: pol.imp_prune(r.model, 0.2, generator=g),
    "PruneRounds": lambda r, g: pol.PruneRounds(r.model, every=1, rounds=1, generator=g),
    "reinit_signs": lambda r, g: pol.reinit_signs(r.model, init=r.start, generator=g),
    "interpolate_norms": lambda r, g: pol.interpolate_norms(r.model, generator=g),
    "delta": lambda r, g: Delta(0.5)(torch.ones(3), torch.ones(3), g),
    "scores.random": lambda r, g: pol.scores.random(W0, torch.ones(2), generator=g),
}


@pytest.mark.parametrize("call", GENERATORS.values(), ids=GENERATORS.keys())
def test_what_is_not_a_generator_is_refused_as_such(run, call):
    expected = ["generator=0 is an int, expected a torch.Generator"]
    refuse(run, lambda r: call(r, 0), TypeError, expected)
