"""Eq. (4): with one scaling for all, Sign-In moves a faster than w, on average over its entries.

In the flow of Sign-In every parameter θ moves at its gradient times a factor: √(θ² + β) as Eq. (1)
prints it, √(4θ² + β²) exactly, for m·v with m² − v² = β. From a balanced start, a² = ‖w‖², Eq. (4)
compares the factor of a with the mean of those of w. Their ratio is

    ρ = √(a² + β) / mean over k of √(wₖ² + β),

at least 1 as long as |a| ≥ |wₖ| for all k. For w ~ N(0, I) with d entries both expectations are
known. With U Tricomi's function,

    E √(‖w‖² + β) = 2^(−d/2) β^((d+1)/2) U(d/2, (d+3)/2, β/2),

and E √(wₖ² + β) is the same at d = 1. The exact factor is twice the printed one at β²/4.

How fast a² and ‖w‖² really change follows from L's homogeneity, a·∂L/∂a = Σ wₖ·∂L/∂wₖ: they change
by −2·f(a)·Σ wₖgₖ and −2·Σ f(wₖ)·wₖgₖ. Where all wₖgₖ have one sign, the second has a weighted mean
of the factors of w in place of the mean.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .config import DIM, LR, RUNS, SAMPLES
from .dynamics import ActiveMoments, descend
from .neuron import Array, Task, gaussian_task
from .records import Record, count, rounded
from .single_neuron import negative_a

DIMS = (1, 2, 3, 5, 10, 20)
BETAS = (0.1, 1.0, 10.0)
# Paths that are stored for the figure.
_SHOWN = 12

# The factor of a parameter in the flow, of θ and β.
FACTORS: dict[str, Callable[[Array, float], Array]] = {
    "printed": lambda theta, beta: np.sqrt(np.square(theta) + beta),
    "exact": lambda theta, beta: np.hypot(2.0 * theta, beta),
}


def expected_factor(factor: str, dim: int, beta: float) -> float:
    """Return the expectation of the factor of ‖w‖ for w ~ N(0, I) with `dim` entries."""
    from scipy.special import hyperu  # type: ignore[import-untyped]

    if factor == "exact":
        return 2.0 * expected_factor("printed", dim, 0.25 * beta**2)
    tricomi = float(hyperu(0.5 * dim, 0.5 * (dim + 3), 0.5 * beta))
    return 2.0 ** (-0.5 * dim) * beta ** (0.5 * (dim + 1)) * tricomi


def ratios(state: Array, factor: str, beta: float) -> Array:
    """Return ρ of every run: its factor of a over the mean of its factors of w.

    Args:
        state: (1 + d, R), a in row 0.
        factor: a key of `FACTORS`.
        beta: the scaling of all parameters.
    """
    of = FACTORS[factor](state, beta)
    return np.asarray(of[0] / of[1:].mean(axis=0))


def faster(state: Array, task: Task, factor: str, beta: float) -> NDArray[np.bool_]:
    """Mark the runs in which a² changes faster than ‖w‖² in the flow."""
    pull = ActiveMoments(task, state[1:]).pull(state[0], state[1:], np.empty_like(state[1:]))
    each = state[1:] * state[0] * pull
    of = FACTORS[factor](state, beta)
    return np.asarray(np.abs(of[0] * each.sum(axis=0)) > np.abs((of[1:] * each).sum(axis=0)))


def equation4(quick: bool) -> Record:
    """Compare both sides at balanced starts, and along the way to the sign flip of a."""
    runs, steps = (10, 1000) if quick else (RUNS, 20_000)
    starts = 200 if quick else 10_000
    settings = {"starts": starts, "runs": runs, "steps": steps, "lr": LR, "samples": SAMPLES}
    return {
        "settings": {**settings, "dim": DIM, "beta": 1.0, "data_seed": 0, "start_seed": 1},
        "starts": [
            _at_starts(factor, dim, beta, starts)
            for factor in FACTORS
            for beta in BETAS
            for dim in DIMS
        ],
        **_on_the_way(runs, steps),
    }


def _at_starts(factor: str, dim: int, beta: float, runs: int) -> Record:
    start = negative_a(runs, seed=1, dim=dim)
    of, ratio = FACTORS[factor](start, beta), ratios(start, factor, beta)
    # For d = 1 both sides are one number.
    moves = faster(start, gaussian_task(SAMPLES, dim, seed=0), factor, beta)
    return {
        "factor": factor,
        "dim": dim,
        "beta": beta,
        "holds": count(ratio >= 1.0),
        "least": float(ratio.min()),
        "greatest": float(ratio.max()),
        "mean_a": float(of[0].mean()),
        "mean_w": float(of[1:].mean()),
        "expected_a": expected_factor(factor, dim, beta),
        "expected_w": expected_factor(factor, 1, beta),
        "faster": count(moves),
    }


def _on_the_way(runs: int, steps: int) -> Record:
    """Follow Sign-In with five inputs and β = 1 from a < 0 until a is positive."""
    task, start = gaussian_task(SAMPLES, DIM, seed=0), negative_a(runs, seed=1)
    record = np.unique(np.concatenate([[0], np.geomspace(1, steps, 400).astype(int)])).tolist()
    states = descend(start, task, lr=LR, steps=steps, beta=(1.0, 1.0), record=record)
    plain = descend(start, task, lr=LR, steps=steps, record=record)
    flipped = states[:, 0] > 0
    crosses = flipped.any(axis=0)
    # The last state before the flip; the last of all where there is none.
    last = np.where(crosses, flipped.argmax(axis=0) - 1, len(record) - 1)
    before = states[last, :, np.arange(runs)].T
    ratio = np.stack([ratios(state, "exact", 1.0) for state in states])
    reversed_ = np.array([(ratio[: stop + 1, run] < 1).any() for run, stop in enumerate(last)])
    balance = np.abs(np.square(plain[:, 0]) - np.square(plain[:, 1:]).sum(axis=1))
    return {
        "flips": count(crosses),
        "flips_plain": count((plain[:, 0] > 0).any(axis=0)),
        "reversed_before": count(reversed_[crosses]) if crosses.any() else None,
        "norm_at_flip": rounded(np.linalg.norm(before[1:, crosses], axis=0)),
        "ratio_at_flip": rounded(ratio[last, np.arange(runs)][crosses]),
        "imbalance_plain": float(balance.max()),
        "paths": [
            {
                "a": rounded(states[: last[run] + 2, 0, run]),
                "norm": rounded(np.linalg.norm(states[: last[run] + 2, 1:, run], axis=1)),
                "ratio": rounded(ratio[: last[run] + 2, run]),
            }
            for run in np.flatnonzero(crosses)[:_SHOWN].tolist()
        ],
    }
