"""Results sorted into sweeps, and the two ways of choosing a point of a grid."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ...harness.results import Result
from ...pages.estimates import Estimate, estimate, same_settings
from ...pages.paired import Seeds
from .config import Perturbation, RunConfig

# The order of the papers' tables, and the control.
STRATEGIES = ("gradual", "mask0", "mask1", "standard", "rewind")
# What differs between the runs of one group. Devices round differently, which is one more of the
# many small draws that differ between seeds.
VARIED = ("seed", "strategy", "perturbation", "device")


@dataclass(frozen=True)
class Sweep:
    """Runs that differ in strategy, one perturbation and seed, and in nothing else.

    Attributes:
        kind: `epsilon`, `delta`, `delta_largest`, `phi`, `combined`, or `unperturbed` where nothing
            was perturbed.
        points: the perturbations, in the order of their values.
        strategies: the strategies that have results.
        cells: results of each strategy and point, one per seed.
    """

    kind: str
    points: tuple[Perturbation, ...]
    strategies: tuple[str, ...]
    cells: dict[tuple[str, Perturbation], list[Result]]

    def results(self, strategy: str, point: Perturbation) -> list[Result]:
        """Return the results of all seeds."""
        return self.cells.get((strategy, point), [])

    def value(self, point: Perturbation) -> float:
        """Return the perturbation's size; zero for the unperturbed runs."""
        return sum(size for _, size in point)

    def final(self, strategy: str, point: Perturbation, key: str) -> Estimate | None:
        """Return the estimate of `test_accuracy` or `val_accuracy` after the last round."""
        return estimate(result["final"][key] for result in self.results(strategy, point))

    def seeds(self, strategy: str, point: Perturbation) -> Seeds:
        """Return the final test accuracies of a strategy at a point, by seed."""
        return accuracies(self.results(strategy, point))

    def best(self, strategy: str, key: str, *, perturbed: bool = False) -> Perturbation | None:
        """Return the point with the highest mean; of equals the smallest perturbation.

        Points with fewer seeds than others are not chosen: a mean of fewer is high more often.

        Args:
            strategy: the strategy.
            key: `test_accuracy` or `val_accuracy`.
            perturbed: leave out the unperturbed runs.

        Returns:
            The point; None where there is no value.
        """
        known = self.comparable(strategy, key, perturbed=perturbed)
        if not known:
            return None
        return max(known, key=lambda point: (known[point], -sum(abs(size) for _, size in point)))

    def comparable(
        self, strategy: str, key: str, *, perturbed: bool = False
    ) -> dict[Perturbation, float]:
        """Return the means of the points with the most seeds, of which the best is one."""
        points = [point for point in self.points if point or not perturbed]
        estimates = {point: self.final(strategy, point, key) for point in points}
        full = max((found.count for found in estimates.values() if found is not None), default=0)
        return {
            point: found.mean
            for point, found in estimates.items()
            if found is not None and found.count == full
        }


def groups_of(results: Sequence[Result]) -> list[list[Result]]:
    """Group results that differ in strategy, perturbation, seed and device, and in nothing else.

    Of a run that two devices performed, the one counts whose device has more runs of the group.
    """
    found = []
    for group in same_settings(results, VARIED):
        often = Counter(result["config"]["device"] for result in group)
        last = {_run(each): each for each in sorted(group, key=lambda x: often[_device(x)])}
        found.append([each for each in group if last[_run(each)] is each])
    return found


def devices(group: Sequence[Result]) -> str:
    """Name the devices of a group's runs, and how many runs each performed if there are two."""
    counted = Counter(_device(result) for result in group)
    if len(counted) == 1:
        return next(iter(counted))
    return " and ".join(f"{name} ({count} runs)" for name, count in counted.most_common())


def _device(result: Result) -> str:
    return str(result["config"]["device"])


def _run(result: Result) -> tuple[str, ...]:
    """Return what tells the runs of a group apart, but for the device."""
    config = result["config"]
    return (config["strategy"], str(config["perturbation"]), str(config["seed"]))


def accuracies(results: Iterable[Result]) -> Seeds:
    """Return the final test accuracies of runs, by seed."""
    return {result["config"]["seed"]: result["final"]["test_accuracy"] for result in results}


def sweeps(results: Sequence[Result]) -> list[Sweep]:
    """Sort the results of one group into sweeps; unperturbed runs are the zero of every sweep."""
    cells: dict[tuple[str, Perturbation], list[Result]] = defaultdict(list)
    for result in results:
        config = RunConfig.from_json(result["config"])
        cells[config.strategy, config.perturbation].append(result)
    points = {point for _, point in cells}
    found = []
    for kind in ("epsilon", "delta", "delta_largest", "phi"):
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
