"""A training step with interpolated norms compared with the dense step."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import Any

import pytest
import torch
from torch import nn

import polarity as pol

from .forms import DENSE, Form
from .workloads import WORKLOADS, Workload, step_of


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


def extra_ms(workload: Workload, form: Form, device: torch.device, rounds: int) -> float:
    """What interpolation adds to a step, from steps on two images.

    It works on parameters alone, so the batch does not matter. In a step of half a second that is
    less than the noise; in one of ten milliseconds it can be seen.
    """
    small = replace(workload, batch=(2, *workload.batch[1:]))
    steps = [step_of(small, each, device) for each in (form, DENSE)]

    def spent(step: Callable[[], None]) -> float:
        start = time.process_time()
        step()
        return time.process_time() - start

    pairs = [[spent(step) for step in steps] for _ in range(rounds)]
    return 1e3 * median(ours - plain for ours, plain in pairs)


FORMS = {
    "polarity NormInterp": Form(pol.interpolate_norms),
    "drawn and mixed in forward": Form(naive),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", [pytest.param("resnet20", marks=pytest.mark.large)])
def test_a_step_with_interpolated_norms(
    in_turns: Any, device: torch.device, benchmark: Any, quick: bool, name: str, form: str
) -> None:
    workload = WORKLOADS[name]
    benchmark.group = f"training step with interpolated norms: {workload.name}"
    ours, plain = (step_of(workload, each, device) for each in (FORMS[form], DENSE))
    target = 1.01 if form.startswith("polarity") else None
    in_turns(ours, plain, what=form, against="dense step", rounds=31, target=target)
    if device.type == "cpu" and torch.get_num_threads() == 1:
        rounds = 2 if quick else 101
        extra = extra_ms(workload, FORMS[form], device, rounds)
        benchmark.extra_info["extra_ms_per_step"] = extra
        if benchmark.stats is not None:
            step_ms = 1e3 * benchmark.stats.stats.median
            benchmark.extra_info["ratio_by_extra_ms"] = step_ms / (step_ms - extra)
