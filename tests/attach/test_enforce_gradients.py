"""Masks enforced in the step: gradients of every kind, moves, and every mode of PyTorch."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear
from torch.nn.utils import parametrize

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
    leaves,
    masks_in_forward,
    momentum,
    same,
    stored,
    train,
)
from tests.models import seeded

EVERY_FORM = pytest.mark.parametrize("product", [False, True], ids=["mask", "sign_in"])
BOTH_WAYS = pytest.mark.parametrize("in_step", [True, False], ids=["in step", "in forward"])


def model_of(in_step: bool, product: bool = False) -> nn.Sequential:
    return enforced(product)[0] if in_step else in_forward(product)


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
        run = torch.export.export(model, (x,), strict=False).module()
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
