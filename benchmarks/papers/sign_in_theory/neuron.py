"""One hidden neuron, f(z) = a·relu(wᵀz), taught by another one: data, loss and initialisations.

Arrays hold many runs side by side, the run on the last axis. A state is (1 + d, R): row 0 is a, the
other rows are w. Everything is float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
# The paper's order of the sign cases, sign of a first, then that of w₁.
CASES = {"++": (1, 1), "-+": (-1, 1), "+-": (1, -1), "--": (-1, -1)}
CASE_NAMES = {
    "++": "a > 0, w₁ > 0",
    "-+": "a < 0, w₁ > 0",
    "+-": "a > 0, w₁ < 0",
    "--": "a < 0, w₁ < 0",
}


@dataclass(frozen=True)
class Task:
    """A data set that all runs of a batch share, and what each of them must fit.

    Args:
        inputs: (n, d), the samples z.
        labels: (n, R), the teachers' answers; (n, 1) where one teacher serves all runs.
    """

    inputs: Array
    labels: Array

    def of_runs(self, runs: NDArray[Any]) -> Task:
        """Return the same data for some of the runs only."""
        shared = self.labels.shape[1] == 1
        return self if shared else Task(self.inputs, self.labels[:, runs])


def gaussian_task(samples: int, dim: int, seed: int, teacher: Array | None = None) -> Task:
    """Draw z ~ N(0, I) and labels them by relu(w̃ᵀz).

    Args:
        samples: n.
        dim: d.
        seed: of the data.
        teacher: (d, R) or (d, 1), the w̃ (ã = 1). The default is the paper's (1, 0, …, 0).
    """
    inputs = np.random.default_rng((seed, samples, dim)).standard_normal((samples, dim))
    if teacher is None:
        teacher = np.eye(dim, 1)
    return Task(inputs, np.maximum(inputs @ teacher, 0.0))


def balanced(weights: Array, sign: float) -> Array:
    """Add a = sign·‖w‖, for a sign of ±1 the balanced initialisation, to weights (d, R)."""
    return np.concatenate([sign * np.linalg.norm(weights, axis=0, keepdims=True), weights])


def draw_case(case: str, dim: int, runs: int, seed: int, scale: float = 1.0) -> Array:
    """Draw balanced initialisations of one sign case: w ~ N(0, scale²·I) and a = ±‖w‖.

    Args:
        case: a key of `CASES`.
        dim: d.
        runs: R.
        seed: of the draw; the same seed gives every case the same magnitudes.
        scale: standard deviation of w.

    Returns:
        (1 + d, R).
    """
    a_sign, w_sign = CASES[case]
    weights = scale * np.random.default_rng(seed).standard_normal((dim, runs))
    weights[0] = w_sign * np.abs(weights[0])
    return balanced(weights, a_sign)


def draw_cases(dim: int, runs: int, seed: int) -> Array:
    """Draw `runs` balanced initialisations of every sign case, side by side as in `CASES`."""
    return np.concatenate([draw_case(case, dim, runs, seed) for case in CASES], axis=1)


def by_case(values: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Return the runs of each sign case of what began at `draw_cases`; runs are the last axis."""
    return dict(zip(CASES, np.split(values, len(CASES), axis=-1), strict=True))


def losses(state: Array, task: Task, block: int = 256) -> Array:
    """Return half the mean squared error of every run, (R,); infinity for a run that diverged."""
    found = []
    for begin in range(0, state.shape[1], block):
        part = slice(begin, begin + block)
        labels = task.labels if task.labels.shape[1] == 1 else task.labels[:, part]
        with np.errstate(over="ignore", invalid="ignore"):
            hidden = np.maximum(task.inputs @ state[1:, part], 0.0)
            found.append(0.5 * np.square(state[0, part] * hidden - labels).mean(axis=0))
    loss = np.concatenate(found)
    loss[~np.isfinite(loss)] = np.inf
    return loss


def beyond_teaching(state: Array, task: Task) -> NDArray[np.bool_]:
    """Mark the runs whose neuron is inactive wherever the teacher is active.

    There the teacher contributes nothing to the gradient: the loss is ½·mean(y²) + ½·mean(f²), and
    the flow can only shrink the student. The w of such runs form an open cone around −w̃ that is
    the wider the fewer samples there are.

    Returns:
        (R,), True for runs in that cone.
    """
    finite = np.isfinite(state).all(axis=0)
    active = task.inputs @ np.where(finite, state[1:], 0.0) > 0
    silent: NDArray[np.bool_] = finite & ~np.any(active & (task.labels > 0), axis=0)
    return silent
