"""A training step with interpolated norms beside the dense step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import polarity as pol
from benchmarks.throughput.forms import dense
from benchmarks.throughput.workloads import WORKLOADS, step_of


class NaiveInterp(nn.Module):
    """What one writes first: a number drawn in forward, and two products."""

    def __init__(self, initial: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("initial", initial.detach().clone())

    def forward(self, trained: torch.Tensor) -> torch.Tensor:
        alpha = torch.rand(()).item()
        return alpha * trained + (1 - alpha) * self.initial


def naive(model: nn.Module) -> nn.Module:
    for module in list(model.modules()):
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            for name in ("weight", "bias"):
                form = NaiveInterp(getattr(module, name))
                nn.utils.parametrize.register_parametrization(module, name, form)
    return model


FORMS = {"polarity NormInterp": pol.interpolate_norms, "drawn and mixed in forward": naive}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", [pytest.param("resnet20", marks=pytest.mark.large)])
def test_a_step_with_interpolated_norms(
    beside: Any, device: torch.device, benchmark: Any, name: str, form: str
) -> None:
    workload = WORKLOADS[name]
    benchmark.group = f"training step with interpolated norms: {workload.name}"
    ours, plain = (step_of(workload, attach, device) for attach in (FORMS[form], dense))
    target = 1.01 if form.startswith("polarity") else None
    beside(ours, plain, what=form, against="dense step", rounds=31, target=target)
