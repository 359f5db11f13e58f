"""Masks enforced in the step: what the handle holds and gives back, refusals, and copies."""

import copy
import gc
import pickle
import weakref
from typing import Any

import pytest
import torch
from torch import nn, optim
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import AveragedModel

import polarity as pol
from tests.attach.in_step import (
    OUTSIDE,
    batches,
    both,
    enforced,
    in_forward,
    leaves,
    masks_in_forward,
    momentum,
    network,
    same,
    stored,
    train,
)
from tests.laws.refusals import fingerprint

EVERY_FORM = pytest.mark.parametrize("product", [False, True], ids=["mask", "sign_in"])
BOTH_WAYS = pytest.mark.parametrize("in_step", [True, False], ids=["in step", "in forward"])


def model_of(in_step: bool, product: bool = False) -> nn.Sequential:
    return enforced(product)[0] if in_step else in_forward(product)


def hooks_of(model: nn.Module, optimizer: optim.Optimizer) -> list[Any]:
    """Return all hooks that anything has set on a model, its parameters and an optimizer."""
    found: list[Any] = [optimizer._optimizer_step_post_hooks, optimizer._optimizer_step_pre_hooks]
    found += [p._backward_hooks for p in model.parameters()]
    found += [p._post_accumulate_grad_hooks for p in model.parameters()]
    for module in model.modules():
        found += [value for name, value in vars(module).items() if name.endswith("_hooks")]
    every = [hook for each in found for hook in (each or {}).values()]
    # Two from mask_weights, with or without enforcement: before and after load_state_dict.
    known = sum(hasattr(module, "_polarity_plain_checkpoints") for module in model.modules())
    others = [
        h for h in every if getattr(h, "hook", h).__module__ != "polarity.targets.state_hooks"
    ]
    assert len(every) - len(others) == 2 * known
    return others


# Removing


@EVERY_FORM
def test_removing_restores_masks_in_forward_and_leaves_no_hook(product: bool) -> None:
    model, optimizer, handle = enforced(product)
    train(model, optimizer, 3)
    assert hooks_of(model, optimizer)
    handle.remove()
    assert hooks_of(model, optimizer) == []
    assert all(p._backward_hooks is None for p in model.parameters())
    assert masks_in_forward(model)
    with torch.no_grad():
        for leaf in leaves(model):
            leaf.fill_(1.0)
    optimizer.step()
    handle.project()
    handle.remove()
    assert all(leaf[OUTSIDE].any() for leaf in leaves(model)), "a removed handle writes nothing"
    assert not model[0].weight[OUTSIDE].any()


@EVERY_FORM
def test_training_goes_on_after_removing_and_enforcing_again(product: bool) -> None:
    (model, ours), (exact, theirs) = both(momentum, product)
    handle = model[0].parametrizations.weight[0].in_step._owner
    for _ in range(3):
        train(model, ours, 5)
        handle.remove()
        train(model, ours, 5, seed=6)
        handle = pol.enforce_in_step(model, ours)
        train(exact, theirs, 5)
        train(exact, theirs, 5, seed=6)
    assert same(model, exact)
    assert not masks_in_forward(model)


def test_removing_spares_the_hooks_of_others() -> None:
    model, seen = in_forward(), []
    optimizer = momentum(model.parameters())
    stored(model).register_hook(lambda g: seen.append(1))
    handle = pol.enforce_in_step(model, optimizer)
    optimizer.register_step_post_hook(lambda *_: seen.append(2))
    handle.remove()
    train(model, optimizer, 1)
    assert seen == [1, 2]


@EVERY_FORM
@pytest.mark.parametrize("end", ["remove", "merge", "sign_in"])
def test_nothing_is_kept_in_memory_after_the_end(end: str, product: bool) -> None:
    if end == "sign_in" and product:
        pytest.skip("is in this form already")
    model, optimizer, handle = enforced(product)
    train(model, optimizer, 2)
    masking = model[0].parametrizations.weight[0]
    kept = [weakref.ref(masking), weakref.ref(masking.in_step), weakref.ref(masking.in_step._ones)]
    if end == "remove":
        handle.remove()
    elif end == "merge":
        pol.merge(model, optimizer=optimizer)
    else:
        pol.sign_in(model, optimizer=optimizer)
    assert hooks_of(model, optimizer) == []
    del masking
    gc.collect()
    gone = kept[1:] if end == "remove" else kept
    assert [ref() for ref in gone] == [None] * len(gone)
    train(model, optimizer, 2)


def test_a_model_that_is_dropped_is_freed_though_it_was_enforced() -> None:
    model, optimizer, handle = enforced()
    train(model, optimizer, 2)
    kept = [weakref.ref(each) for each in (model, optimizer, handle)]
    del model, optimizer, handle
    gc.collect()
    assert [ref() for ref in kept] == [None] * 3


def test_a_model_that_is_gone_before_backward_still_masks() -> None:
    (x, y), (model, optimizer, handle) = next(batches()), enforced()
    leaf, loss = stored(model), cross_entropy(model(x), y)
    del model, handle, optimizer
    gc.collect()
    loss.backward()
    assert leaf.grad.any()
    assert not leaf.grad[OUTSIDE].any()


# Refusing


REFUSALS: dict[str, tuple[Any, type[Exception], str]] = {
    "no masks": (lambda m, o: pol.enforce_in_step(network(), o), ValueError, "Sequential has no"),
    "another model's optimizer": (
        lambda m, o: pol.enforce_in_step(m, momentum(network().parameters())),
        ValueError,
        "SGD trains none of the 2 masked weights .*'0.weight'",
    ),
    "twice": (lambda m, o: pol.enforce_in_step(m, o), ValueError, "'0.weight' is .* already"),
    "no optimizer": (lambda m, o: pol.enforce_in_step(m, None), TypeError, "is a NoneType"),
    "parameters": (lambda m, o: pol.enforce_in_step(m, m.parameters()), TypeError, "generator"),
    "an empty list": (lambda m, o: pol.enforce_in_step(m, []), ValueError, r"optimizer=\[\]"),
    "a list of others": (
        lambda m, o: pol.enforce_in_step(m, [o, 3]),
        TypeError,
        r"optimizer\[1\] is an int, expected a torch\.optim\.Optimizer",
    ),
}


@pytest.mark.parametrize(("call", "error", "said"), REFUSALS.values(), ids=REFUSALS.keys())
def test_a_refused_call_leaves_everything_as_it_was(call: Any, error: Any, said: str) -> None:
    model, optimizer, _ = enforced()
    train(model, optimizer, 2)
    with torch.no_grad():
        stored(model)[0, 0] = 5.0  # which a projection would see
    before = (fingerprint(model.state_dict()), hooks_of(model, optimizer))
    with pytest.raises(error, match=said):
        call(model, optimizer)
    assert (fingerprint(model.state_dict()), hooks_of(model, optimizer)) == before
    assert not masks_in_forward(model)


def test_a_model_whose_masked_weights_are_all_frozen_is_refused() -> None:
    model = in_forward()
    for i in (0, 2):
        model[i].requires_grad_(False)
    optimizer = momentum(model.parameters())
    with pytest.raises(ValueError, match="trains none of the 2 masked weights"):
        pol.enforce_in_step(model, optimizer)
    assert hooks_of(model, optimizer) == []


# Copies


@EVERY_FORM
@pytest.mark.parametrize("way", ["deepcopy", "average"])
def test_a_copy_masks_in_forward_and_goes_its_own_way(way: str, product: bool) -> None:
    model, optimizer, handle = enforced(product)
    train(model, optimizer, 5)
    twin = copy.deepcopy(model) if way == "deepcopy" else AveragedModel(model).module
    assert masks_in_forward(twin)
    assert same(model, twin)
    assert not any(p._backward_hooks for p in twin.parameters())
    before = fingerprint(model.state_dict())
    own = momentum(twin.parameters())
    with torch.no_grad():
        for leaf in leaves(twin):
            leaf.fill_(1.0)
    train(twin, own, 3)
    assert not twin[0].weight[OUTSIDE].any()
    twin.load_state_dict(twin.state_dict())
    assert fingerprint(model.state_dict()) == before
    assert not masks_in_forward(model)
    handle.remove()
    pol.enforce_in_step(twin, own)


@EVERY_FORM
def test_a_pickled_parametrization_masks_in_forward(product: bool) -> None:
    model, _, _ = enforced(product)
    chain = model[0].parametrizations.weight
    twin = pickle.loads(pickle.dumps(chain[0]))
    assert twin.in_step is None
    assert chain[0].in_step is not None
    assert torch.equal(twin.mask, chain[0].mask)
    assert twin.applies(*leaves(model))
