"""Tables 2 and 8, Figure 7 and the failure case after it: one neuron, recovered or not."""

from __future__ import annotations

import numpy as np

from .config import DIM, LR, RUNS, SAMPLES, STEPS
from .dynamics import descend
from .neuron import (
    CASES,
    Array,
    balanced,
    by_case,
    draw_cases,
    gaussian_task,
    losses,
)
from .records import Record, outcome, rounded

# Names as in the paper: inputs, and Sign-In's inner scalings of a and of w.
METHODS: dict[str, tuple[int, tuple[float, float] | None]] = {
    "sparse": (1, None),
    "overparam": (DIM, None),
    "sign_in": (1, (2.0, 1.0)),
    "overparam+sign_in": (DIM, (1.0, 1.0)),
    "sign_in, equal scalings": (1, (1.0, 1.0)),
}


def negative_a(runs: int, seed: int, scale: float = 1.0, dim: int = DIM) -> Array:
    """Draw balanced initialisations with w ~ N(0, scale²·I) of any signs and a = −‖w‖."""
    return balanced(scale * np.random.default_rng(seed).standard_normal((dim, runs)), -1)


def table2(quick: bool) -> Record:
    """Compute recoveries from a < 0 within T = 200, at two step sizes."""
    runs, horizon = (4, 2.0) if quick else (RUNS, 200.0)
    task = gaussian_task(SAMPLES, DIM, seed=0)
    start = negative_a(runs, seed=1)
    cells = []
    for lr in (0.001, 0.01):
        for method, beta in (("gf", None), ("sign_in", (1.0, 1.0))):
            steps = round(horizon / lr)
            (end,) = descend(start, task, lr=lr, steps=steps, beta=beta)
            cells.append({"method": method, "lr": lr, "steps": steps, **outcome(end, task)})
    settings = {"samples": SAMPLES, "dim": DIM, "runs": runs, "horizon": horizon, "scale": 1.0}
    return {"settings": {**settings, "beta": 1.0, "data_seed": 0, "start_seed": 1}, "cells": cells}


def table8(quick: bool) -> Record:
    """Try four sign cases with four methods, after 2·10⁴ and 2·10⁵ steps, for two sample counts."""
    runs, steps = (4, 1000) if quick else (RUNS, STEPS)
    record = [steps // 10, steps]
    cells = []
    for samples in (SAMPLES, 50):
        for method, (dim, beta) in METHODS.items():
            task = gaussian_task(samples, dim, seed=0)
            start = draw_cases(dim, runs, seed=1)
            states = descend(start, task, lr=LR, steps=steps, beta=beta, record=record)
            for after, state in zip(record, states, strict=True):
                for case, mine in by_case(state).items():
                    where = {"method": method, "case": case, "samples": samples, "steps": after}
                    cells.append({**where, **outcome(mine, task)})
    settings = {"samples": [SAMPLES, 50], "runs": runs, "lr": LR, "steps": record, "scale": 1.0}
    betas = {method: beta for method, (_, beta) in METHODS.items()}
    dims = {method: dim for method, (dim, _) in METHODS.items()}
    seeds = {"data_seed": 0, "start_seed": 1}
    return {"settings": {**settings, "beta": betas, "dim": dims, **seeds}, "cells": cells}


def failure(quick: bool) -> Record:
    """Try a random teacher, a < 0: how much overparameterisation does Sign-In need?

    Two readings of the paper's paragraph: w̃ has two entries and the student inputs that the teacher
    ignores, or w̃ fills all d inputs. Gradient descent is there for comparison up to d = 5.
    """
    runs, steps = (4, 300) if quick else (RUNS, 100_000)
    record = [steps // 5, steps]
    cells = []
    for reading in ("padded", "full"):
        for dim in (2, 3, 5, 10, 20):
            teacher = np.random.default_rng((7, dim)).standard_normal((dim, runs))
            if reading == "padded":
                teacher = np.zeros((dim, runs))
                teacher[:2] = np.random.default_rng((7, 2)).standard_normal((2, runs))
            task = gaussian_task(SAMPLES, dim, seed=0, teacher=teacher)
            start = negative_a(runs, seed=1, dim=dim)
            for method, beta in (("gf", None), ("sign_in", (1.0, 1.0))):
                if beta is None and dim > DIM:
                    continue
                steps_done = record if beta else record[:1]
                states = descend(
                    start, task, lr=LR, steps=steps_done[-1], beta=beta, record=steps_done
                )
                for after, state in zip(steps_done, states, strict=True):
                    where = {"reading": reading, "dim": dim, "method": method, "steps": after}
                    cells.append({**where, **outcome(state, task, teacher)})
    settings = {"samples": SAMPLES, "runs": runs, "lr": LR, "scale": 1.0, "beta": 1.0}
    return {"settings": {**settings, "data_seed": 0, "start_seed": 1}, "cells": cells}


def figure7(quick: bool) -> Record:
    """Compute paths in the plane of a and w₁, and losses, of a few runs per case with d = 5."""
    runs, steps = (3, 1000) if quick else (6, STEPS)
    record = sorted({0, *np.unique(np.geomspace(10, steps, 90).astype(int)).tolist()})
    task = gaussian_task(SAMPLES, DIM, seed=0)
    start = draw_cases(DIM, runs, seed=1)
    methods = {}
    for method in ("overparam", "overparam+sign_in"):
        beta = METHODS[method][1]
        states = descend(start, task, lr=LR, steps=steps, beta=beta, record=record)
        loss = np.stack([losses(state, task) for state in states])
        shown = {"a": by_case(states[:, 0]), "w1": by_case(states[:, 1]), "loss": by_case(loss)}
        methods[method] = {
            case: {name: rounded(values[case].T) for name, values in shown.items()}
            for case in CASES
        }
    settings = {"samples": SAMPLES, "dim": DIM, "runs": runs, "lr": LR, "scale": 1.0, "beta": 1.0}
    seeds = {"data_seed": 0, "start_seed": 1}
    return {"settings": {**settings, "steps": record, **seeds}, "methods": methods}
