"""The theory section's batch of runs, compared with the same runs one after the other.

The batch takes a twentieth of the section's 2·10⁵ steps. The runs one after the other are computed
from a number of steps of one run, all of whose steps cost the same. Later on the batch is faster
still, because runs that have reached a fixed point leave it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ..papers.sign_in_theory.config import DIM, LR, RUNS, SAMPLES, STEPS
from ..papers.sign_in_theory.dynamics import descend
from ..papers.sign_in_theory.neuron import CASES, draw_case, gaussian_task
from ..papers.sign_in_theory.speed import autograd_run

METHODS: dict[str, tuple[float, float] | None] = {"plain": None, "Sign-In": (1.0, 1.0)}


@pytest.mark.parametrize("method", METHODS)
def test_a_hundred_single_neurons(in_turns: Any, benchmark: Any, quick: bool, method: str) -> None:
    benchmark.group = "theory section, 100 student-teacher runs"
    beta = METHODS[method]
    steps, probe = (100, 20) if quick else (STEPS // 20, 1000)
    task = gaussian_task(SAMPLES, DIM, seed=0)
    start = np.concatenate(
        [draw_case(case, DIM, RUNS // len(CASES), seed=1) for case in CASES], axis=1
    )

    def batch(count: int) -> Any:
        return descend(start, task, lr=LR, steps=count, beta=beta)[0]

    def single(run: int, count: int) -> Any:
        return autograd_run(start[:, run].copy(), task, lr=LR, steps=count, beta=beta)

    ends = batch(probe)
    for run in range(0, RUNS, RUNS // len(CASES)):
        np.testing.assert_allclose(ends[:, run], single(run, probe), rtol=1e-5, atol=1e-8)
    in_turns(
        lambda: batch(steps),
        lambda: single(0, probe),
        what=f"{method}, the batch",
        against="autograd, one run after the other",
        rounds=7,
        target=1 / 100,
        steps=steps,
        probe_steps=probe,
    )
    if benchmark.stats is not None:
        info = benchmark.extra_info
        times = RUNS * steps / probe  # as much work as the probe
        info["ratio"] /= times
        info["ratio_quartiles"] = [quartile / times for quartile in info["ratio_quartiles"]]
