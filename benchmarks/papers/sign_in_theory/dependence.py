"""How the recoveries from a < 0 depend on what the paper leaves open: scale, samples, β, steps."""

from __future__ import annotations

import numpy as np

from .config import DIM, LR, SAMPLES
from .dynamics import descend
from .neuron import Array, Task, draw_case, gaussian_task
from .records import Record, interval, outcome
from .single_neuron import negative_a

SCALES = (0.001, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
SAMPLE_COUNTS = (16, 32, 64, 128, 256, 512, 1024)
BETAS = (0.1, 0.3, 1.0, 3.0)
DATA_SEEDS = (0, 1)
CRITERIA = ("loss", "signs", "sign_a")


def dependence(quick: bool) -> Record:
    """Solve the a < 0 problem of Table 2 while one of scale, sample count and β is varied.

    Gradient descent runs for T = 200, Sign-In for ten times as long. Each cell has two data sets.
    """
    runs, short = (3, 100) if quick else (50, 20_000)
    cells: list[Record] = []
    for method, beta in (("gf", None), ("sign_in", 1.0)):
        record = [short // 10, short, 10 * short] if beta else [short // 10, short]

        def add(kind: str, value: float, batches: list[tuple[Array, Task]]) -> None:
            for place, after in enumerate(record):  # noqa: B023 - called within the iteration
                where = {"kind": kind, "value": value, "method": method, "steps": after}  # noqa: B023
                cells.append({**where, **_joined([outcome(s[place], t) for s, t in batches])})

        tasks = [gaussian_task(SAMPLES, DIM, seed) for seed in DATA_SEEDS]
        # All scales side by side: near the saddle they all take every step.
        ends = [
            _train(
                np.concatenate([negative_a(runs, 1 + seed, scale) for scale in SCALES], axis=1),
                task,
                beta,
                record,
            )
            for seed, task in zip(DATA_SEEDS, tasks, strict=True)
        ]
        for place, scale in enumerate(SCALES):
            mine = slice(place * runs, (place + 1) * runs)
            add("scale", scale, [(e[..., mine], t) for e, t in zip(ends, tasks, strict=True)])
        for samples in SAMPLE_COUNTS:
            add("samples", samples, _batches(runs, samples, beta, record))
        for value in BETAS if beta else ():
            add("beta", value, _batches(runs, SAMPLES, value, record))
    settings = {"lr": LR, "dim": DIM, "samples": SAMPLES, "scale": 1.0, "beta": 1.0, "runs": runs}
    seeds = {"data_seeds": list(DATA_SEEDS), "start_seeds": [1 + seed for seed in DATA_SEEDS]}
    return {"settings": {**settings, **seeds, "short": short}, "cells": cells}


def step_size(quick: bool) -> Record:
    """Test whether recoveries by gradient descent are the work of long steps."""
    runs, part = (4, 0.01) if quick else (100, 1.0)
    cells = []
    for samples, scale, horizon, sizes in (
        (50, 1.0, 500.0, (0.02, 0.01, 0.005, 0.0025)),
        (SAMPLES, 3.0, 200.0, (0.01, 0.005, 0.0025)),
    ):
        task = gaussian_task(samples, DIM, seed=0)
        start = draw_case("-+", DIM, runs, seed=1, scale=scale)
        for method, beta in (("gf", None), ("sign_in", (1.0, 1.0))):
            for lr in sizes:
                steps = round(part * horizon / lr)
                (end,) = descend(start, task, lr=lr, steps=steps, beta=beta)
                where = {"samples": samples, "scale": scale, "method": method}
                cells.append({**where, "lr": lr, "steps": steps, **outcome(end, task)})
    settings = {"dim": DIM, "runs": runs, "beta": 1.0, "data_seed": 0, "start_seed": 1}
    return {"settings": settings, "cells": cells}


def _batches(
    runs: int, samples: int, beta: float | None, record: list[int]
) -> list[tuple[Array, Task]]:
    found = []
    for seed in DATA_SEEDS:
        task = gaussian_task(samples, DIM, seed)
        found.append((_train(negative_a(runs, 1 + seed), task, beta, record), task))
    return found


def _train(start: Array, task: Task, beta: float | None, record: list[int]) -> Array:
    inner = None if beta is None else (beta, beta)
    return descend(start, task, lr=LR, steps=record[-1], beta=inner, record=record)


def _joined(results: list[Record]) -> Record:
    """Add up the counts of several data sets."""
    joined: Record = {
        key: sum(result[key] for result in results) for key in ("silenced", "diverged")
    }
    for key in CRITERIA:
        by_data_set = [result[key]["successes"] for result in results]
        successes, runs = sum(by_data_set), sum(result[key]["runs"] for result in results)
        joined[key] = {
            "successes": successes,
            "runs": runs,
            "interval": interval(successes, runs),
            "by_data_set": by_data_set,
        }
    return joined
