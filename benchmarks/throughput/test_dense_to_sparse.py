"""Schedules that change masks: what their `.step()` costs without an update, and an update's share.

An update is timed where every second step has one, and its cost is spread over ΔT = 100 steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import polarity as pol

from .forms import DENSITY, Form, polarity_mask
from .workloads import OPTIMIZERS, WORKLOADS, step_of

NEVER = 10**6
PERIOD = 100  # steps from one update to the next, as published for RigL
MICROSECONDS, SHARE = 5.0, 1.02  # targets: per weight and step, and of a masked step
Optimizer = torch.optim.Optimizer
Schedule = Callable[[nn.Module, Optimizer, int], Any]

# The first update of each is after `every` steps; those of AC/DC are its switches.
SCHEDULES: dict[str, Schedule] = {
    "RigL": lambda model, optimizer, every: pol.dense_to_sparse.RigL(
        model, optimizer, every=every, end=NEVER
    ),
    "SET": lambda model, optimizer, every: pol.dense_to_sparse.SET(model, optimizer, every=every),
    "ACDC": lambda model, optimizer, every: pol.dense_to_sparse.ACDC(
        model, optimizer, density=DENSITY, switches=(0, *range(every, 10_001, every))
    ),
    # A density that falls slowly, so that the first update and the last have the same to do.
    "GradualMagnitude": lambda model, optimizer, every: pol.dense_to_sparse.GradualMagnitude(
        model,
        optimizer,
        every=every,
        begin=0 if every < NEVER else NEVER,
        end=10_000 if every < NEVER else 2 * NEVER,
        initial=DENSITY,
        density=DENSITY / 2,
    ),
}


@pytest.mark.parametrize("what", SCHEDULES)
@pytest.mark.parametrize("name", ["mlp", "resnet18", "chain"])
def test_python_of_a_step_without_an_update(
    in_turns: Any, device: torch.device, benchmark: Any, name: str, what: str
) -> None:
    """An optimizer without gradients has next to nothing to do; the schedule counts its step."""
    workload, repeats = WORKLOADS[name], 100
    benchmark.group = f"Python of a schedule's step, no update due: {workload.name}"
    model = polarity_mask(workload.build().to(device)).train()
    optimizer = OPTIMIZERS["SGD"](list(model.parameters()))
    alone = OPTIMIZERS["SGD"](list(model.parameters()))
    schedule = SCHEDULES[what](model, optimizer, NEVER)
    if what == "ACDC":
        schedule.switch()  # into the sparse phase, reported by the first step
    optimizer.step()
    schedule.step()

    def ours() -> None:
        for _ in range(repeats):
            optimizer.step()
            assert schedule.step() is None

    def theirs() -> None:
        for _ in range(repeats):
            alone.step()

    in_turns(
        ours,
        theirs,
        what=f"{what}, optimizer.step() without gradients and schedule.step()",
        against="optimizer.step() without gradients",
        rounds=200,
        workload=workload.name,
        density=DENSITY,
    )
    if benchmark.stats is not None:
        info = benchmark.extra_info
        added = 1e6 * benchmark.stats.stats.median * (1 - 1 / info["ratio"]) / repeats
        info["microseconds_per_step"] = added
        info["microseconds_per_weight"] = added / len(pol.masks(model))
        info["target_microseconds"] = MICROSECONDS


@pytest.mark.parametrize("what", SCHEDULES)
@pytest.mark.parametrize("name", ["mlp", "resnet8"])
def test_an_update_amortised_over_100_steps(
    in_turns: Any, device: torch.device, benchmark: Any, name: str, what: str
) -> None:
    workload = WORKLOADS[name]
    benchmark.group = f"a mask update amortised over {PERIOD} steps: {workload.name}"
    scheduled = Form(polarity_mask, schedule=lambda model, sgd: SCHEDULES[what](model, sgd, 2))
    ours, theirs = (step_of(workload, form, device) for form in (scheduled, Form(polarity_mask)))
    # With one update, or with one switch of each kind.
    updates = 2 if what == "ACDC" else 1
    steps = 2 * updates
    in_turns(
        lambda: [ours() for _ in range(steps)],
        lambda: [theirs() for _ in range(steps)],
        what=what,
        against="masked step",
        rounds=200,
        target=SHARE,
        workload=workload.name,
        density=DENSITY,
    )
    if benchmark.stats is not None:
        info = benchmark.extra_info
        per_update = steps / updates  # from ratios of all steps to the cost of an update, in steps
        info["update_in_steps"] = per_update * (info["ratio"] - 1)
        info["ratio"] = 1 + info["update_in_steps"] / PERIOD
        info["ratio_quartiles"] = [
            1 + per_update * (each - 1) / PERIOD for each in info["ratio_quartiles"]
        ]
