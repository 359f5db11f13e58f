"""Mean and spread over seeds, and the two ways of choosing a point of a grid."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from benchmarks.papers.signs.config import Perturbation, RunConfig

Result = dict[str, Any]
# The order of the papers' tables.
STRATEGIES = ("gradual", "mask0", "mask1", "standard")
_VARIED = ("seed", "strategy", "perturbation")


@dataclass(frozen=True)
class Estimate:
    """Mean over seeds; the sample standard deviation needs two of them."""

    mean: float
    std: float | None
    count: int

    def __str__(self) -> str:
        return f"{self.mean:.2f}" if self.std is None else f"{self.mean:.2f} ± {self.std:.2f}"


@dataclass(frozen=True)
class Sweep:
    """Runs that differ in strategy, one perturbation and seed, and in nothing else.

    Attributes:
        kind: `epsilon`, `delta`, `phi`, `combined`, or `unperturbed` where nothing was perturbed.
        points: The perturbations, in the order of their values.
        strategies: The strategies that have results.
        cells: Results of each strategy and point, one per seed.
    """

    kind: str
    points: tuple[Perturbation, ...]
    strategies: tuple[str, ...]
    cells: dict[tuple[str, Perturbation], list[Result]]

    def results(self, strategy: str, point: Perturbation) -> list[Result]:
        """Results of all seeds."""
        return self.cells.get((strategy, point), [])

    def value(self, point: Perturbation) -> float:
        """The perturbation's size; zero for the unperturbed runs."""
        return sum(size for _, size in point)

    def final(self, strategy: str, point: Perturbation, key: str) -> Estimate | None:
        """Estimate of `test_accuracy` or `val_accuracy` after the last round."""
        return estimate(result["final"][key] for result in self.results(strategy, point))

    def best(self, strategy: str, key: str) -> Perturbation | None:
        """The point with the highest mean; of equals the smallest perturbation.

        None where there is no value.
        """
        estimates = {point: self.final(strategy, point, key) for point in self.points}
        known = {point: found.mean for point, found in estimates.items() if found is not None}
        if not known:
            return None
        return max(known, key=lambda point: (known[point], -sum(abs(size) for _, size in point)))


def estimate(values: Iterable[float | None]) -> Estimate | None:
    """Mean and sample standard deviation; None where nothing was measured."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    return Estimate(fmean(known), stdev(known) if len(known) > 1 else None, len(known))


def same_settings(results: Iterable[Result]) -> list[list[Result]]:
    """Groups results by all settings but seed, strategy and perturbation."""
    groups: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        shared = {key: value for key, value in result["config"].items() if key not in _VARIED}
        groups[json.dumps(shared, sort_keys=True)].append(result)
    return list(groups.values())


def sweeps(results: Sequence[Result]) -> list[Sweep]:
    """Sorts the results of one group into sweeps; unperturbed runs are the zero of every sweep."""
    cells: dict[tuple[str, Perturbation], list[Result]] = defaultdict(list)
    for result in results:
        config = RunConfig.from_json(result["config"])
        cells[config.strategy, config.perturbation].append(result)
    points = {point for _, point in cells}
    found = []
    for kind in ("epsilon", "delta", "phi"):
        alone = {point for point in points if len(point) == 1 and point[0][0] == kind}
        if alone:
            found.append(_sweep(kind, alone | (points & {()}), cells))
    together = {point for point in points if len(point) > 1}
    if together:
        found.append(_sweep("combined", together, cells))
    return found or [_sweep("unperturbed", points, cells)]


def _sweep(
    kind: str,
    points: set[Perturbation],
    cells: dict[tuple[str, Perturbation], list[Result]],
) -> Sweep:
    mine = {key: runs for key, runs in cells.items() if key[1] in points}
    ordered = tuple(sorted(points, key=lambda point: tuple(size for _, size in point) or (0.0,)))
    present = {strategy for strategy, _ in mine}
    return Sweep(kind, ordered, tuple(s for s in STRATEGIES if s in present), mine)
