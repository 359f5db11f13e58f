"""The light property: one call where a tensor has one parametrization, torch's own otherwise."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

import polarity as pol
from tests.forms import FORMS
from tests.laws.refusals import fingerprint
from tests.models import seeded

ATTACH = {"masked": pol.mask_weights, "sign_in": pol.sign_in}
each_form = pytest.mark.parametrize("attach", ATTACH.values(), ids=ATTACH.keys())


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def half_masked(attach) -> nn.Module:
    layer = seeded(nn.Linear(4, 4))
    pol.load_masks(layer, {"weight": torch.eye(4)})
    return attach(layer)


@each_form
def test_inside_cached_a_weight_is_computed_once_and_outside_each_time(attach):
    layer = half_masked(attach)
    with parametrize.cached():
        once = layer.weight
        assert layer.weight is once
    assert layer.weight is not layer.weight
    assert torch.equal(layer.weight, once)


@each_form
def test_a_further_parametrization_acts_on_the_masked_weight(attach):
    layer = half_masked(attach)
    masked = layer.weight.detach().clone()
    parametrize.register_parametrization(layer, "weight", Doubled(), unsafe=True)
    assert torch.equal(layer.weight, 2 * masked)
    assert not layer.weight[torch.eye(4) == 0].any()


@each_form
def test_a_weight_is_read_without_the_bookkeeping_of_two_modules(attach, monkeypatch):
    layer, calls = half_masked(attach), []
    plain = nn.Module.__call__
    monkeypatch.setattr(nn.Module, "__call__", lambda *a, **k: calls.append(a[0]) or plain(*a, **k))
    assert layer.weight.shape == (4, 4)
    assert calls == []


# Errors inside


def broken(self: nn.Module, *stored: Tensor) -> Tensor:
    return stored[0].no_such_attribute


@each_form
@pytest.mark.parametrize("further", [False, True])
def test_an_attribute_error_inside_is_said_as_it_is(attach, further, monkeypatch):
    layer = half_masked(attach)
    if further:
        parametrize.register_parametrization(layer, "weight", Doubled(), unsafe=True)
    monkeypatch.setattr(type(layer.parametrizations.weight[0]), "forward", broken)
    for read in (lambda: layer.weight, lambda: layer(torch.ones(1, 4))):
        with pytest.raises(
            RuntimeError, match=r"computing 'weight' raised .*no_such_attribute"
        ) as e:
            read()
        assert isinstance(e.value.__cause__, AttributeError)


def test_an_attribute_error_inside_an_interpolated_norm_is_said_as_it_is(monkeypatch):
    norm = pol.interpolate_norms(nn.LayerNorm(4))
    monkeypatch.setattr(pol.NormInterp, "forward", broken)
    with pytest.raises(RuntimeError, match=r"computing 'weight' raised .*no_such_attribute"):
        norm(torch.ones(1, 4))


@each_form
def test_other_errors_inside_pass_through(attach, monkeypatch):
    def failing(self: nn.Module, *stored: Tensor) -> Tensor:
        raise FloatingPointError("inside")

    layer = half_masked(attach)
    monkeypatch.setattr(type(layer.parametrizations.weight[0]), "forward", failing)
    with pytest.raises(FloatingPointError, match="inside"):
        layer(torch.ones(1, 4))


# Assignments that do not fit

MISFITS = {
    "float64": (lambda n: torch.ones(n, n, dtype=torch.float64), ValueError, "dtype torch.float64"),
    "bfloat16": (
        lambda n: torch.ones(n, n, dtype=torch.bfloat16),
        ValueError,
        r"\.to\(torch.float32",
    ),
    "integers": (
        lambda n: torch.ones(n, n, dtype=torch.int64),
        ValueError,
        "torch.int64, expected",
    ),
    "shape": (lambda n: torch.ones(n, 2), ValueError, "has shape .* expected the layer's"),
    "device": (
        lambda n: torch.ones(n, n, device="meta"),
        ValueError,
        r"is on meta, expected the layer's cpu: move it with \.to\('cpu'\)",
    ),
    "nothing": (lambda n: None, TypeError, "weight is a NoneType, expected a tensor"),
    "a number": (lambda n: 2.0, TypeError, "weight is a float, expected a tensor"),
}


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
@pytest.mark.parametrize("width", [4, 300])
@pytest.mark.parametrize(("wrong", "error", "said"), MISFITS.values(), ids=MISFITS)
def test_an_assignment_that_does_not_fit_changes_neither_weight_nor_mask(
    wrong, error, said, width, form
):
    layer = form.attach(seeded(nn.Linear(width, width)))
    before = fingerprint(layer.state_dict())
    with pytest.raises(error, match=said):
        layer.weight = wrong(width)
    assert fingerprint(layer.state_dict()) == before


def test_a_misfit_is_refused_under_a_mask_that_was_registered_by_hand():
    layer = seeded(nn.Linear(4, 4).bfloat16())
    masking = pol.MaskedWeight(torch.eye(4, dtype=torch.bool))
    parametrize.register_parametrization(layer, "weight", masking)
    assert masking.mask.dtype == torch.bfloat16
    with pytest.raises(ValueError, match="float64"):
        layer.weight = torch.ones(4, 4, dtype=torch.float64)
    assert masking.mask.dtype == torch.bfloat16
    assert masking.mask.float().equal(torch.eye(4))


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
@pytest.mark.parametrize("width", [4, 300])
def test_an_assignment_where_parameters_are_swapped_is_seen_through_the_mask(form, width):
    layer = form.attach(seeded(nn.Linear(width, width)))
    kept, given = list(layer.parameters()), torch.full((width, width), 2.0)
    sgd = torch.optim.SGD(layer.parameters(), lr=0.1)
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        layer.weight = given
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    expected = given * pol.masks(layer)["weight"] if form.enforced else given
    torch.testing.assert_close(layer.weight.detach(), expected)
    assert all(a is b for a, b in zip(kept, layer.parameters(), strict=True))
    layer(torch.ones(1, width)).sum().backward()
    sgd.step()
    assert not form.enforced or not layer.weight[~pol.masks(layer)["weight"]].any()
    assert not torch.equal(layer.weight, expected)


def test_an_assignment_in_inference_mode_can_be_trained():
    layer = half_masked(pol.mask_weights)
    with torch.inference_mode():
        layer.weight = torch.ones(4, 4)
    layer(torch.ones(1, 4)).sum().backward()
    torch.optim.SGD(layer.parameters(), lr=0.1).step()
    assert torch.equal(layer.weight != 0, torch.eye(4) != 0)
