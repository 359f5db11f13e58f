"""Masks that are open in a checkpoint, a copy or a model that another schedule left."""

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import polarity as pol
from polarity.dense_to_sparse import ACDC, SET, GradualMagnitude, RigL
from tests.dense_to_sparse.cases import (
    OPTIMIZERS,
    PRODUCT,
    assert_alike,
    batches,
    effective,
    leaves,
    masked,
    masking,
    network,
    rigl,
    snapshot,
    train,
)
from tests.dense_to_sparse.test_ddp import differences
from tests.dense_to_sparse.test_schedule import SCHEDULES

SWITCHES = (2, 4, 8)


def later(steps: int) -> Any:
    data = batches()
    for _ in range(steps):
        next(data)
    return data


def live(model: nn.Module) -> int:
    return sum(int(weight.count_nonzero()) for weight in effective(model).values())


def opened(product: bool) -> tuple[nn.Sequential, Any, list[Any]]:
    """Return a model after step 3 of RigL, whose step 4 is an update, and all states."""
    model = masked(product=product)
    sgd, schedule = rigl(model, every=4)
    train(model, sgd, schedule, 3)
    assert not masking(model).enforce
    return model, sgd, snapshot(model, sgd, schedule)


@pytest.mark.parametrize("at", [1, 2, 3, 4, 5, 7, 8, 9])
@PRODUCT
def test_acdc_goes_on_in_the_phase_of_a_model_that_was_loaded_before(
    product: bool, at: int
) -> None:
    """To build a schedule begins a dense phase, but not for a model that is in one."""
    runs = []
    for resumed in (False, True):
        model = masked(1.0, product=product)
        sgd = OPTIMIZERS["sgd"](model.parameters())
        schedule = ACDC(model, sgd, density=0.25, switches=SWITCHES)
        train(model, sgd, schedule, at)
        if resumed:
            states = snapshot(model, sgd, schedule)
            model = masked(1.0, product=product)
            sgd = OPTIMIZERS["sgd"](model.parameters())
            model.load_state_dict(states[0])
            sgd.load_state_dict(states[1])
            schedule = ACDC(model, sgd, density=0.25, switches=SWITCHES)
            schedule.load_state_dict(states[2])
            assert differences(snapshot(model, sgd, schedule), states) == []
        train(model, sgd, schedule, 11 - at, data=later(at))
        runs.append(snapshot(model, sgd, schedule))
    assert differences(*runs) == []


@pytest.mark.parametrize("order", ["model first", "schedule first", "model before both"])
@PRODUCT
def test_a_run_may_go_on_with_another_period(product: bool, order: str) -> None:
    """Step 4 is an update to the saved schedule, and an ordinary step to one of every five."""
    _, _, states = opened(product)
    model = masked(product=product)
    sgd = OPTIMIZERS["sgd"](model.parameters())
    if order == "model before both":
        model.load_state_dict(states[0])
    _, schedule = rigl(model, every=5)
    schedule = RigL(model, sgd, every=5, end=40, fraction=0.5)
    for each in (0, 2) if order == "model first" else (2, 0):
        (model, sgd, schedule)[each].load_state_dict(states[each])
    sgd.load_state_dict(states[1])
    assert masking(model).enforce == (order == "model first")  # else at the next optimizer step
    train(model, sgd, schedule, 9, data=later(3))
    alone = masked(product=product)
    built, never_saved = rigl(alone, every=5)
    train(alone, built, never_saved, 12)
    assert_alike(model, alone)
    assert differences(snapshot(sgd), snapshot(built)) == []


@pytest.mark.parametrize("kind", [RigL, SET])
@PRODUCT
def test_a_new_schedule_applies_masks_that_a_checkpoint_left_open(kind: Any, product: bool) -> None:
    model = opened(product)[0]
    again = masked(product=product)
    again.load_state_dict(model.state_dict())
    built = OPTIMIZERS["sgd"](again.parameters())
    schedule = kind(again, built, every=20, end=40)
    assert masking(again).enforce
    outside = ~pol.masks(again)["0.weight"]
    assert not any(leaf[outside].any() for leaf in leaves(again))
    train(again, built, schedule, 6)
    assert live(again) == round(schedule.density() * 160) == live(model)


@pytest.mark.parametrize("kind", [RigL, SET])
@PRODUCT
def test_an_open_checkpoint_loaded_into_a_running_schedule_trains_no_pruned_entry(
    kind: Any, product: bool
) -> None:
    _, _, states = opened(product)
    model = masked(product=product)
    adam = OPTIMIZERS["adam"](model.parameters())
    schedule = kind(model, adam, every=20, end=40)
    train(model, adam, schedule, 2)
    model.load_state_dict(states[0])
    assert not masking(model).enforce
    train(model, adam, schedule, 3)
    assert masking(model).enforce
    assert live(model) == round(schedule.density() * 160)
    outside = ~pol.masks(model)["0.weight"]
    for leaf in leaves(model):
        assert not leaf[outside].any()
        assert not adam.state[leaf]["exp_avg"][outside].any()


def test_gradual_pruning_begins_from_the_density_that_forward_computes_with() -> None:
    """A model that AC/DC left in a dense phase: the mask is only remembered."""
    model = masked(1.0)
    sgd = OPTIMIZERS["sgd"](model.parameters())
    dense = ACDC(model, sgd, density=0.25, switches=(1, 2))
    train(model, sgd, dense, 5)
    dense.remove()
    assert (pol.density(model), dense.density()) == (0.25, 1.0)
    schedule = GradualMagnitude(model, sgd, density=0.1, begin=2, end=6, every=2)
    assert schedule.density() == 1.0
    densities = []
    train(model, sgd, schedule, 8, before_step=lambda: densities.append(schedule.density()))
    assert densities == [1.0, 1.0, 1.0, 1.0, 0.2125, 0.2125, 0.1, 0.1]
    assert live(model) == 16


def test_acdc_tells_the_density_of_a_model_that_was_pruned_in_a_dense_phase() -> None:
    model = network()
    sgd = OPTIMIZERS["sgd"](model.parameters())
    schedule = ACDC(model, sgd, density=0.25, switches=SWITCHES)
    assert schedule.density() == 1.0
    pol.imp_prune(model, density=0.5, optimizer=sgd)
    assert schedule.density() == 0.5


@PRODUCT
def test_a_copy_or_a_checkpoint_of_open_masks_trains_sparse_after_load_masks(product: bool) -> None:
    """As the docstring of RigL says of what is made right before an update."""
    model, _, states = opened(product)
    loaded = masked(product=product)
    loaded.load_state_dict(states[0])
    x, y = next(batches())
    for other in (copy.deepcopy(model), loaded):
        assert torch.equal(other(x), model(x))
        pol.load_masks(other, pol.masks(other))
        assert torch.equal(other(x), model(x))
        sgd = OPTIMIZERS["sgd"](other.parameters())
        for _ in range(3):
            sgd.zero_grad()
            cross_entropy(other(x), y).backward()
            sgd.step()
        assert live(other) == live(model)


@pytest.mark.parametrize("kind", SCHEDULES)
def test_a_schedule_cannot_be_copied_and_the_error_says_what_to_do(kind: str) -> None:
    """The optimizer of a copy would have no hook, so that the copy would never count a step."""
    model = masked()
    sgd = OPTIMIZERS["sgd"](model.parameters())
    schedule = SCHEDULES[kind](model, sgd)
    with pytest.raises(TypeError, match=r"load_state_dict\(schedule\.state_dict\(\)\)"):
        copy.deepcopy((model, sgd, schedule))
    train(model, sgd, schedule, 3)
    assert schedule.state_dict()["step"] == 3


@pytest.mark.parametrize("way", ["its layers are called", "evaluation mode"])
def test_acdc_says_that_no_forward_pass_made_a_switch(way: str) -> None:
    """A run would stay dense to its end."""
    model = network()
    sgd = OPTIMIZERS["sgd"](model.parameters())
    schedule = ACDC(model, sgd, density=0.25, switches=SWITCHES)
    called: Any = model.eval()
    if way == "its layers are called":
        model.train()
        called = lambda x: model[2](model[1](model[0](x)))  # noqa: E731
    train(called, sgd, schedule, 2)
    with pytest.raises(RuntimeError, match=r"before step 3 .* call schedule\.switch\(\)"):
        train(called, sgd, schedule, 1)
    with pytest.raises(RuntimeError, match="before step 3"):
        schedule.step()
    densities = []
    for _, (x, y) in zip(range(8), batches(), strict=False):
        schedule.switch()
        sgd.zero_grad()
        cross_entropy(called(x), y).backward()
        densities.append(schedule.density())
        sgd.step()
        schedule.step()
    assert densities == [0.25] * 2 + [1.0] * 4 + [0.25] * 2


@pytest.mark.parametrize("kind", ["rigl", "set"])
def test_a_model_that_was_merged_is_an_error_with_a_remedy(kind: str) -> None:
    model = masked()
    sgd = OPTIMIZERS["sgd"](model.parameters())
    schedule = SCHEDULES[kind](model, sgd)
    train(model, sgd, schedule, 1)
    pol.merge(model, optimizer=sgd)
    with pytest.raises(RuntimeError, match=r"no mask any more.*remove\(\) before pol\.merge"):
        train(model, sgd, schedule, 3)
    schedule.remove()
    train(model, sgd, schedule, 3)


def test_after_the_last_update_a_model_can_be_merged() -> None:
    model = masked()
    sgd, schedule = rigl(model, every=2, end=4)
    train(model, sgd, schedule, 5)
    schedule.remove()
    pol.merge(model, optimizer=sgd)
    train(model, sgd, schedule, 2)
    assert schedule.report.step == 4
