"""A training step with masks, and with Sign-In, compared with the dense step and with peers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from .forms import DENSE, DENSITY, MASKED, PEERS, SIGNED
from .workloads import CHAIN, WORKLOADS, step_of

FORMS = MASKED | SIGNED
IN_STEP = "polarity mask, enforced in the step"
# From the table of targets: this many times the dense step at most.
TARGETS = {
    "polarity mask": {"mlp": 1.13, "vit_s": 1.07, "resnet18": 1.01, "resnet20": 1.01},
    IN_STEP: {"mlp": 1.08, "vit_s": 1.04, "resnet18": 1.00, "resnet20": 1.00},
    "polarity Sign-In, enforced in the step": {"mlp": 1.26, "vit_s": 1.15, "resnet18": 1.02},
}
COMPILED = {"polarity mask": 1.10, IN_STEP: 1.04, "polarity Sign-In": 1.30}
ADAMW = {"polarity mask": 1.15}
# Python for each weight and step, in microseconds.
PYTHON = {"polarity mask": 28.0, IN_STEP: 12.0}
LARGE = [
    pytest.param("vit_s", marks=pytest.mark.large),
    pytest.param("resnet18", marks=pytest.mark.large),
    pytest.param("resnet20", marks=pytest.mark.large),
]
ROUNDS = {"mlp": 80, "vit_s": 15, "resnet18": 9, "resnet20": 11, "chain": 60}


def compare(
    in_turns: Any,
    device: torch.device,
    name: str,
    what: str,
    against: str,
    target: float | None,
    **how: Any,
) -> None:
    """Time a step of one form and a step of another in turns."""
    workload = WORKLOADS[name]
    repeats = 10 if name == "mlp" else 1
    other = FORMS.get(against, DENSE)
    ours, theirs = (step_of(workload, form, device, **how) for form in (FORMS[what], other))
    in_turns(
        lambda: [ours() for _ in range(repeats)],
        lambda: [theirs() for _ in range(repeats)],
        what=what,
        against=against,
        rounds=ROUNDS[name],
        target=target,
        workload=workload.name,
        density=DENSITY,
    )


@pytest.mark.parametrize("form", MASKED)
@pytest.mark.parametrize("name", ["mlp", *LARGE])
def test_a_step_with_masks(
    in_turns: Any, device: torch.device, benchmark: Any, name: str, form: str
) -> None:
    benchmark.group = f"training step with masks: {WORKLOADS[name].name}"
    compare(in_turns, device, name, form, "dense step", TARGETS.get(form, {}).get(name))


@pytest.mark.parametrize("form", SIGNED)
@pytest.mark.parametrize("name", ["mlp", *LARGE])
def test_a_step_with_sign_in(
    in_turns: Any, device: torch.device, benchmark: Any, name: str, form: str
) -> None:
    benchmark.group = f"training step with Sign-In: {WORKLOADS[name].name}"
    compare(in_turns, device, name, form, "dense step", TARGETS.get(form, {}).get(name))


@pytest.mark.parametrize("form", PEERS)
@pytest.mark.parametrize("name", ["mlp", *LARGE])
def test_a_step_compared_with_what_one_would_pick_instead(
    in_turns: Any, device: torch.device, benchmark: Any, name: str, form: str
) -> None:
    benchmark.group = f"training step, ours and the peer in turns: {WORKLOADS[name].name}"
    compare(in_turns, device, name, form, PEERS[form], 1.0)


@pytest.mark.parametrize("form", [*MASKED][:5])
@pytest.mark.parametrize("name", ["mlp", LARGE[0]])
def test_a_step_of_adamw_with_masks(
    in_turns: Any, device: torch.device, benchmark: Any, name: str, form: str
) -> None:
    benchmark.group = f"training step with masks, fused AdamW: {WORKLOADS[name].name}"
    target = ADAMW.get(form) if name == "mlp" else None
    compare(in_turns, device, name, form, "dense step", target, optimizer="fused AdamW")


@pytest.mark.parametrize("form", SIGNED)
@pytest.mark.parametrize("name", ["mlp", LARGE[0]])
def test_a_step_with_sign_in_and_a_fused_optimizer(
    in_turns: Any, device: torch.device, benchmark: Any, name: str, form: str
) -> None:
    """Twice the parameters are twice the optimizer's work, the larger share of what is added."""
    benchmark.group = f"training step with Sign-In, fused SGD: {WORKLOADS[name].name}"
    compare(in_turns, device, name, form, "dense step", None, optimizer="fused SGD")


COMPILED_PEERS = {
    "polarity mask": "float mask in forward",
    "polarity Sign-In": PEERS["polarity Sign-In"],
}


@pytest.mark.large
@pytest.mark.parametrize(
    ("form", "against"),
    [
        *((form, "dense step") for form in (*[*MASKED][:3], "float mask in forward", *SIGNED)),
        *COMPILED_PEERS.items(),
    ],
)
def test_a_compiled_step(
    in_turns: Any, device: torch.device, benchmark: Any, form: str, against: str
) -> None:
    benchmark.group = f"training step, compiled: {WORKLOADS['mlp'].name}"
    target = COMPILED.get(form) if against == "dense step" else 1.0
    compare(in_turns, device, "mlp", form, against, target, compiled=True)


@pytest.mark.parametrize("form", [*MASKED][1:5])
def test_python_for_each_weight_and_step(
    in_turns: Any, device: torch.device, benchmark: Any, form: str
) -> None:
    """What a mask adds to a step where its arithmetic is nothing, divided by the weights."""
    benchmark.group = f"Python for each weight and step: {WORKLOADS['chain'].name}"
    compare(in_turns, device, "chain", form, "dense step", None)
    if benchmark.stats is not None:
        info, step = benchmark.extra_info, benchmark.stats.stats.median
        info["microseconds_per_weight"] = 1e6 * step * (1 - 1 / info["ratio"]) / CHAIN
        info["target_microseconds"] = PYTHON.get(form)
