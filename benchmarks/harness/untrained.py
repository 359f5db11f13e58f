"""Results that need neither training nor data: one file each, finished ones are skipped."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from .committed import found_result
from .place import Place
from .progress import Progress
from .results import Settings, new_result, now, result_path, write_result
from .sweep import Outcome, perform_pending

Config = TypeVar("Config", bound=Settings)


def compute(
    configs: Sequence[Config], place: Place, measure: Callable[[Config], dict[str, Any]]
) -> list[Outcome]:
    """Compute the results that are missing.

    Args:
        configs: their settings.
        place: where and how they are computed; one thread each unless it says another number.
        measure: returns what a result holds; a function of a module, for processes of their own.

    Returns:
        Outcomes of those that were computed, the failed ones among them.
    """
    return perform_pending(
        configs,
        # A line per result takes the place of the bars, which show accuracies.
        replace(place, quiet=True),
        finished=lambda config: found_result(place.out, config) is not None,
        check=lambda first: None,
        complete=_Complete(measure, place.quiet),
        threads=place.threads or 1,
    )


@dataclass(frozen=True)
class _Complete(Generic[Config]):
    """Compute a result and write its file."""

    measure: Callable[[Config], dict[str, Any]]
    quiet: bool

    def __call__(self, config: Config, place: Place, bars: Progress | None) -> Outcome:
        started = now()
        content = self.measure(config)
        seconds = (now() - started).total_seconds()
        result = new_result(config, {"name": "none"}, content, started=started, seconds=seconds)
        write_result(result_path(place.out, config), result)
        if not self.quiet:
            print(f"{config.run_id} ({seconds:.0f} s)", file=sys.stderr, flush=True)
        return Outcome(config.run_id, seconds=seconds)
