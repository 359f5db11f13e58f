"""Many runs, one result file each: finished ones are skipped, a failing one ends alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

from .place import Place, forget_dataset
from .progress import Progress
from .workers import Ended, perform


class Named(Protocol):
    """Work of a sweep: one run, or several that need each other."""

    @property
    def run_id(self) -> str: ...


Run = TypeVar("Run", bound=Named)


@dataclass(frozen=True)
class Outcome:
    """How a run ended: with a test accuracy, or with a traceback."""

    run_id: str
    test_accuracy: float | None = None
    seconds: float = 0.0
    failure: str | None = None

    @property
    def ended(self) -> str:
        """How it ended, for the progress."""
        if self.failure is not None:
            return "failed"
        if self.test_accuracy is None:
            return "done"
        return f"{self.test_accuracy:.2f} % ({self.seconds:.0f} s)"


def perform_pending(
    configs: Sequence[Run],
    place: Place,
    *,
    finished: Callable[[Run], bool],
    check: Callable[[Run], object],
    complete: Callable[[Run, Place, Progress | None], Outcome],
    threads: int | None,
) -> list[Outcome]:
    """Perform the runs that are not finished.

    Args:
        configs: the runs.
        place: where results go and data comes from, who works, and on how many runs at once.
        finished: whether a run has its result already.
        check: called with the first of them before anything is trained; raises where its data is
            missing or does not fit its network. It downloads once instead of in every process.
        complete: performs a run and writes its file. It gets the progress bars, or None in a
            process of its own.
        threads: threads of one run; None divides the cores among the jobs.

    Returns:
        Outcomes of the runs that were performed, the failed ones among them.
    """
    pending = [config for config in configs if not finished(config)]
    if not pending:
        return []
    check(pending[0])
    alone = place.jobs == 1 and not place.on_cluster
    if not alone:
        forget_dataset()  # every worker holds its own
    outcomes = []
    done = len(configs) - len(pending)
    with Progress(len(configs), done, nested=alone, quiet=place.quiet) as bars:
        if place.on_cluster:
            # Not before here: it brings a package that this machine alone does not need.
            from .away import perform_away

            ends = perform_away(complete, pending, place, threads=threads)
        else:
            work = partial(complete, place=place, bars=bars if alone else None)
            ends = perform(work, pending, jobs=place.jobs, threads=threads)
        # Closed at once where it is interrupted: a cluster is told then.
        with closing(ends):
            for end in ends:
                outcome = outcome_of(end)
                outcomes.append(outcome)
                bars.finished(outcome.run_id, outcome.ended)
    return outcomes


def outcome_of(end: Ended[Any, Outcome]) -> Outcome:
    """Return the outcome of a run that ended by itself or by an exception."""
    if end.value is not None:
        return end.value
    # A worker that is killed (memory) takes its pool along; what is on disk stays.
    name = "the pool of processes" if end.item is None else end.item.run_id
    return Outcome(name, failure=end.failure)
