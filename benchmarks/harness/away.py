"""Runs on other machines: where they keep their files, and how results get back to the sweep."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Generic, TypeVar

from .cluster import perform_on_cluster
from .place import Place
from .results import Result, read_result, write_result
from .workers import Ended

Run = TypeVar("Run")
Value = TypeVar("Value")


@dataclass(frozen=True)
class Returned(Generic[Value]):
    """What comes back of a run: its value, and the results that its machine alone has."""

    value: Value
    results: dict[str, Result]


@dataclass(frozen=True)
class Away(Generic[Run, Value]):
    """Performs a run on a worker, in the sweep's folder where it is the worker's too.

    Attributes:
        complete: performs a run and writes its file, given the run, its place and no progress.
        place: the place of the sweep, with whole paths.
        mark: a file in the sweep's folder: a worker that finds it has the same folder.
    """

    complete: Callable[[Run, Place, None], Value]
    place: Place
    mark: Path

    def __call__(self, run: Run) -> Returned[Value]:
        if self.mark.exists():
            return Returned(self.complete(run, self.place, None), {})
        folder = Path(_own_folder(self.mark).name)
        value = self.complete(run, replace(self.place, out=folder), None)
        results = {}
        for path in folder.glob("*.json"):
            results[path.name] = read_result(path)
            path.unlink()
        return Returned(value, results)


@lru_cache(maxsize=1)
def _own_folder(mark: Path) -> tempfile.TemporaryDirectory[str]:
    """Return the folder of this process for a sweep; it goes with the process or the next sweep."""
    return tempfile.TemporaryDirectory(prefix="polarity-sweep-")


def perform_away(
    complete: Callable[[Run, Place, None], Value],
    runs: Sequence[Run],
    place: Place,
    *,
    threads: int | None,
) -> Iterator[Ended[Run, Value]]:
    """Perform runs on a cluster, and yield how each ended once its results are in the folder.

    Args:
        complete: performs a run and writes its file.
        runs: in the order in which they begin.
        place: where results go, and which cluster works.
        threads: threads of one run; 1 by default.
    """
    with _marked(place.out) as mark:
        root = None if place.data_root is None else place.data_root.absolute()
        # Workers of one machine would download into one folder at once.
        theirs = replace(place, out=mark.parent, data_root=root, download=False)
        for end in perform_on_cluster(
            Away(complete, theirs, mark),
            runs,
            backend=place.backend,
            scheduler=str(place.scheduler),
            jobs=place.jobs,
            threads=threads,
        ):
            if end.value is None:
                yield Ended(end.item, failure=end.failure)
                continue
            for name, result in end.value.results.items():
                write_result(place.out / Path(name).name, result)
            yield Ended(end.item, end.value.value)


@contextmanager
def _marked(out: Path) -> Iterator[Path]:
    """Keep a file of a name that is nowhere else in a folder, which is made where it is missing."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(prefix=".sweep-", dir=out.absolute()) as mark:
        yield Path(mark.name)
