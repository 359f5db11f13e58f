"""What every schedule has: counted steps, a checked state, errors at the call."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import polarity as pol
from polarity.dense_to_sparse import ACDC, SET, GradualMagnitude, RigL
from polarity.dense_to_sparse.schedule import Every, StepCount, share
from tests.dense_to_sparse.cases import (
    FIRST,
    LAST,
    OPTIMIZERS,
    PRODUCT,
    batches,
    effective,
    leaves,
    masked,
    network,
    snapshot,
    train,
)

SCHEDULES: dict[str, Callable[[nn.Module, Any], Any]] = {
    "rigl": lambda model, o: RigL(model, o, every=2, end=40, fraction=0.5),
    "set": lambda model, o: SET(
        model, o, every=2, fraction=0.3, generator=torch.Generator().manual_seed(3)
    ),
    "acdc": lambda model, o: ACDC(model, o, density=0.25, switches=(2, 4, 6, 8)),
    "gradual": lambda model, o: GradualMagnitude(model, o, density=0.1, begin=0, end=9, every=2),
}
EVERY = pytest.mark.parametrize("kind", SCHEDULES)


@pytest.mark.parametrize(
    ("every", "begin", "end", "due"),
    [
        (3, 2, 8, [2, 5, 8]),
        (3, 2, 7, [2, 5]),
        (3, 0, None, [3, 6, 9]),
        (1, 9, 9, [9]),
        (20, 1, None, [1]),
    ],
)
def test_the_steps_that_are_due(every: int, begin: int, end: int | None, due: list[int]) -> None:
    when = Every(every, begin, end)
    assert [step for step in range(1, 10) if when.due(step)] == due


def test_a_part_of_nothing_is_all_of_it() -> None:
    assert share([]) == share([(0, 0)]) == 1.0


@EVERY
def test_a_call_without_an_optimizer_step_counts_nothing(kind: str) -> None:
    model = masked()
    sgd = OPTIMIZERS["sgd"](model.parameters())
    schedule = SCHEDULES[kind](model, sgd)
    assert [schedule.step() for _ in range(5)] == [None] * 5
    assert schedule.state_dict()["step"] == 0
    train(model, sgd, schedule, 3)
    schedule.step()
    assert schedule.state_dict()["step"] == 3


def test_the_first_of_several_optimizers_is_counted() -> None:
    model = masked()
    first, second = (OPTIMIZERS["sgd"](model[i].parameters()) for i in (0, 2))
    schedule = SET(model, [first, second], every=2)
    second.step()
    assert schedule.step() is None
    first.step()
    schedule.step()
    assert schedule.state_dict()["step"] == 1


@EVERY
@PRODUCT
@pytest.mark.parametrize("fused", [False, True])
def test_a_step_skipped_by_a_scaler_updates_nothing_and_comes_again(
    kind: str, product: bool, fused: bool
) -> None:
    """Steps 4 and 8 overflow once; everything is as without the overflow."""
    runs = []
    for overflows in (False, True):
        model = masked(product=product)
        sgd = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, fused=fused)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        schedule = SCHEDULES[kind](model, sgd)
        for step, (x, y) in zip(range(1, 12), batches(), strict=False):
            for attempt in range(2 if overflows and step in (4, 8) else 1):
                sgd.zero_grad()
                loss = cross_entropy(model(x), y)
                if overflows and step in (4, 8) and attempt == 0:
                    loss = loss * torch.inf
                scaler.scale(loss).backward()
                if kind == "rigl" and step % 4 == 0:
                    scaler.unscale_(sgd)
                    schedule.collect()
                scaler.step(sgd)
                scaler.update(1024.0)
                report = schedule.step()
            assert schedule.state_dict()["step"] == step, report
        runs.append((effective(model), pol.masks(model)))
    for name in (FIRST, LAST):
        assert torch.equal(runs[0][1][name], runs[1][1][name])
        assert torch.equal(runs[0][0][name], runs[1][0][name])


@EVERY
@PRODUCT
def test_bfloat16_forwards_under_autocast_work(kind: str, product: bool) -> None:
    model = masked(product=product)
    sgd = OPTIMIZERS["sgd"](model.parameters())
    schedule = SCHEDULES[kind](model, sgd)
    changed = 0
    for _, (x, y) in zip(range(9), batches(), strict=False):
        sgd.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = cross_entropy(model(x), y)
        loss.backward()
        sgd.step()
        report = schedule.step()
        changed += report.dropped + report.grown if report else 0
    assert changed > 0


@EVERY
@PRODUCT
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("schedule_first", [False, True])
def test_a_killed_run_resumes_bit_for_bit_at_every_step(
    kind: str, product: bool, optimizer: str, schedule_first: bool, tmp_path: Any
) -> None:
    steps = 11

    def build() -> list[Any]:
        model = masked(product=product)
        built = OPTIMIZERS[optimizer](model.parameters())
        return [model, built, SCHEDULES[kind](model, built)]

    run = build()
    states = [snapshot(*run)]
    train(run[0], run[1], run[2], steps, after_step=lambda _: states.append(snapshot(*run)))
    final = snapshot(*run)
    for at in range(steps + 1):
        torch.save(states[at], tmp_path / "state.pt")
        state = torch.load(tmp_path / "state.pt", weights_only=True)
        torch.manual_seed(at)
        model, built, schedule = build()
        order = [2, 0, 1] if schedule_first else [0, 1, 2]
        for part in order:
            (model, built, schedule)[part].load_state_dict(state[part])
        data = batches()
        for _ in range(at):
            next(data)
        train(model, built, schedule, steps - at, data=data)
        assert_same(snapshot(model, built, schedule), final, f"resumed after step {at}")


def assert_same(one: Any, other: Any, where: str) -> None:
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert list(one) == list(other), where
        for key in one:
            assert_same(one[key], other[key], f"{where}, {key}")
    elif isinstance(one, list):
        for place, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{where}[{place}]")
    else:
        assert one == other, where


@EVERY
@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda s: [], ["state", "state_dict()"]),
        (lambda s: s | {"schedule": "Other"}, ["'Other'"]),
        (lambda s: {k: v for k, v in s.items() if k != "step"}, ["'step'"]),
        (lambda s: s | {"epoch": 3}, ["'epoch'"]),
        (lambda s: s | {"step": -1}, ["state['step']=-1"]),
        (lambda s: s | {"step": 2.0}, ["state['step']=2.0"]),
        (lambda s: s | {"step": True}, ["state['step']=True"]),
        (lambda s: s | {"seed": 3 if s["seed"] is None else None}, ["state['seed']"]),
    ],
)
def test_a_state_that_makes_no_sense_changes_nothing(
    kind: str, change: Any, parts: list[str]
) -> None:
    model = masked()
    sgd = OPTIMIZERS["sgd"](model.parameters())
    schedule = SCHEDULES[kind](model, sgd)
    train(model, sgd, schedule, 3)
    before = snapshot(model, sgd, schedule)
    with pytest.raises((TypeError, ValueError)) as raised:
        schedule.load_state_dict(change(schedule.state_dict()))
    assert not [part for part in parts if part not in str(raised.value)], raised.value
    assert_same(snapshot(model, sgd, schedule), before, "after the refused call")


@pytest.mark.parametrize(
    ("explored", "parts"),
    [
        (None, ["state['explored']"]),
        ({}, [FIRST]),
        ({FIRST: torch.ones(10, 12).bool(), LAST: torch.ones(10, 4).bool()}, [LAST, "(10, 4)"]),
        ({FIRST: torch.ones(10, 12), LAST: torch.ones(4, 10).bool()}, [FIRST, "float32"]),
    ],
)
def test_a_state_of_another_model_changes_nothing(explored: Any, parts: list[str]) -> None:
    model = masked()
    sgd = OPTIMIZERS["sgd"](model.parameters())
    schedule = SCHEDULES["rigl"](model, sgd)
    before = snapshot(model, sgd, schedule)
    with pytest.raises((TypeError, ValueError)) as raised:
        schedule.load_state_dict(schedule.state_dict() | {"step": 7, "explored": explored})
    assert not [part for part in parts if part not in str(raised.value)], raised.value
    assert_same(snapshot(model, sgd, schedule), before, "after the refused call")


@EVERY
def test_an_optimizer_of_another_model_is_refused(kind: str) -> None:
    model = masked()
    before = snapshot(model)
    other = OPTIMIZERS["sgd"](network().parameters())
    with pytest.raises(ValueError, match="built for another model"):
        SCHEDULES[kind](model, other)
    with pytest.raises(TypeError, match="optimizer"):
        SCHEDULES[kind](model, None)
    assert_same(snapshot(model), before, "after the refused call")


@EVERY
def test_nothing_is_drawn_from_the_global_generator_while_training(kind: str) -> None:
    model = masked()
    sgd = OPTIMIZERS["sgd"](model.parameters())
    schedule = SCHEDULES[kind](model, sgd)
    before = torch.get_rng_state()
    train(model, sgd, schedule, 9)
    assert torch.equal(torch.get_rng_state(), before)


@EVERY
def test_sign_in_with_rescaling_beside_a_schedule_keeps_what_is_pruned_zero(kind: str) -> None:
    model = masked(product=True)
    sgd = OPTIMIZERS["sgd"](model.parameters())
    schedule = SCHEDULES[kind](model, sgd)
    rescale = pol.RescaleSchedule(model, every=1, optimizer=sgd)
    changed = 0

    def check(report: Any) -> None:
        nonlocal changed
        rescale.step()
        changed += report.dropped + report.grown if report else 0
        outside = ~pol.masks(model)[FIRST]
        if kind != "acdc":
            assert not effective(model)[FIRST][outside].any()

    train(model, sgd, schedule, 11, after_step=check)
    assert changed > 10
    if kind == "rigl":
        schedule.remove()
        outside = ~pol.masks(model)[FIRST]
        assert not any(leaf[outside].any() for leaf in leaves(model))


def test_a_count_can_be_removed_twice() -> None:
    sgd = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    steps = StepCount(sgd)
    steps.remove()
    steps.remove()
    sgd.step()
    assert not steps.due
    assert steps.count() == 0


@pytest.mark.parametrize("kind", [RigL, SET, ACDC, GradualMagnitude])
def test_a_resumed_run_draws_from_the_seed_of_its_state(kind: Any) -> None:
    """The schedule that loads was made with another seed, as in a new process without one."""
    options: dict[Any, dict[str, Any]] = {
        RigL: {"every": 2, "end": 40, "fraction": 0.5},
        SET: {"every": 2, "fraction": 0.3},
        ACDC: {"density": 0.25, "switches": (2, 4, 6, 8)},
        GradualMagnitude: {"density": 0.1, "begin": 0, "end": 9, "every": 2},
    }
    runs = []
    for resumed in (False, True):
        model = masked()
        with torch.no_grad():
            model[0].weight = torch.ones(10, 12)  # ties everywhere
        still = torch.optim.SGD(model.parameters(), lr=0.0)

        def build(seed: int, model: nn.Module = model, still: Any = still) -> Any:
            draw = torch.Generator().manual_seed(seed)
            return kind(model, still, ties="random", generator=draw, **options[kind])

        schedule = build(0)
        train(model, still, schedule, 3)
        if resumed:
            state = schedule.state_dict()
            schedule.remove()
            schedule = build(1)
            assert schedule.state_dict()["seed"] != state["seed"]
            schedule.load_state_dict(state)
        train(model, still, schedule, 6)
        runs.append(pol.masks(model))
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])
