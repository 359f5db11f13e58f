"""Learning rate schedules as factors of the peak rate, one per step, for `LambdaLR`.

Each is a function of the number of steps taken so far, made for a known total.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import get_args

from .names import ScheduleName

Schedule = Callable[[int], float]
SCHEDULES: tuple[str, ...] = get_args(ScheduleName)


def constant() -> Schedule:
    """Keep the peak rate throughout."""
    return lambda step: 1.0


def triangular(
    steps: int, *, start: float = 0.2, peak_at: float = 0.2, end: float = 0.0
) -> Schedule:
    """Rise from `start` to 1 at the fraction `peak_at` of all steps, then fall to `end`, linearly.

    The Sign-In paper says "triangular" and gives no corners. The defaults are those of the public
    code that its harness resembles (TurboPrune): 0.2 at the first step, 1 after a fifth, 0 at the
    end.

    Args:
        steps: steps of the whole training.
        start: factor at step 0.
        peak_at: fraction of the steps at which the factor is 1, in [0, 1).
        end: factor after the last step.
    """
    if not 0 <= peak_at < 1:
        raise ValueError(f"peak_at is a fraction in [0, 1), not {peak_at}")
    # A whole number of steps, so that one step has the peak rate.
    peak = int(peak_at * _checked(steps))
    return _piecewise([(0, start if peak else 1.0), (peak, 1.0), (steps, end)])


def multistep(
    steps: int, *, milestones: Sequence[float] = (0.5, 0.75), gamma: float = 0.1
) -> Schedule:
    """Multiply the rate by `gamma` at each of the fractions `milestones` of all steps."""
    borders = [round(fraction * _checked(steps)) for fraction in milestones]
    return lambda step: gamma ** sum(step >= border for border in borders)


def cosine(steps: int, *, end: float = 0.0) -> Schedule:
    """Follow half a cosine from 1 at the first step to `end` after the last."""
    _checked(steps)

    def factor(step: int) -> float:
        angle = math.pi * min(step, steps) / steps
        return end + (1 - end) * (1 + math.cos(angle)) / 2

    return factor


def make_schedule(name: str, steps: int, *, end: float = 0.0) -> Schedule:
    """Return the schedule of a name, with its default corners.

    Args:
        name: one of `SCHEDULES`.
        steps: steps of the whole training.
        end: factor after the last step, for `triangular` and `cosine`.
    """
    if name == "constant":
        return constant()
    if name == "triangular":
        return triangular(steps, end=end)
    if name == "multistep":
        return multistep(steps)
    if name == "cosine":
        return cosine(steps, end=end)
    raise ValueError(f"unknown schedule {name!r}; known are {', '.join(SCHEDULES)}")


def _piecewise(corners: Sequence[tuple[int, float]]) -> Schedule:
    def factor(step: int) -> float:
        for (left, low), (right, high) in pairwise(corners):
            if left <= step < right:
                return low + (high - low) * (step - left) / (right - left)
        return corners[-1][1]

    return factor


def _checked(steps: int) -> int:
    if steps < 1:
        raise ValueError(f"a schedule needs at least one step, not {steps}")
    return steps
