"""Masks enforced in the step: what the handle holds, follows, leaves alone and gives back."""

import copy
import gc
import pickle
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim
from torch.nn.functional import cross_entropy, linear
from torch.nn.utils import parametrize
from torch.optim.swa_utils import AveragedModel

import polarity as pol
from tests.attach.in_step import (
    INTEGERS,
    OUTSIDE,
    all_zero,
    batches,
    both,
    drawn_masks,
    effective,
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
from tests.laws.refusals import fingerprint
from tests.models import seeded

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
    ours = "_polarity_plain_checkpoints"  # from mask_weights, with or without enforcement
    known = sum(hasattr(module, ours) for module in model.modules())
    every = [hook for each in found for hook in (each or {}).values()]
    assert sum(type(getattr(h, "hook", h)).__name__ == "_PlainCheckpoints" for h in every) == known
    return [h for h in every if type(getattr(h, "hook", h)).__name__ != "_PlainCheckpoints"]


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
    "an empty list": (lambda m, o: pol.enforce_in_step(m, []), TypeError, "optimizer is a list"),
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


# Moves


@EVERY_FORM
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_a_model_may_change_its_dtype_in_mid_training(dtype: torch.dtype, product: bool) -> None:
    pairs = both(momentum, product)
    for model, optimizer in pairs:
        train(model, optimizer, 3)
        model.to(dtype)
        for state in optimizer.state.values():
            state["momentum_buffer"] = state["momentum_buffer"].to(dtype)
        for _, (x, y) in zip(range(10), batches(6), strict=False):
            optimizer.zero_grad()
            cross_entropy(model(x.to(dtype)), y).backward()
            for leaf in leaves(model):
                assert not leaf.grad[OUTSIDE].any()
                leaf.grad[OUTSIDE] = 1.0  # so that there is something to project
            optimizer.step()
    assert same(pairs[0][0], pairs[1][0])
    assert all_zero(pairs[0][0])
    assert not masks_in_forward(pairs[0][0])


@EVERY_FORM
def test_a_model_may_change_its_memory_format_in_mid_training(product: bool) -> None:
    weights = []
    for in_step in (True, False):
        draw = torch.Generator().manual_seed(0)
        layer = seeded(nn.Conv2d(4, 8, 3))
        mask = torch.rand(layer.weight.shape, generator=draw) < 0.5
        pol.load_masks(layer, {"weight": mask})
        if product:
            pol.sign_in(layer)
        optimizer = momentum(layer.parameters())
        if in_step:
            pol.enforce_in_step(layer, optimizer)
        for step in range(6):
            if step == 3:
                layer.to(memory_format=torch.channels_last)
            x = torch.randn(2, 4, 6, 6, generator=draw)
            optimizer.zero_grad()
            layer(x).square().mean().backward()
            for p in layer.parametrizations.parameters():
                p.grad[~mask] = 1.0
            optimizer.step()
        weights.append(layer.weight.detach().clone())
    assert torch.equal(*weights)


@EVERY_FORM
def test_parameters_that_are_swapped_are_masked_in_forward(product: bool) -> None:
    # PyTorch leaves tensor hooks behind when it swaps a parameter's contents.
    pairs = both(momentum, product)
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        for model, optimizer in pairs:
            train(model, optimizer, 3)
            kept = list(model.parameters())
            optimizer.zero_grad()
            model.double().float()
            assert all(a is b for a, b in zip(kept, model.parameters(), strict=True))
            train(model, optimizer, 10)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    model, optimizer = pairs[0]
    assert masks_in_forward(model)
    assert same(model, pairs[1][0])
    assert all_zero(model)
    model[0].parametrizations.weight[0].in_step._owner.remove()
    pol.enforce_in_step(model, optimizer)
    for each in pairs:
        train(*each, 10, seed=6)
    assert not masks_in_forward(model)
    assert not any(leaf.grad[OUTSIDE].any() for leaf in leaves(model))
    assert same(model, pairs[1][0])


# Gradients


@EVERY_FORM
def test_autograd_grad_and_second_derivatives_are_masked(product: bool) -> None:
    (x, y), results = next(batches()), []
    for model, _ in both(momentum, product):
        own = [leaf for i in (0, 2) for leaf in leaves(model, i)]
        plain = torch.autograd.grad(cross_entropy(model(x).tanh(), y), own)
        first = torch.autograd.grad(cross_entropy(model(x).tanh(), y), own, create_graph=True)
        along = sum((g * (1 + leaf.detach())).sum() for g, leaf in zip(first, own, strict=True))
        second = torch.autograd.grad(along, own)
        cross_entropy(model(x).tanh(), y).backward(create_graph=True)
        mixed = sum(leaf.grad.square().sum() for leaf in own)
        third = torch.autograd.grad(mixed, own)
        kept = [leaf.grad.detach().clone() for leaf in own]
        model.zero_grad()
        results.append([*plain, *first, *second, *third, *kept])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(
            a, b, rtol=1e-6, atol=1e-9
        )  # second ones are summed in any order
    masks = [mask for mask in drawn_masks() for _ in range(1 + product)] * 5
    assert not any(g[~mask].any() for g, mask in zip(results[0], masks, strict=True))
    assert all(g.any() for g in results[0])


@EVERY_FORM
def test_batched_gradients_are_masked(product: bool) -> None:
    (x, _), results = next(batches()), []
    for model, _ in both(momentum, product):
        output, own = model(x).sum(0), leaves(model)
        results += torch.autograd.grad(output, own, torch.eye(4), is_grads_batched=True)
    ours, exact = results[: len(results) // 2], results[len(results) // 2 :]
    assert all(torch.equal(a, b) for a, b in zip(ours, exact, strict=True))
    assert not any(g[:, OUTSIDE].any() for g in ours)


@BOTH_WAYS
def test_backward_to_chosen_inputs_and_later_hooks_of_others_see_masked_gradients(
    in_step: bool,
) -> None:
    (x, y), model, seen = next(batches()), model_of(in_step), []
    cross_entropy(model(x), y).backward(inputs=[stored(model)])
    assert not stored(model).grad[OUTSIDE].any()
    model(x)
    before = stored(model).register_hook(lambda g: seen.append(g.clone()))
    cross_entropy(model(x), y).backward()
    before.remove()
    stored(model).register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.clone()))
    cross_entropy(model(x), y).backward()
    assert len(seen) == 2
    assert all(g.any() and not g[OUTSIDE].any() for g in seen)


@BOTH_WAYS
def test_two_weights_whose_gradients_share_memory_do_not_mask_each_other(in_step: bool) -> None:
    layers = [nn.Linear(4, 4, bias=False) for _ in range(2)]
    masks = [torch.eye(4) > 0, torch.eye(4) == 0]
    for layer, mask in zip(layers, masks, strict=True):
        pol.load_masks(layer, {"weight": mask})
        if in_step:
            pol.enforce_in_step(layer, momentum(layer.parameters()))
    total = layers[0].weight.view(-1) + layers[1].weight.view(-1)
    total.backward(torch.arange(1.0, 17.0))
    given = torch.arange(1.0, 17.0).view(4, 4)
    for layer, mask in zip(layers, masks, strict=True):
        assert torch.equal(layer.parametrizations.weight.original.grad, given * mask)


@BOTH_WAYS
@pytest.mark.parametrize("holder", ["caller", "hook", "multi", "function", "numpy"])
def test_a_gradient_that_others_hold_is_left_as_it_is(holder: str, in_step: bool) -> None:
    model, held, (x, _) = model_of(in_step), [], next(batches())
    array = torch.ones(10, 12).numpy()

    class Keep(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, value: Tensor) -> Tensor:
            return value.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            given = torch.from_numpy(array) if holder == "numpy" else gradient * 2
            held.append(given)
            return given

    with parametrize.cached():
        weight = model[0].weight
        if holder == "hook":
            used = weight * 1
            used.register_hook(lambda g: held.append(g))
        elif holder == "multi":
            used = weight * 1
            torch.autograd.graph.register_multi_grad_hook([used], lambda gs: held.append(gs[0]))
        else:
            used = weight if holder == "caller" else Keep.apply(weight)
        if holder == "caller":
            held.append(torch.ones(10, 12))
            used.backward(held[0])
        else:
            linear(x, used).square().sum().backward()
    assert (array == 1).all()
    assert held[0][OUTSIDE].any()
    assert stored(model).grad.any()
    assert not stored(model).grad[OUTSIDE].any()


@BOTH_WAYS
@pytest.mark.parametrize("size", [30, 600], ids=["small", "beyond a cache"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_gradients_of_survivors_pass_bit_for_bit(
    dtype: torch.dtype, size: int, in_step: bool
) -> None:
    layer = nn.Linear(size, size, bias=False, dtype=dtype)
    draw = torch.Generator().manual_seed(1)
    mask = torch.rand(size, size, generator=draw) < 0.5
    pol.load_masks(layer, {"weight": mask})
    if in_step:
        pol.enforce_in_step(layer, momentum(layer.parameters()))
    odd = torch.tensor([torch.nan, -torch.inf, -0.0, 1e-40, -3.0], dtype=dtype)
    gradient = odd[torch.randint(5, (size, size), generator=draw)]
    finite = gradient.isfinite()
    bits = INTEGERS[dtype.itemsize]
    for given in (gradient, gradient.t().contiguous().t()):
        layer.zero_grad()
        layer.weight.backward(given)
        result = layer.parametrizations.weight.original.grad.contiguous()
        live = mask & ~gradient.isnan()
        assert torch.equal(result[live].view(bits), gradient[live].view(bits))
        assert result[mask & gradient.isnan()].isnan().all()
        assert not result[~mask & finite].any()
        # Infinity times zero is NaN, as with any mask that is a factor in forward.
        assert result[~mask & ~finite].isnan().all()


# Modes of PyTorch


@EVERY_FORM
def test_torch_func_applies_the_mask(product: bool) -> None:
    model, optimizer, _ = enforced(product)
    x, _ = next(batches())
    train(model, optimizer, 2)
    values = {name: p.detach() + 1 for name, p in model.named_parameters()}

    def loss(values: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(model, values, (x,)).square().sum()

    twin = copy.deepcopy(model)
    with torch.no_grad():
        for p in twin.parameters():
            p.add_(1)
    assert torch.equal(loss(values), twin(x).square().sum())
    derived = torch.func.grad(loss)(values)
    assert not any(g[OUTSIDE].any() for name, g in derived.items() if name.startswith("0.param"))
    for leaf in leaves(model):
        leaf.data.fill_(1.0)  # cannot be seen but by those that mask in forward
    (seen,) = torch.func.vmap(lambda _: model[0].weight)(x[:1])
    assert not seen[OUTSIDE].any()
    stacked = torch.func.vmap(model)(x)
    torch.testing.assert_close(stacked, copy.deepcopy(model)(x))


@EVERY_FORM
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("way", ["compile", "trace", "export"])
def test_graphs_hold_the_mask(way: str, product: bool) -> None:
    model, _, _ = enforced(product)
    x, y = next(batches())
    torch._dynamo.reset()
    if way == "compile":
        run = torch.compile(model, backend="aot_eager", fullgraph=True)
        run(x)
    elif way == "trace":
        run = torch.jit.trace(model, (x,))
    else:
        run = torch.export.export(model, (x,)).module()
    own = run if way == "export" else model
    with torch.no_grad():
        for name, p in own.named_parameters():
            if "original" in name:
                p.add_(1.0)
    exact = copy.deepcopy(model)
    exact.load_state_dict(own.state_dict(), strict=False)
    torch.testing.assert_close(run(x), exact(x))
    if way == "compile":
        cross_entropy(run(x), y).backward()
        assert not any(leaf.grad[OUTSIDE].any() for leaf in leaves(model))
        assert not masks_in_forward(model), "eager passes do without"


@EVERY_FORM
def test_a_compiled_model_trains_alike(product: bool) -> None:
    torch._dynamo.reset()
    (model, ours), (exact, theirs) = both(momentum, product)
    train(torch.compile(model, backend="aot_eager"), ours, 10)
    train(exact, theirs, 10)
    for a, b in zip(effective(model), effective(exact), strict=True):
        torch.testing.assert_close(a, b)
    assert all_zero(model)
