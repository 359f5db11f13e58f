"""The light property: one call where a tensor has one parametrization, torch's own otherwise."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

import polarity as pol
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
