"""What the best of several equal runs gains by chance: the measure of every "best over a grid"."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

_DRAWS = 200_000


@dataclass(frozen=True)
class ByChance:
    """How much the best of several equal points is above one that is named beforehand.

    Attributes:
        median: half of all experiments in which nothing acts gain less.
        high: 95 % of them gain less.
    """

    median: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} in the median, up to {self.high:.2f} (95 %)"


def best_by_chance(points: int, std: float) -> ByChance:
    """Return what the best of a grid gains over its point zero if no point does anything.

    Args:
        points: grid points, zero among them.
        std: standard deviation of the mean of a point.
    """
    median, high = _quantiles(points)
    return ByChance(std * median, std * high)


@cache
def _quantiles(points: int) -> tuple[float, float]:
    draw = np.random.default_rng(0).standard_normal((_DRAWS, points))
    gains = draw.max(axis=1) - draw[:, 0]
    median, high = np.quantile(gains, (0.5, 0.95))
    return float(median), float(high)
