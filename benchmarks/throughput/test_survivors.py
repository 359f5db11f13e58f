"""Training steps of survivors alone, compared with dense, masked and sparse steps; their memory."""

from __future__ import annotations

import gc
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import pytest
import torch

from .memory import kept_bytes, peak_bytes
from .survivor_forms import (
    COMPACT,
    COMPACT_SIGNED,
    FORMS,
    MASK,
    SIGNED,
    SPARSELAB,
    sparse_form,
)
from .workloads import WORKLOADS, Training, step_of, training

DENSITIES = (0.107, 0.05, 0.01)
# From the table of targets: this many times the dense step at most, at these densities.
TARGETS = {
    ("mlp", "SGD", COMPACT): (0.87, 0.67, 0.45),
    ("mlp", "AdamW", COMPACT): (0.79, 0.64, 0.45),
    ("mlp", "SGD", COMPACT_SIGNED): (0.92, 0.70, 0.47),
    ("mlp", "AdamW", COMPACT_SIGNED): (0.86, 0.70, 0.47),
    ("wide64", "SGD", COMPACT): (0.39, 0.23, 0.10),
    ("wide64", "AdamW", COMPACT): (0.31, 0.19, 0.08),
    ("wide64", "SGD", COMPACT_SIGNED): (0.45, 0.23, 0.11),
    ("wide64", "AdamW", COMPACT_SIGNED): (0.39, 0.24, 0.10),
    ("wide512", "SGD", COMPACT): (0.53, 0.30, 0.12),
    ("wide512", "AdamW", COMPACT): (0.47, 0.28, 0.11),
    ("wide512", "SGD", COMPACT_SIGNED): (0.54, 0.30, 0.13),
    ("wide512", "AdamW", COMPACT_SIGNED): (0.52, 0.28, 0.12),
}
# The same with two threads, where the table has them: for SGD.
TWO_THREADS = {
    ("mlp", "SGD", COMPACT): (0.98, 0.82, 0.51),
    ("wide64", "SGD", COMPACT): (0.35, 0.17, 0.10),
    ("wide512", "SGD", COMPACT): (0.52, 0.28, 0.13),
}
# Two equal steps differ by this much from run to run; see the rows "dense step once more".
NOISE = 1.02
ROUNDS = {"mlp": 40, "wide64": 15, "wide512": 9, "vit_s": 9}
NAMES = ["mlp", "wide64", pytest.param("wide512", marks=pytest.mark.large)]


def target_of(name: str, optimizer: str, form: str, density: float) -> float | None:
    """Look up what a step is to reach with this number of threads."""
    table = TARGETS if torch.get_num_threads() == 1 else TWO_THREADS
    found = table.get((name, optimizer, form))
    return None if found is None else found[DENSITIES.index(density)]


def compare(
    in_turns: Any,
    device: torch.device,
    name: str,
    density: float,
    what: str,
    against: str,
    target: float | None,
    optimizer: str = "SGD",
) -> None:
    """Time a step of one form and a step of another in turns."""
    if SPARSELAB in (what, against):
        pytest.importorskip(SPARSELAB)
        if device.type != "cpu":
            pytest.skip("sparselab runs on CPUs")
    workload = WORKLOADS[name]
    repeats = 10 if name == "mlp" else 1
    chosen: list[str] = []
    ours, theirs = (
        step_of(workload, sparse_form(form, workload, density, names), device, optimizer)
        for form, names in ((what, chosen), (against, []))
    )
    extra: dict[str, Any] = {}
    if what in (COMPACT, COMPACT_SIGNED):
        extra["compact_weights"] = len(chosen)
    if SPARSELAB in (what, against):
        extra["sparselab"] = version(SPARSELAB)
    in_turns(
        lambda: [ours() for _ in range(repeats)],
        lambda: [theirs() for _ in range(repeats)],
        what=f"{what}, {density:.1%} left",
        against=against,
        rounds=ROUNDS[name],
        target=target,
        workload=workload.name,
        density=density,
        **extra,
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
@pytest.mark.parametrize("name", NAMES)
def test_a_step_of_survivors(
    in_turns: Any,
    device: torch.device,
    benchmark: Any,
    name: str,
    optimizer: str,
    density: float,
    form: str,
) -> None:
    benchmark.group = f"survivors, {optimizer}: {WORKLOADS[name].name}"
    target = target_of(name, optimizer, form, density)
    compare(in_turns, device, name, density, form, "dense step", target, optimizer)


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("name", NAMES)
def test_a_step_of_survivors_and_of_the_peer_in_turns(
    in_turns: Any, device: torch.device, benchmark: Any, name: str, density: float
) -> None:
    benchmark.group = f"survivors, ours and the peer in turns: {WORKLOADS[name].name}"
    compare(in_turns, device, name, density, COMPACT, SPARSELAB, 1.0)


@pytest.mark.parametrize(("ours", "masked"), [(COMPACT, MASK), (COMPACT_SIGNED, SIGNED)])
@pytest.mark.parametrize("density", [0.5, 0.3, 0.2, 0.107])
@pytest.mark.parametrize("name", NAMES)
def test_compact_is_never_slower_than_masked(
    in_turns: Any,
    device: torch.device,
    benchmark: Any,
    name: str,
    density: float,
    ours: str,
    masked: str,
) -> None:
    """Where nothing gains nothing is compact, and the row is the noise of two equal steps."""
    benchmark.group = f"survivors, compact and masked in turns: {WORKLOADS[name].name}"
    compare(in_turns, device, name, density, ours, masked, NOISE)


@pytest.mark.large
@pytest.mark.parametrize("form", [*FORMS[:3], SIGNED, COMPACT_SIGNED])
@pytest.mark.parametrize("density", [0.1, 0.05])
def test_a_step_of_a_vision_transformer(
    in_turns: Any, device: torch.device, benchmark: Any, density: float, form: str
) -> None:
    """Attention's packed projections stay masked; its MLPs are most of the weights."""
    benchmark.group = f"survivors, SGD: {WORKLOADS['vit_s'].name}"
    compare(in_turns, device, "vit_s", density, form, "dense step", None)


@pytest.mark.parametrize("form", ["dense step", *FORMS])
@pytest.mark.parametrize("density", [0.1, 0.01])
def test_memory_of_a_step(device: torch.device, benchmark: Any, density: float, form: str) -> None:
    """What stays after steps of AdamW, what one more needs beyond it, and what the optimizer holds.

    All of it is divided by the weights of the dense model.
    """
    if form == SPARSELAB:
        pytest.importorskip(SPARSELAB)
    workload = WORKLOADS["wide64"]
    benchmark.group = f"survivors, memory, AdamW: {workload.name}"
    with torch.device("meta"):
        total = sum(each.numel() for each in workload.build().parameters())
    made: list[Training] = []

    def build() -> None:
        made.append(training(workload, sparse_form(form, workload, density, []), device, "AdamW"))

    _warm_up(device)
    kept = kept_bytes(build, device)
    peak = peak_bytes(made[0].step, device)
    state = sum(
        value.numel() * value.element_size()
        for states in made[0].optimizer.state.values()
        for value in states.values()
        if isinstance(value, torch.Tensor)
    )
    gradients = sum(
        each.grad.numel() * each.grad.element_size()
        for each in made[0].model.parameters()
        if each.grad is not None
    )
    benchmark.pedantic(made[0].step, rounds=3)
    per_weight = {
        "stays_bytes_per_weight": kept,
        "step_extra_bytes_per_weight": peak,
        "optimizer_bytes_per_weight": state,
        "gradients_bytes_per_weight": gradients,
    }
    benchmark.extra_info.update(
        what=f"{form}, {density:.0%} left",
        weights=total,
        threads=torch.get_num_threads(),
        device=str(device),
        **{key: None if value is None else value / total for key, value in per_weight.items()},
    )


def _warm_up(device: torch.device) -> None:
    """Make small steps, so that the libraries' own buffers are no part of what is weighed."""
    workload = WORKLOADS["mlp"]
    step: Callable[[], None] = step_of(
        workload, sparse_form(COMPACT, workload, 0.05, []), device, "AdamW"
    )
    step()
    gc.collect()
