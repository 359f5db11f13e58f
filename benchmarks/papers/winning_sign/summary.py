"""Results sorted for tables and figures: who, at which round, over which seeds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import polarity as pol

from ...harness.results import Result
from ...pages.estimates import Estimate, estimate, same_settings, shared_key
from ...pages.section import seeds

# What differs between the runs of one setting.
_VARIED = ("seed", "kind", "subject", "round", "order", "score_lr", "score_penalty")


@dataclass(frozen=True)
class Outcomes:
    """The runs of one setting: one data set, network and recipe, any number of seeds.

    Attributes:
        results: all of them.
    """

    results: Sequence[Result]

    @property
    def config(self) -> dict[str, Any]:
        """Settings that all share."""
        shared: dict[str, Any] = self.results[0]["config"]
        return shared

    @property
    def shared(self) -> str:
        """The settings that all runs share, as JSON."""
        return shared_key(self.config, _VARIED)

    @property
    def arch(self) -> str:
        """Name of the network."""
        return str(self.config["recipe"]["arch"])

    @property
    def dataset(self) -> str:
        """Name of the data set."""
        return str(self.config["recipe"]["dataset"])

    @property
    def seeds(self) -> list[int]:
        """Every seed that has a result."""
        return seeds(self.results)

    @property
    def rounds(self) -> list[int]:
        """Rounds with finally trained tickets, densest first."""
        finals = [r["config"] for r in self.results if r["config"]["kind"] == "final"]
        return sorted({config["round"] for config in finals if config["round"]})

    @property
    def barrier_round(self) -> int | None:
        """The round of the barriers."""
        configs = [r["config"] for r in self.results if r["config"]["kind"] == "barrier"]
        return max((config["round"] for config in configs), default=None)

    def runs(self, kind: str, subject: str, round: int | None = None) -> dict[int, Result]:
        """Return the results by seed, those of the first SGD noise."""
        return {
            r["config"]["seed"]: r
            for r in self.results
            if (r["config"]["kind"], r["config"]["subject"]) == (kind, subject)
            and r["config"]["order"] == 0
            and (round is None or r["config"]["round"] == round)
        }

    def accuracy(self, name: str, round: int) -> Estimate | None:
        """Return the final test accuracy of a contestant."""
        place = 0 if name == "dense" else round
        return estimate(r["test_accuracy"] for r in self.runs("final", name, place).values())

    def difference(self, one: str, other: str, round: int) -> Estimate | None:
        """Return the mean and spread of the difference of two contestants, seed by seed."""
        pair = [self.runs("final", n, 0 if n == "dense" else round) for n in (one, other)]
        shared = sorted(pair[0].keys() & pair[1].keys())
        return estimate(pair[0][s]["test_accuracy"] - pair[1][s]["test_accuracy"] for s in shared)

    def density(self, round: int) -> float:
        """Return the remaining ratio of a round, as it was counted."""
        finals = (r for r in self.results if r["config"]["kind"] == "final")
        densities = (
            r["density"]
            for r in finals
            if r["config"]["round"] == round and r["config"]["subject"] != "dense_longer"
        )
        return next(densities, (1 - self.config["recipe"]["amount"]) ** round)

    def barrier(self, pair: str) -> Estimate | None:
        """Return the error barrier of a pair, in points of test error."""
        return estimate(r["barrier"] for r in self.runs("barrier", pair).values())

    def curve(self, pair: str) -> tuple[list[float], list[Estimate]] | None:
        """Return the points α and the test error above the mean of the ends at each."""
        paths = self.paths(pair)
        if not paths:
            return None
        found = [estimate(column) for column in zip(*(p.excess for p in paths), strict=True)]
        return list(paths[0].alphas), [each for each in found if each is not None]

    def paths(self, pair: str) -> list[pol.ErrorBarrier]:
        """Return the paths of a pair, seed by seed; the mean of the ends is already 0."""
        runs = self.runs("barrier", pair).values()
        return [pol.ErrorBarrier(tuple(run["alphas"]), tuple(run["excess"])) for run in runs]


def settings(results: Iterable[Result]) -> list[Outcomes]:
    """Group results by everything but seed and what is computed."""
    return [Outcomes(group) for group in same_settings(results, _VARIED)]
