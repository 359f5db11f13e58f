"""What the theory section counts, with exact intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .config import LOSS_SOLVED
from .neuron import Array, Task, beyond_teaching, losses

Record = dict[str, Any]


def interval(successes: int, runs: int) -> list[float]:
    """Return Clopper and Pearson's exact 95 % interval of a success probability."""
    from scipy.stats import binomtest  # type: ignore[import-untyped]

    found = binomtest(successes, runs).proportion_ci(0.95, method="exact")
    return [round(float(found.low), 4), round(float(found.high), 4)]


def count(solved: NDArray[np.bool_]) -> Record:
    """Return how many of the runs are True, of how many, and the interval."""
    successes, runs = int(solved.sum()), int(solved.size)
    return {"successes": successes, "runs": runs, "interval": interval(successes, runs)}


def outcome(state: Array, task: Task, teacher: Array | None = None) -> Record:
    """Return what became of a batch of single neurons, under each criterion of success.

    Args:
        state: (1 + d, R).
        task: the data they were trained on.
        teacher: (d, R), the w̃; the default is (1, 0, …, 0).

    Returns:
        Counts for the criteria "loss" (< 1e-4), "signs" (a > 0 and wᵀw̃ > 0) and "sign_a" (a > 0);
        how many diverged and how many ended where the teacher is silent; the median loss.
    """
    loss = losses(state, task)
    diverged = ~np.isfinite(loss)
    state = np.where(diverged, np.nan, state)
    along = state[1] if teacher is None else (state[1:] * teacher).sum(axis=0)
    median = float(np.median(loss))
    return {
        "loss": count(loss < LOSS_SOLVED),
        "signs": count((state[0] > 0) & (along > 0)),
        "sign_a": count(state[0] > 0),
        "silenced": int(beyond_teaching(state, task).sum()),
        "diverged": int(diverged.sum()),
        "median_loss": median if np.isfinite(median) else None,
    }


def rounded(values: Any, digits: int = 4) -> Any:
    """Round nested lists of numbers to this many significant digits: enough for a plot."""
    if isinstance(values, np.ndarray):
        return rounded(values.tolist(), digits)
    if isinstance(values, list):
        return [rounded(value, digits) for value in values]
    return float(f"{values:.{digits}g}")
