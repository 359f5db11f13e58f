"""Masks enforced in the step: pruning, rewinding and loading in mid-training."""

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import polarity as pol
from tests.attach.in_step import (
    OUTSIDE,
    all_zero,
    both,
    drawn_masks,
    enforced,
    in_forward,
    install,
    leaves,
    masks_in_forward,
    momentum,
    network,
    same,
    stored,
    train,
)

EVERY_FORM = pytest.mark.parametrize("product", [False, True], ids=["mask", "sign_in"])
BOTH_WAYS = pytest.mark.parametrize("in_step", [True, False], ids=["in step", "in forward"])


def model_of(in_step: bool, product: bool = False) -> nn.Sequential:
    return enforced(product)[0] if in_step else in_forward(product)


# Pruning and rewinding meanwhile


def prune_by_load_masks(model: nn.Module, optimizer: Any, start: Any) -> None:
    install(model, drawn_masks(9))


def revive(model: nn.Module, optimizer: Any, start: Any) -> None:
    install(model, [mask | (torch.rand(mask.shape) < 0.3) for mask in drawn_masks()])


def round_of_imp(model: nn.Module, optimizer: Any, start: Any) -> None:
    pol.imp_prune(model, 0.3, rewind=start, optimizer=optimizer)


def round_of_lrr(model: nn.Module, optimizer: Any, start: Any) -> None:
    pol.lrr_step(model, 0.3, rewind=start, optimizer=optimizer)


def prune_by_scores(model: nn.Module, optimizer: Any, start: Any) -> None:
    scores = {name: weight.abs() for name, weight in start.weights.items() if "weight" in name}
    pol.prune(model, scores, density=0.2)


def restore(model: nn.Module, optimizer: Any, start: Any) -> None:
    start.restore_weights(model)


def assign(model: nn.Module, optimizer: Any, start: Any) -> None:
    model[0].weight = torch.full((10, 12), 0.25)


def remember(model: nn.Module, optimizer: Any, start: Any) -> None:
    """Go on dense for a while: masks are remembered, then enforced again by a pruning call."""
    for i in (0, 2):
        model[i].parametrizations.weight[0].enforce = False
    train(model, optimizer, 3, seed=11)
    assert model[0].weight[OUTSIDE].any() or len(leaves(model)) == 2  # where 0 x 0 stays 0
    pol.imp_prune(model, density=0.3)


def resign(model: nn.Module, optimizer: Any, start: Any) -> None:
    pol.imp_prune(model, 0.3, optimizer=optimizer)
    pol.reinit_signs(model, init=start)


def give_back(model: nn.Module, optimizer: Any, start: Any) -> None:
    """Go on dense with what was pruned given back, then prune again."""
    before = pol.RewindPoint.capture(model)
    pol.imp_prune(model, 0.3, optimizer=optimizer)
    pol.reinit_signs(model, "standard", init=start, trained=before)
    train(model, optimizer, 3, seed=11)
    pol.imp_prune(model, density=0.3)


CHANGES = [
    resign,
    give_back,
    prune_by_load_masks,
    revive,
    round_of_imp,
    round_of_lrr,
    prune_by_scores,
    restore,
]
CHANGES += [assign, remember]


@EVERY_FORM
@pytest.mark.parametrize("change", CHANGES)
def test_changes_in_mid_training_are_followed(change: Any, product: bool) -> None:
    pairs = both(momentum, product)
    for model, optimizer in pairs:
        start = pol.RewindPoint.capture(model, optimizer)
        train(model, optimizer, 5)
        torch.manual_seed(0)
        change(model, optimizer, start)
        train(model, optimizer, 10, seed=6)
    assert same(pairs[0][0], pairs[1][0])
    assert all_zero(pairs[0][0])
    assert not masks_in_forward(pairs[0][0])


def test_rescaling_a_sign_in_model_leaves_its_zeros() -> None:
    pairs = both(momentum, True)
    for model, optimizer in pairs:
        train(model, optimizer, 5)
        pol.rescale(model, optimizer=optimizer)
        train(model, optimizer, 5)
    assert same(pairs[0][0], pairs[1][0])
    assert all_zero(pairs[0][0])


def test_sign_in_ends_enforcement_and_a_second_call_resumes_it() -> None:
    (model, ours), (exact, theirs) = both(momentum)
    for each, optimizer in ((model, ours), (exact, theirs)):
        train(each, optimizer, 5)
        pol.sign_in(each, optimizer=optimizer)
    assert masks_in_forward(model)
    pol.enforce_in_step(model, ours)
    assert not masks_in_forward(model)
    train(model, ours, 10)
    train(exact, theirs, 10)
    assert same(model, exact)


@EVERY_FORM
def test_merging_gives_plain_weights_that_nothing_masks(product: bool) -> None:
    states = []
    for model, optimizer in both(momentum, product):
        train(model, optimizer, 5)
        pol.merge(model, optimizer=optimizer)
        assert not any(p._backward_hooks for p in model.parameters())
        train(model, optimizer, 40)
        assert model[0].weight[OUTSIDE].all()
        states.append(model.state_dict())
    assert all(torch.equal(states[0][name], value) for name, value in states[1].items())


@BOTH_WAYS
def test_after_a_parametrization_is_removed_by_hand_nothing_masks(in_step: bool) -> None:
    model = in_forward()
    optimizer = momentum(model.parameters())
    if in_step:
        pol.enforce_in_step(model, optimizer).remove()
    train(model, optimizer, 5)
    for i in (0, 2):
        parametrize.remove_parametrizations(model[i], "weight", leave_parametrized=False)
    train(model, optimizer, 40)
    assert model[0].weight[OUTSIDE].all()


# What it cannot see, and project()


@EVERY_FORM
def test_projecting_makes_good_what_others_wrote(product: bool) -> None:
    model, optimizer, handle = enforced(product)
    train(model, optimizer, 3)
    for leaf in leaves(model):
        leaf.data.add_(0.1)
    assert model[0].weight[OUTSIDE].all(), "this cannot be seen"
    handle.project()
    assert all_zero(model)
    for leaf in leaves(model):
        leaf.data = torch.full_like(leaf, torch.nan)
    handle.project()
    assert all_zero(model)


@EVERY_FORM
def test_a_write_between_steps_lasts_until_the_next_step(product: bool) -> None:
    model, optimizer, _ = enforced(product)
    train(model, optimizer, 3)
    for leaf in leaves(model):
        leaf.data.add_(0.1)
    train(model, optimizer, 1)
    assert all_zero(model)


@BOTH_WAYS
def test_a_mask_changed_by_hand_holds_after_projecting(in_step: bool) -> None:
    model = in_forward()
    optimizer = momentum(model.parameters())
    handle = pol.enforce_in_step(model, optimizer) if in_step else None
    train(model, optimizer, 5)
    masking = model[0].parametrizations.weight[0]
    masking.mask[:5] = 0
    if handle is not None:
        handle.project()
    assert not model[0].weight[:5].any()
    masking.mask = masking.mask * (torch.arange(12) % 2 == 0)
    if handle is not None:
        handle.project()
    for _ in range(3):
        assert not model[0].weight[:, 1::2].any()
        train(model, optimizer, 1)


@pytest.mark.parametrize("write", ["in place", "data written", "data replaced"])
@pytest.mark.parametrize("mode", ["train", "eval", "no_grad"])
def test_by_default_every_write_is_masked_in_the_next_forward(write: str, mode: str) -> None:
    model = in_forward()
    train(model, momentum(model.parameters()), 5)
    model.train(mode != "eval")
    if write == "in place":
        with torch.no_grad():
            stored(model).fill_(1.0)
    elif write == "data written":
        stored(model).data.fill_(1.0)
    else:
        stored(model).data = torch.ones(10, 12)
    with torch.set_grad_enabled(mode != "no_grad"):
        assert torch.equal(model[0].weight != 0, ~OUTSIDE)


# Checkpoints


@EVERY_FORM
@pytest.mark.parametrize("part", ["model", "submodule"])
@pytest.mark.parametrize("what", ["its own", "other masks", "dense", "a weight alone"])
def test_loading_a_checkpoint_projects(what: str, part: str, product: bool) -> None:
    pairs = both(momentum, product)
    for model, optimizer in pairs:
        train(model, optimizer, 3)
        other = model if what == "its own" else install(network(), drawn_masks(7))
        if product and what != "its own":
            pol.sign_in(other)
        state = network().state_dict() if what == "dense" else copy.deepcopy(other.state_dict())
        if what == "a weight alone":
            state = {k: v for k, v in state.items() if "original" in k}
        if what != "dense":
            for name, value in state.items():
                if "original" in name:
                    value.add_(0.5)
        train(model, optimizer, 3, seed=6)
        target, prefix = (model, "") if part == "model" else (model[0], "0.")
        state = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        target.load_state_dict(state, strict=what != "a weight alone")
        if model is pairs[0][0]:
            assert all_zero(model)
            assert not masks_in_forward(model)
        train(model, optimizer, 10, seed=8)
    assert same(pairs[0][0], pairs[1][0])


def test_a_checkpoint_is_that_of_masks_in_forward() -> None:
    pairs = both(momentum)
    for model, optimizer in pairs:
        train(model, optimizer, 3)
    states = [model.state_dict() for model, _ in pairs]
    assert list(states[0]) == list(states[1])
    assert all(torch.equal(a, b) for a, b in zip(*(s.values() for s in states), strict=True))
    fresh = pol.mask_weights(network())
    fresh.load_state_dict(states[0])
    assert same(fresh, pairs[1][0])


@EVERY_FORM
def test_parameters_that_a_checkpoint_replaces_are_masked_in_forward(product: bool) -> None:
    model, optimizer, _ = enforced(product)
    other = in_forward(product)
    other.load_state_dict(
        {k: v + 1 if "original" in k else v for k, v in other.state_dict().items()}
    )
    model.load_state_dict(copy.deepcopy(other.state_dict()), assign=True)
    assert masks_in_forward(model)
    assert same(model, other)
    assert not model[0].weight[OUTSIDE].any()
    optimizer.step()
