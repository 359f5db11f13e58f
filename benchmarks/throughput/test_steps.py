"""A training step with masks, and with Sign-In, beside the dense step and what others do."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmarks.throughput.forms import DENSITY, MASKED, SIGNED, dense
from benchmarks.throughput.workloads import WORKLOADS, step_of

# From the table of targets: at most so many times the dense step.
MASK_TARGETS = {"mlp": 1.03, "vit_s": 1.015, "resnet18": 1.01, "resnet20": 1.01}
SIGN_IN_TARGETS = {"mlp": 1.22, "vit_s": 1.10, "resnet18": 1.025, "resnet20": 1.01}
SIZES = [
    "mlp",
    pytest.param("vit_s", marks=pytest.mark.large),
    pytest.param("resnet18", marks=pytest.mark.large),
    pytest.param("resnet20", marks=pytest.mark.large),
]


def measure(
    beside: Any,
    device: torch.device,
    name: str,
    form: str,
    group: dict[str, Any],
    fused: bool = False,
) -> None:
    workload = WORKLOADS[name]
    targets = MASK_TARGETS if group is MASKED else SIGN_IN_TARGETS
    repeats = 10 if name == "mlp" else 1
    ours, plain = (step_of(workload, attach, device, fused) for attach in (group[form], dense))
    beside(
        lambda: [ours() for _ in range(repeats)],
        lambda: [plain() for _ in range(repeats)],
        what=form,
        against="dense step",
        rounds=80 if name == "mlp" else 15,
        target=targets[name] if form.startswith("polarity") and not fused else None,
        workload=workload.name,
        density=DENSITY,
    )


@pytest.mark.parametrize("form", MASKED)
@pytest.mark.parametrize("name", SIZES)
def test_a_step_with_masks(
    beside: Any, device: torch.device, benchmark: Any, name: str, form: str
) -> None:
    benchmark.group = f"training step with masks: {WORKLOADS[name].name}"
    measure(beside, device, name, form, MASKED)


@pytest.mark.parametrize("form", SIGNED)
@pytest.mark.parametrize("name", SIZES)
def test_a_step_with_sign_in(
    beside: Any, device: torch.device, benchmark: Any, name: str, form: str
) -> None:
    benchmark.group = f"training step with Sign-In: {WORKLOADS[name].name}"
    measure(beside, device, name, form, SIGNED)


@pytest.mark.parametrize("form", SIGNED)
@pytest.mark.parametrize("name", SIZES[:2])
def test_a_step_with_sign_in_and_a_fused_optimizer(
    beside: Any, device: torch.device, benchmark: Any, name: str, form: str
) -> None:
    """Twice the parameters are twice the optimizer's work, the larger part of what is added."""
    benchmark.group = f"training step with Sign-In, fused SGD: {WORKLOADS[name].name}"
    measure(beside, device, name, form, SIGNED, fused=True)
