"""States of optimizers and schedulers in a rewind point are checked when it is used."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

import polarity as pol
from tests.forms import half_masked
from tests.helpers import plain_state, same_state, train_step
from tests.laws.refusals import fingerprint
from tests.rewind.network import INPUTS, net

# A run with one optimizer, and a point that holds the state of another class.
CLASSES: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.01),
    "adadelta": lambda p: torch.optim.Adadelta(p, lr=0.01),
    "adamax": lambda p: torch.optim.Adamax(p, lr=0.01),
    "nadam": lambda p: torch.optim.NAdam(p, lr=0.01),
    "radam": lambda p: torch.optim.RAdam(p, lr=0.01),
    "asgd": lambda p: torch.optim.ASGD(p, lr=0.01),
    "rprop": lambda p: torch.optim.Rprop(p, lr=0.01),
    "adafactor": lambda p: torch.optim.Adafactor(p, lr=0.01),
}
OPTIMIZER_CALLS: dict[str, Callable[..., object]] = {
    "imp_prune": lambda m, o, s, p: pol.imp_prune(m, 0.2, rewind=p, optimizer=o, scheduler=s),
    "lrr_step": lambda m, o, s, p: pol.lrr_step(m, 0.2, rewind=p, optimizer=o, scheduler=s),
    "restore_schedule": lambda m, o, s, p: p.restore_schedule(o, s),
}


def stepped(model: nn.Module, build: Callable[[Any], torch.optim.Optimizer]) -> Any:
    optimizer = build(model.parameters())
    train_step(model, optimizer, INPUTS)
    return optimizer


@pytest.mark.parametrize("call", OPTIMIZER_CALLS)
@pytest.mark.parametrize("held", CLASSES)
def test_the_state_of_another_class_of_optimizer_is_refused_before_pruning(
    held: str, call: str
) -> None:
    model = half_masked(net())
    point = pol.RewindPoint.capture(model, stepped(model, CLASSES[held]))
    for given, build in CLASSES.items():
        if given == held:
            continue
        optimizer = stepped(model, build)
        before = fingerprint([model.state_dict(), optimizer.state_dict()])
        with pytest.raises(ValueError, match=rf"optimizer={type(optimizer).__name__} "):
            OPTIMIZER_CALLS[call](model, optimizer, None, point)
        assert fingerprint([model.state_dict(), optimizer.state_dict()]) == before


def test_the_states_of_adam_and_adamw_are_told_apart() -> None:
    """In recent versions of PyTorch they have the same options, and one made the other of it."""
    model = half_masked(net())
    adam, adamw = (
        stepped(model, lambda p, c=c: c(p, lr=0.01)) for c in (torch.optim.Adam, torch.optim.AdamW)
    )
    point = pol.RewindPoint.capture(model, adam)
    if "decoupled_weight_decay" not in adamw.defaults:
        pytest.skip("this version of PyTorch has no option that differs")
    before = fingerprint([model.state_dict(), adamw.state_dict()])
    with pytest.raises(ValueError, match=r"has decoupled_weight_decay=True, the .* state False"):
        pol.lrr_step(model, 0.2, rewind=point, optimizer=adamw)
    assert fingerprint([model.state_dict(), adamw.state_dict()]) == before


@pytest.mark.parametrize("given", CLASSES)
def test_the_state_of_the_same_class_is_taken_and_the_next_step_works(given: str) -> None:
    model = half_masked(net())
    point = pol.RewindPoint.capture(model, stepped(model, CLASSES[given]))
    for optimizer in (CLASSES[given](model.parameters()), stepped(model, CLASSES[given])):
        pol.imp_prune(model, 0.2, rewind=point, optimizer=optimizer)
        train_step(model, optimizer, INPUTS)


SCHEDULERS: dict[str, Callable[[Any], Any]] = {
    "step": lambda o: lr_scheduler.StepLR(o, 2),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 8),
    "one cycle": lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=20),
    "plateau": lambda o: lr_scheduler.ReduceLROnPlateau(o),
    "restarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3),
    "lambda": lambda o: lr_scheduler.LambdaLR(o, lambda epoch: 0.5**epoch),
    "milestones": lambda o: lr_scheduler.MultiStepLR(o, [2, 5]),
    "linear": lambda o: lr_scheduler.LinearLR(o),
    "two in a row": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o), lr_scheduler.StepLR(o, 2)], [2]
    ),
    "another two": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o), lr_scheduler.CosineAnnealingLR(o, 2)], [2]
    ),
}


@pytest.mark.parametrize("call", OPTIMIZER_CALLS)
@pytest.mark.parametrize("held", SCHEDULERS)
def test_the_state_of_another_class_of_scheduler_is_refused_before_pruning(
    held: str, call: str
) -> None:
    model = half_masked(net())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    train_step(model, optimizer, INPUTS)
    point = pol.RewindPoint.capture(model, optimizer, SCHEDULERS[held](optimizer))
    for given, build in SCHEDULERS.items():
        if given == held:
            continue
        schedule = build(optimizer)
        things = (model, optimizer, schedule)
        before = [repr(each.state_dict()) for each in things]
        with pytest.raises(ValueError, match=rf"scheduler={type(schedule).__name__} "):
            OPTIMIZER_CALLS[call](model, optimizer, schedule, point)
        assert [repr(each.state_dict()) for each in things] == before


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_the_state_of_the_same_class_of_scheduler_is_taken(kind: str) -> None:
    model = half_masked(net())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    schedule = SCHEDULERS[kind](optimizer)
    point = pol.RewindPoint.capture(model, optimizer, schedule)
    before = repr(schedule.state_dict())
    train_step(model, optimizer, INPUTS)
    schedule.step(*([1.0] if kind == "plateau" else []))
    pol.lrr_step(model, 0.2, rewind=point, optimizer=optimizer, scheduler=schedule)
    assert repr(schedule.state_dict()) == before


def test_moments_of_exchanged_parameters_are_refused_by_both_shapes() -> None:
    """The point's optimizer had its parameters in another order; sizes of groups agree."""
    model = half_masked(net())
    theirs = torch.optim.Adam(list(reversed(list(model.parameters()))), lr=0.01)
    train_step(model, theirs, INPUTS)
    point = pol.RewindPoint.capture(model, theirs)
    mine = torch.optim.Adam(model.parameters(), lr=0.01)
    before = plain_state(model)
    shapes = [tuple(each.shape) for each in model.parameters()]
    said = rf"'exp_avg' of '0\..*' in shape \({shapes[-1][0]},.*expected the parameter's"
    with pytest.raises(ValueError, match=said):
        pol.imp_prune(model, 0.2, rewind=point, optimizer=mine)
    assert same_state(plain_state(model), before)
    assert not mine.state


def spoiled(change: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], Any]:
    def spoil(state: dict[str, Any]) -> Any:
        change(state)
        return state

    return spoil


BAD_STATES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "NaN in an average": (
        spoiled(lambda s: s["state"][0]["exp_avg"].fill_(math.nan)),
        r"'exp_avg' of '0\..*' holds \d+ NaN",
    ),
    "NaN as learning rate": (
        spoiled(lambda s: s["param_groups"][0].update(lr=math.nan)),
        "holds lr=nan for optimizer=Adam",
    ),
    "no groups": (spoiled(lambda s: s.pop("param_groups")), "is no state_dict"),
    "groups of numbers": (spoiled(lambda s: s.update(param_groups=[1])), "is no state_dict"),
    "no state": (spoiled(lambda s: s.pop("state")), "is no state_dict"),
    "a key less": (spoiled(lambda s: s["state"][0].pop("exp_avg")), "same keys"),
    "an option less": (
        spoiled(lambda s: s["param_groups"][0].pop("betas")),
        "is missing the option 'betas'",
    ),
    "an option more": (
        spoiled(lambda s: s["param_groups"][0].update(nesterov=True)),
        "holds the option 'nesterov'",
    ),
}


@pytest.mark.parametrize("case", BAD_STATES)
def test_a_state_that_cannot_be_stepped_with_is_refused(case: str) -> None:
    model = half_masked(net())
    optimizer = stepped(model, CLASSES["adam"])
    spoil, said = BAD_STATES[case]
    held = pol.RewindPoint.capture(model, optimizer)
    point = pol.RewindPoint(held.weights, spoil(held.optimizer))
    before = fingerprint([model.state_dict(), optimizer.state_dict()])
    with pytest.raises(ValueError, match=said):
        pol.lrr_step(model, 0.2, rewind=point, optimizer=optimizer)
    assert fingerprint([model.state_dict(), optimizer.state_dict()]) == before


def test_a_point_of_two_optimizers_needs_two() -> None:
    model = half_masked(net())
    both = [torch.optim.SGD(layer.parameters(), lr=0.1) for layer in (model[0], model[3])]
    point = pol.RewindPoint.capture(model, both)
    with pytest.raises(ValueError, match="optimizer=SGD given, but the rewind point holds 2"):
        pol.lrr_step(model, 0.2, rewind=point, optimizer=both[0])
    alone = pol.RewindPoint.capture(model, both[:1])
    assert isinstance(alone.optimizer, list)
    alone.restore_schedule(both[0])


def test_an_optimizer_that_gained_a_scheduler_still_takes_the_state() -> None:
    model = half_masked(net())
    optimizer = stepped(model, CLASSES["sgd"])
    point = pol.RewindPoint.capture(model, optimizer)
    schedule = lr_scheduler.OneCycleLR(optimizer, 0.5, total_steps=9)
    scheduled = pol.RewindPoint.capture(model, optimizer, schedule)
    point.restore_schedule(optimizer)
    scheduled.restore_schedule(CLASSES["sgd"](model.parameters()))


@pytest.mark.parametrize(
    "wrong", [3, "step", torch.optim.SGD([torch.ones(1, requires_grad=True)], 0.1), nn.Linear(1, 1)]
)
def test_what_is_not_a_scheduler_is_refused_as_such(wrong: Any) -> None:
    model = half_masked(net())
    point = pol.RewindPoint.capture(model)
    said = rf"scheduler is an? {type(wrong).__name__}, expected a learning-rate scheduler"
    with pytest.raises(TypeError, match=said):
        pol.RewindPoint.capture(model, None, wrong)
    with pytest.raises(TypeError, match=said):
        pol.imp_prune(model, 0.1, rewind=point, scheduler=wrong)
    with pytest.raises(TypeError, match=said):
        point.restore_schedule(scheduler=wrong)


LOADED = {
    "Adafactor": lambda model: torch.optim.Adafactor(model.parameters(), lr=0.01),
    "Rprop": lambda model: torch.optim.Rprop(model.parameters(), lr=0.01),
    "SGD": lambda model: torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9),
}


@pytest.mark.parametrize("kind", LOADED)
@pytest.mark.parametrize("before", [True, False], ids=["captured first", "loaded first"])
def test_an_optimizer_that_loaded_a_state_and_one_that_did_not_share_their_points(
    kind: str, before: bool
) -> None:
    model = net()
    optimizer, other = LOADED[kind](model), LOADED[kind](model)
    train_step(model, optimizer, INPUTS)
    other.load_state_dict(optimizer.state_dict())  # adds options that the first does not have
    one, two = (optimizer, other) if before else (other, optimizer)
    point = pol.RewindPoint.capture(model, one)
    point.restore_schedule(two)
    assert pol.imp_prune(model, 0.2, rewind=point, optimizer=two).survivors


def test_a_state_that_grows_with_the_steps_is_taken_back() -> None:
    model = net()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=2)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = model(*INPUTS).square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    point = pol.RewindPoint.capture(model, optimizer)
    keys = {key for state in point.optimizer["state"].values() for key in state}
    for _ in range(3):
        optimizer.step(closure)
    assert optimizer.state[model[0].weight].keys() > keys, "no new key: the test shows nothing"
    point.restore_schedule(optimizer)
    assert optimizer.state[model[0].weight].keys() == keys
