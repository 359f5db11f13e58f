"""Inner scaling: how training changes it, and how rescale restores it."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import polarity as pol
from tests.forms import random_masks
from tests.models import seeded

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def regression(seed: int = 0, beta: float = 1.0, dtype: torch.dtype = torch.float64) -> nn.Linear:
    layer = seeded(nn.Linear(6, 4, bias=False), seed).to(dtype)
    return pol.sign_in(pol.load_masks(layer, random_masks(layer)), beta=beta)


def data(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(7)
    return torch.randn(16, 6, generator=draw, dtype=dtype), torch.randn(
        16, 4, generator=draw, dtype=dtype
    )


def loss_of(layer: nn.Linear) -> Tensor:
    x, y = data(layer.parametrizations.weight.original0.dtype)
    return (layer(x) - y).square().mean()


def pair(layer: nn.Module) -> tuple[Tensor, Tensor]:
    return layer.parametrizations.weight.original0, layer.parametrizations.weight.original1


def test_under_sgd_the_inner_scaling_shrinks_by_one_minus_the_squared_step() -> None:
    layer, rate = regression(beta=1.5), 0.05
    optimizer = torch.optim.SGD(layer.parameters(), lr=rate)
    mask = pol.masks(layer)["weight"]
    expected = np.full(int(mask.sum()), 1.5)
    for _ in range(20):
        weight = layer.weight.detach().clone().requires_grad_()
        x, y = data()
        (nn.functional.linear(x, weight) - y).square().mean().backward()
        gradient = weight.grad[mask].numpy()
        optimizer.zero_grad()
        loss_of(layer).backward()
        optimizer.step()
        expected = expected * (1 - rate**2 * gradient**2)
        found = pol.inner_scaling(layer)["weight"].numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_under_weight_decay_alone_it_shrinks_by_the_square_of_the_decay() -> None:
    layer = regression()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.25, weight_decay=0.01)
    for _ in range(10):
        for factor in pair(layer):
            factor.grad = torch.zeros_like(factor)
        optimizer.step()
    expected = (1 - 0.25 * 0.01) ** 20
    np.testing.assert_allclose(pol.inner_scaling(layer)["weight"].numpy(), expected, rtol=1e-12)


def shaken(layer: nn.Linear) -> nn.Linear:
    """Training noise: both factors multiplied by something near 1, zeros left alone."""
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for factor in pair(layer):
            noise = torch.rand(factor.shape, generator=draw, dtype=torch.float64) + 0.5
            factor.mul_(noise.to(factor.dtype))
    return layer


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("beta", [0.5, 1.0, 4.0])
def test_rescale_restores_beta_and_keeps_products_and_zeros(dtype, beta: float) -> None:
    layer = shaken(regression(beta=beta, dtype=dtype))
    mask, before = pol.masks(layer)["weight"], layer.weight.detach().clone()
    ids = [id(factor) for factor in pair(layer)]
    assert pol.rescale(layer) is layer
    assert [id(factor) for factor in pair(layer)] == ids
    eps = torch.finfo(dtype).eps
    scaling = pol.inner_scaling(layer)["weight"].double()
    torch.testing.assert_close(scaling, torch.full_like(scaling, beta), rtol=20 * eps, atol=0)
    torch.testing.assert_close(layer.weight.detach(), before, rtol=3 * eps, atol=0)
    assert torch.equal(layer.weight.detach().sign(), before.sign())
    for factor in pair(layer):
        assert not factor[~mask].any()


def test_no_sign_of_a_million_weights_is_lost_at_rescale() -> None:
    for dtype in DTYPES:
        layer = nn.Linear(1000, 1000, bias=False, dtype=dtype)
        draw = torch.Generator().manual_seed(0)
        with torch.no_grad():
            layer.weight.copy_(torch.randn(1000, 1000, generator=draw) * 0.02)
        pol.sign_in(layer)
        with torch.no_grad():
            for factor in pair(layer):
                factor.mul_(0.75)  # exact, but for float16's smallest numbers
        before = layer.weight.detach().sign()
        pol.rescale(layer)
        assert torch.equal(layer.weight.detach().sign(), before)


def one_step(layer: nn.Linear, name: str = "SGD") -> torch.optim.Optimizer:
    options = {"momentum": 0.9} if name == "SGD" else {}
    optimizer = getattr(torch.optim, name)(layer.parameters(), lr=0.1, **options)
    loss_of(layer).backward()
    optimizer.step()
    optimizer.zero_grad()
    return optimizer


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_momentum_is_kept_or_zeroed_as_asked(name: str) -> None:
    kept, zeroed = regression(), regression()
    keys = ["momentum_buffer"] if name == "SGD" else ["exp_avg", "exp_avg_sq"]
    optimizer = one_step(kept, name)
    before = {key: optimizer.state[pair(kept)[0]][key].clone() for key in keys}
    pol.rescale(kept, optimizer=optimizer)
    assert all(torch.equal(optimizer.state[pair(kept)[0]][k], v) for k, v in before.items())
    optimizer = one_step(zeroed, name)
    pol.rescale(zeroed, optimizer=optimizer, momentum="zero")
    for factor in pair(zeroed):
        assert all(not optimizer.state[factor][key].any() for key in keys)
        if name == "AdamW":
            assert float(optimizer.state[factor]["step"]) == 1


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_transformed_momentum_is_the_same_gradient_seen_by_the_new_factors(name: str) -> None:
    """After one gradient at given factors, the averages must be those of the rescaled ones."""
    layer = shaken(regression())
    optimizer = getattr(torch.optim, name)(
        layer.parameters(), lr=0.0, **({"momentum": 0.9} if name == "SGD" else {})
    )
    loss_of(layer).backward()
    optimizer.step()  # at rate 0 the factors stay, and the averages are of this one gradient
    weight = layer.weight.detach().clone().requires_grad_()
    x, y = data()
    (nn.functional.linear(x, weight) - y).square().mean().backward()
    pol.rescale(layer, optimizer=optimizer, momentum="transform")
    m, v = pair(layer)
    first, second = ("momentum_buffer", None) if name == "SGD" else ("exp_avg", "exp_avg_sq")
    scale = 1.0 if name == "SGD" else 0.1
    mask = pol.masks(layer)["weight"]
    for factor, other in ((m, v), (v, m)):
        gradient = weight.grad * other.detach() * mask
        torch.testing.assert_close(optimizer.state[factor][first], scale * gradient)
        if second:
            torch.testing.assert_close(optimizer.state[factor][second], 0.001 * gradient**2)


def test_what_cannot_be_rescaled_is_refused_before_anything_changes() -> None:
    layer = regression()
    optimizer = one_step(layer)
    before = [factor.detach().clone() for factor in pair(layer)]
    with pytest.raises(ValueError, match="momentum='forget', expected 'keep', 'zero'"):
        pol.rescale(layer, optimizer=optimizer, momentum="forget")
    with pytest.raises(ValueError, match="momentum='zero' needs optimizer="):
        pol.rescale(layer, momentum="zero")
    other = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
    with pytest.raises(ValueError, match="holds none of the 1 weights"):
        pol.rescale(layer, optimizer=other, momentum="zero")
    with pytest.raises(ValueError, match="no Sign-In weights: call sign_in first"):
        pol.rescale(pol.mask_weights(nn.Linear(2, 2)))
    strange = torch.optim.ASGD(layer.parameters(), lr=0.1)
    loss_of(layer).backward()
    with torch.no_grad():
        strange.step()
        for factor, value in zip(pair(layer), before, strict=True):
            factor.copy_(value)
    with pytest.raises(ValueError, match="'transform' has no rule for 'ax' in the state of ASGD"):
        pol.rescale(layer, optimizer=strange, momentum="transform")
    assert all(torch.equal(a, b) for a, b in zip(pair(layer), before, strict=True))


def test_a_schedule_rescales_at_multiples_of_its_period_before_t2() -> None:
    layer = regression()
    schedule = pol.RescaleSchedule(layer, every=3, until=10)
    done = []
    for _ in range(1, 13):
        shaken(layer)
        rescaled = schedule.step()
        error = (pol.inner_scaling(layer)["weight"] - 1.0).abs().max()
        assert rescaled == (float(error) < 1e-12)
        done.append(rescaled)
    assert [epoch for epoch, each in enumerate(done, start=1) if each] == [3, 6, 9]


def test_a_resumed_schedule_goes_on_where_it_was() -> None:
    first = pol.RescaleSchedule(regression(), every=2, until=8)
    expected = [first.step() for _ in range(10)]
    half = pol.RescaleSchedule(regression(), every=2, until=8)
    begun = [half.step() for _ in range(5)]
    resumed = pol.RescaleSchedule(regression(), every=7)
    resumed.load_state_dict(half.state_dict())
    assert begun + [resumed.step() for _ in range(5)] == expected


@pytest.mark.parametrize(
    ("name", "value", "error", "said"),
    [
        ("every", 0, ValueError, "every=0, expected an int of at least 1"),
        ("every", 1.5, TypeError, "every=1.5 is a float, expected an int"),
        ("until", -1, ValueError, "until=-1, expected an int of at least 1"),
    ],
)
def test_a_schedule_needs_whole_positive_epochs(
    name: str, value: float, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        pol.RescaleSchedule(regression(), **({"every": 1} | {name: value}))


def test_frobenius_decay_is_the_square_norm_and_pulls_the_product_to_zero() -> None:
    layer = regression()
    weight = layer.weight.detach().clone()
    penalty = pol.frobenius_decay(layer)
    assert penalty.item() == pytest.approx(float((weight.numpy() ** 2).sum()))
    penalty.backward()
    m, v = pair(layer)
    torch.testing.assert_close(m.grad, 2 * weight * v.detach())
    torch.testing.assert_close(v.grad, 2 * weight * m.detach())
    half = pol.frobenius_decay(regression(dtype=torch.float16))
    assert half.dtype == torch.float32
    assert math.isfinite(half.item())


def test_frobenius_decay_leaves_the_inner_scaling_to_first_order_where_weight_decay_does_not() -> (
    None
):
    layer = regression()
    optimizer = torch.optim.SGD(layer.parameters(), lr=1e-3)
    for _ in range(10):
        optimizer.zero_grad()
        (0.1 * pol.frobenius_decay(layer)).backward()
        optimizer.step()
    kept = pol.inner_scaling(layer)["weight"]
    assert float((kept - 1).abs().max()) < 1e-5
    assert 1 - (1 - 1e-3 * 0.1) ** 20 > 1e-3


def test_inner_scaling_is_that_of_the_survivors_alone() -> None:
    layer = regression(beta=2.0)
    scaling = pol.inner_scaling(layer)["weight"]
    assert scaling.shape == (int(pol.masks(layer)["weight"].sum()),)
    m, v = (factor.detach() for factor in pair(shaken(layer)))
    mask = pol.masks(layer)["weight"]
    torch.testing.assert_close(pol.inner_scaling(layer)["weight"], (m**2 - v**2)[mask])
