"""Means and spreads over seeds, and results sorted by the settings that they share."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Any

from ..harness.results import Result
from .markdown import NONE


@dataclass(frozen=True)
class Estimate:
    """Mean over seeds; the sample standard deviation needs two of them."""

    mean: float
    std: float | None
    count: int
    values: tuple[float, ...] = field(default=(), compare=False)

    def __str__(self) -> str:
        return f"{self.mean:.2f}" if self.std is None else f"{self.mean:.2f} ± {self.std:.2f}"


def estimate(values: Iterable[float | None]) -> Estimate | None:
    """Return the mean and sample standard deviation; None where nothing was measured."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    std = stdev(known) if len(known) > 1 else None
    return Estimate(fmean(known), std, len(known), tuple(known))


def cell(found: Estimate | None, full: int = 0) -> str:
    """Show an estimate in a table; where seeds are missing, their number stands in brackets."""
    if found is None:
        return NONE
    return f"{found} ({found.count})" if found.count < full else str(found)


def percent(found: Estimate | None) -> str:
    """Show a fraction in percent, without its spread."""
    return NONE if found is None else f"{100 * found.mean:.1f} %"


def shared_settings(config: dict[str, Any], varied: Collection[str]) -> dict[str, Any]:
    """Leave out of a run's settings those that vary within a group."""
    return {key: value for key, value in config.items() if key not in varied}


def shared_key(config: dict[str, Any], varied: Collection[str]) -> str:
    """Write the settings that a group shares as JSON; equal for the same group alone."""
    return json.dumps(shared_settings(config, varied), sort_keys=True)


def same_settings(results: Iterable[Result], varied: Collection[str]) -> list[list[Result]]:
    """Group results by all settings but those that vary, in the order of their first results."""
    groups: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        groups[shared_key(result["config"], varied)].append(result)
    return list(groups.values())
