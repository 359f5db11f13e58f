"""SoftThreshold by hand: forward, gradients and modes of PyTorch against float64 by numpy."""

import copy
import io
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization, remove_parametrizations

import polarity as pol
from polarity import MaskedWeight, SignInMW, SoftThreshold
from polarity.parametrizations.soft_threshold import soft_threshold
from tests.models import seeded

SIZES = [(3, 4), (300, 257)]


def shrunk(w: Tensor, s: float) -> np.ndarray:
    """Return the soft threshold of a weight by its definition, in float64 by numpy."""
    values = w.detach().double().numpy()
    return np.sign(values) * np.maximum(np.abs(values) - 1 / (1 + np.exp(-s)), 0)


def masked_layer(
    s: float = -2.0, product: bool = False, size: tuple[int, int] = (3, 4)
) -> nn.Linear:
    layer = seeded(nn.Linear(size[1], size[0], bias=False))
    nn.init.normal_(layer.weight, std=0.3, generator=torch.Generator().manual_seed(4))
    mask = torch.rand(size, generator=torch.Generator().manual_seed(1)) < 0.7
    form = SignInMW(mask, beta=0.5) if product else MaskedWeight(mask)
    register_parametrization(layer, "weight", form)
    register_parametrization(layer, "weight", SoftThreshold(s))
    return layer


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("s", [-8.0, -2.0, 0.0, 3.0])
def test_forward_and_gradients_are_those_of_the_formula_in_float64(size, s):
    draw = torch.Generator().manual_seed(0)
    w = torch.randn(size, generator=draw, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(size, generator=draw, dtype=torch.float64)
    form = SoftThreshold(s, dtype=torch.float64)
    out = form(w)
    np.testing.assert_allclose(out.detach().numpy(), shrunk(w, s), rtol=1e-14, atol=1e-16)
    out.backward(upstream)
    sigma = 1 / (1 + np.exp(-s))
    above, g = np.abs(w.detach().numpy()) > sigma, upstream.numpy()
    np.testing.assert_array_equal(w.grad.numpy(), g * above)
    of_s = -sigma * (1 - sigma) * (g * np.sign(w.detach().numpy()) * above).sum()
    assert form.s.grad.shape == (1,)
    np.testing.assert_allclose(form.s.grad.item(), of_s, rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_lower_precision_agrees_with_float64_to_its_own_rounding(dtype):
    w = torch.randn(50, 50, generator=torch.Generator().manual_seed(0)).to(dtype)
    form = SoftThreshold(-1.0)
    out = form(w)
    assert out.dtype == dtype
    eps = torch.finfo(dtype).eps
    np.testing.assert_allclose(out.detach().double().numpy(), shrunk(w, -1.0), rtol=eps, atol=eps)


def test_second_derivatives_agree_with_finite_differences():
    draw = torch.Generator().manual_seed(0)
    w = torch.randn(4, 3, generator=draw, dtype=torch.float64, requires_grad=True)
    s = torch.tensor([-0.5], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(soft_threshold, (w, s))
    assert torch.autograd.gradgradcheck(soft_threshold, (w, s))


def test_the_threshold_and_its_gradient_are_zero_at_the_published_start():
    form, w = SoftThreshold(-3200.0), torch.randn(5, 5, requires_grad=True)
    out = form(w)
    assert torch.equal(out, w)
    out.sum().backward()
    assert form.s.grad.item() == 0.0
    assert SoftThreshold(-8.0).threshold == pytest.approx(0.00033535)


@pytest.mark.parametrize("product", [False, True])
def test_pruned_entries_stay_zero_and_learn_nothing_behind_a_mask(product):
    layer = masked_layer(product=product)
    chain = layer.parametrizations.weight
    with torch.no_grad():
        before = (
            chain[0](*(getattr(chain, n) for n in ("original0", "original1")))
            if product
            else (chain.original * chain[0].mask)
        )
    np.testing.assert_allclose(
        layer.weight.detach().numpy(), shrunk(before, -2.0), rtol=1e-5, atol=1e-7
    )
    pruned = chain[0].mask == 0
    layer(torch.ones(2, 4)).square().sum().backward()
    assert not layer.weight[pruned].any()
    leaves = [p for n, p in chain.named_parameters() if n.startswith("original")]
    assert len(leaves) == (2 if product else 1)
    for leaf in leaves:
        assert not leaf.grad[pruned].any()
        assert leaf.grad.any()


def test_registered_after_a_mask_it_leaves_what_is_stored_and_alone_it_keeps_the_weight():
    layer = seeded(nn.Linear(4, 3, bias=False))
    register_parametrization(layer, "weight", MaskedWeight(torch.ones(3, 4)))
    held = layer.parametrizations.weight.original.detach().clone()
    register_parametrization(layer, "weight", SoftThreshold(-2.0))
    assert torch.equal(layer.parametrizations.weight.original, held)
    alone = seeded(nn.Linear(4, 3, bias=False))
    start = alone.weight.detach().clone()
    register_parametrization(alone, "weight", SoftThreshold(-2.0))
    torch.testing.assert_close(alone.weight.detach(), start)


def test_what_is_assigned_reads_back_and_zeros_stay_zero():
    layer = masked_layer()
    values = torch.tensor([[0.5, -2.0, 0.0, 0.01]]).repeat(3, 1)
    layer.weight = values
    mask = layer.parametrizations.weight[0].mask
    torch.testing.assert_close(layer.weight.detach(), values * mask)
    assert not layer.parametrizations.weight.original[:, 2].any()


@pytest.mark.parametrize("product", [False, True])
def test_compile_trace_export_and_vmap_compute_the_same(product):
    layer, x = masked_layer(product=product), torch.randn(5, 4)
    expected = layer(x).detach()
    torch._dynamo.reset()
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), layer(x))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(layer, x, check_trace=False)
    torch.testing.assert_close(traced(x), expected)
    exported = torch.export.export(layer, (x,)).module()
    torch.testing.assert_close(exported(x), expected)
    s = torch.linspace(-3, 1, 7).view(7, 1)
    w = torch.randn(7, 3, 4)
    mapped = torch.vmap(soft_threshold)(w, s)
    torch.testing.assert_close(
        mapped, torch.stack([soft_threshold(*pair) for pair in zip(w, s, strict=True)])
    )


def test_a_model_converted_to_another_dtype_converts_s_with_it():
    layer = masked_layer()
    expected = shrunk(
        layer.parametrizations.weight.original * layer.parametrizations.weight[0].mask, -2.0
    )
    for dtype, tolerance in ((torch.bfloat16, 1e-2), (torch.float64, 1e-2)):
        layer.to(dtype)
        assert layer.weight.dtype == layer.parametrizations.weight[1].s.dtype == dtype
        np.testing.assert_allclose(layer.weight.detach().double().numpy(), expected, atol=tolerance)


def test_copies_and_checkpoints_are_independent_and_equal():
    layer = masked_layer()
    copied = copy.deepcopy(layer)
    buffer = io.BytesIO()
    torch.save(layer.state_dict(), buffer)
    assert "parametrizations.weight.1.s" in layer.state_dict()
    with torch.no_grad():
        layer.parametrizations.weight[1].s.fill_(1.0)
        layer.parametrizations.weight.original.mul_(2)
    assert not torch.equal(layer.weight, copied.weight)
    buffer.seek(0)
    layer.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(layer.weight, copied.weight)


def test_torch_takes_it_off_with_the_shrunk_values():
    layer = masked_layer()
    seen = layer.weight.detach().clone()
    remove_parametrizations(layer, "weight")
    assert torch.equal(layer.weight, seen)


@pytest.mark.parametrize(("s", "error"), [(float("nan"), ValueError), ("a", TypeError)])
def test_a_start_that_is_no_finite_number_is_refused(s, error):
    with pytest.raises(error, match="s="):
        SoftThreshold(s)


def test_it_shows_its_present_value():
    assert repr(SoftThreshold(-3.0)) == "SoftThreshold(s=-3)"
    assert pol.SoftThreshold is SoftThreshold
