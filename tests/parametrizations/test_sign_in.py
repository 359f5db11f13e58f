"""SignInMW: a weight as a product of two factors, whatever its size, sign, dtype and device."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.utils import parametrize
from torch.nn.utils.parametrize import register_parametrization

import polarity as pol
from polarity.parametrizations import balanced_factors
from tests.models import seeded

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
BETAS = [1e-3, 0.5, 1.0, 2.0, 10.0]


def product_of(weight: Tensor, beta: float = 1.0) -> Tensor:
    m, v = balanced_factors(weight, beta)
    assert m.dtype == v.dtype == weight.dtype
    return m * v


@pytest.mark.parametrize("beta", BETAS)
def test_factors_agree_with_a_float64_twin_in_numpy(beta: float) -> None:
    x = torch.randn(1000, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3
    m, v = balanced_factors(x, beta)
    # The quadratic that m² solves when v = x / m: m⁴ - beta m² - x² = 0, by numpy's root formula.
    expected = np.sqrt((beta + np.sqrt(beta**2 + 4 * x.numpy() ** 2)) / 2)
    np.testing.assert_allclose(m.numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose((m * v).numpy(), x.numpy(), rtol=1e-14)
    np.testing.assert_allclose(((m - v) * (m + v)).numpy(), beta, rtol=1e-9)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("beta", BETAS)
def test_no_sign_of_a_million_small_weights_is_lost(dtype: torch.dtype, beta: float) -> None:
    draw = torch.Generator().manual_seed(0)
    x = (torch.randn(1_000_000, generator=draw) * 0.02).to(dtype)
    product = product_of(x, beta)
    ulp = torch.finfo(dtype).eps
    if dtype == torch.float16:  # whose small numbers are spaced evenly
        x, product = x[x.abs() > 1e-3], product[x.abs() > 1e-3]
    assert torch.equal(product.sign(), x.sign())
    assert float((product.double() / x.double() - 1)[x != 0].abs().max()) <= 1.5 * ulp


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_no_sign_is_lost_at_any_magnitude_at_conversion_or_at_rescale(dtype: torch.dtype) -> None:
    sizes = torch.logspace(-30, 3, 400, dtype=torch.float64)
    x = torch.cat([sizes, -sizes, torch.zeros(2, dtype=torch.float64)]).to(dtype)
    layer = nn.Linear(x.numel(), 1, bias=False, dtype=dtype)
    with torch.no_grad():
        layer.weight.copy_(x)
    pol.sign_in(layer)
    assert torch.equal(layer.weight.detach().flatten().sign(), x.sign())
    assert torch.isfinite(layer.weight).all()
    for _ in range(200):
        pol.rescale(layer)
    after = layer.weight.detach().flatten()
    assert torch.equal(after.sign(), x.sign())
    normal = x.abs() > torch.finfo(dtype).tiny * 1e2
    drift = (after.double() / x.double() - 1)[normal].abs().max()
    assert float(drift) <= 3 * torch.finfo(dtype).eps


def test_the_form_of_the_papers_listing_would_lose_signs_where_this_one_does_not() -> None:
    x = (torch.randn(100_000, generator=torch.Generator().manual_seed(1)) * 0.02).bfloat16()
    alpha = 0.5
    u = torch.sqrt(x + torch.sqrt(x * x + alpha * alpha))
    listing = (u + alpha / u) / math.sqrt(2) * ((u - alpha / u) / math.sqrt(2))
    assert float((listing.sign() != x.sign()).float().mean()) > 0.05
    assert torch.equal(product_of(x).sign(), x.sign())


def test_it_works_by_hand_and_owns_the_mask() -> None:
    layer = nn.Conv2d(3, 4, 3)
    mask = torch.rand(layer.weight.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    weight = layer.weight.detach().clone()
    register_parametrization(layer, "weight", pol.SignInMW(mask, beta=2.0))
    torch.testing.assert_close(layer.weight, weight * mask)
    assert torch.equal(pol.masks(layer)["weight"], mask)
    chain = layer.parametrizations.weight
    assert isinstance(chain[0], pol.MaskedWeight)
    m, v = chain.original0.detach(), chain.original1.detach()
    assert not m[~mask].any()
    assert not v[~mask].any()
    assert bool((m[mask] > 0).all())
    torch.testing.assert_close((m * m - v * v)[mask], torch.full((int(mask.sum()),), 2.0))
    assert repr(chain[0]).endswith("beta=2)")


def test_what_is_assigned_is_cloned() -> None:
    layer = pol.sign_in(nn.Linear(3, 2))
    given = torch.zeros(2, 3)
    layer.weight = given
    with torch.no_grad():
        for factor in layer.parametrizations.weight.parameters():
            factor.add_(1)
    assert not given.any()
    mask = torch.ones(2, 3, dtype=torch.bool)
    form = pol.SignInMW(mask)
    for part in form.right_inverse(given):
        assert part.data_ptr() != given.data_ptr()


def test_gradients_and_second_derivatives_are_those_of_a_masked_product() -> None:
    draw = torch.Generator().manual_seed(0)
    mask = torch.rand(4, 3, generator=draw) < 0.5
    m, v = (torch.randn(4, 3, generator=draw, dtype=torch.float64).requires_grad_() for _ in "mv")

    product = pol.SignInMW(mask)
    assert gradcheck(product, (m, v), check_forward_ad=True)
    assert gradgradcheck(product, (m, v))
    assert torch.equal(product(m, v), torch.where(mask, m * v, 0.0))


def test_a_pruned_entry_is_zero_whatever_numbers_are_stored() -> None:
    form = pol.SignInMW(torch.tensor([False, False, True]))
    out = form(torch.tensor([5.0, -1.0, 2.0]), torch.tensor([1.0, 2.0, 3.0]))
    assert out.tolist() == [0.0, 0.0, 6.0]


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "NAdam"])
def test_zero_factors_are_a_fixed_point_of_every_elementwise_optimizer(optimizer: str) -> None:
    layer = nn.Linear(8, 8)
    mask = torch.rand(8, 8, generator=torch.Generator().manual_seed(0)) < 0.4
    pol.sign_in(pol.load_masks(layer, {"weight": mask}))
    options = {"momentum": 0.9} if optimizer == "SGD" else {}
    opt = getattr(torch.optim, optimizer)(layer.parameters(), lr=0.1, weight_decay=0.1, **options)
    for seed in range(5):
        opt.zero_grad()
        x = torch.randn(4, 8, generator=torch.Generator().manual_seed(seed))
        layer(x).square().sum().backward()
        opt.step()
    for factor in layer.parametrizations.weight.parameters(recurse=False):
        assert not factor[~mask].any()
        assert bool(factor[mask].all())


def test_an_entry_that_comes_to_life_can_grow() -> None:
    layer = pol.sign_in(pol.load_masks(seeded(nn.Linear(4, 4)), {"weight": torch.eye(4)}), beta=4.0)
    pol.load_masks(layer, {"weight": torch.ones(4, 4)})
    m, v = (each.detach() for each in layer.parametrizations.weight.parameters(recurse=False))
    born = torch.eye(4) == 0
    assert bool((m[born] == 2.0).all())
    assert not v[born].any()
    assert bool((m[~born] != 2.0).all()), "survivors are left alone"
    layer(torch.ones(1, 4)).sum().backward()
    assert bool(layer.parametrizations.weight.original1.grad[born].all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_beta_is_saved_moves_with_the_model_and_keeps_its_precision(dtype: torch.dtype) -> None:
    layer = pol.sign_in(nn.Linear(3, 2), beta=0.1).to(dtype)
    beta = layer.parametrizations.weight[0].beta
    assert beta.dtype == torch.float64
    assert float(beta) == 0.1
    other = pol.sign_in(nn.Linear(3, 2, dtype=dtype), beta=1.0)
    other.load_state_dict(layer.state_dict())
    assert float(other.parametrizations.weight[0].beta) == 0.1
    empty = layer.to("meta").to_empty(device="cpu")
    assert empty.parametrizations.weight[0].beta.device.type == "cpu"


@pytest.mark.parametrize("beta", [0.0, -1.0, math.inf, math.nan])
def test_beta_must_be_positive_and_finite(beta: float) -> None:
    with pytest.raises(ValueError, match=r"beta=.*expected a number above 0 and below inf"):
        pol.SignInMW(torch.ones(2, 2), beta=beta)


def test_a_mask_of_another_shape_is_refused_with_both_shapes() -> None:
    layer = nn.Linear(3, 2)
    with pytest.raises(ValueError, match=r"\(3, 2\).*\(2, 3\)"):
        register_parametrization(layer, "weight", pol.SignInMW(torch.ones(3, 2)))
    assert not parametrize.is_parametrized(layer)


@pytest.mark.gpu
def test_factors_on_a_gpu_equal_those_on_the_cpu() -> None:
    x = torch.randn(10_000, generator=torch.Generator().manual_seed(0))
    for here, there in zip(balanced_factors(x, 1.0), balanced_factors(x.cuda(), 1.0), strict=True):
        torch.testing.assert_close(there.cpu(), here)
