"""Work on the workers of a Dask or Ray cluster, through joblib's backends of these names."""

from __future__ import annotations

import os
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from joblib import Parallel, delayed

from .execution import without_denormals
from .instructions import INSTRUCTIONS, limit_to_avx2
from .results import COMMAND, versions
from .workers import Ended, attempt, threads_set

Item = TypeVar("Item")
Value = TypeVar("Value")

# A process has one stream of random numbers and one number of threads: those of a single run.
_alone = threading.Lock()


@dataclass(frozen=True)
class Terms:
    """What a worker must have in common with the process that started the sweep.

    Attributes:
        threads: threads of one run.
        variables: of the environment: the command line that results state, and the instructions.
        versions: of everything that takes part in the arithmetic.
    """

    threads: int
    variables: dict[str, str]
    versions: dict[str, str]

    @classmethod
    def of_this_process(cls, threads: int) -> Terms:
        names = (COMMAND, *INSTRUCTIONS)
        variables = {name: os.environ[name] for name in names if name in os.environ}
        return cls(threads, variables, versions())

    def accept(self) -> None:
        """Make them hold in this process.

        Raises:
            ValueError: they cannot hold here.
        """
        here = versions()
        if differing := [name for name in here if here[name] != self.versions.get(name)]:
            has = ", ".join(f"{name} {here[name]}" for name in differing)
            needs = ", ".join(f"{name} {self.versions.get(name)}" for name in differing)
            raise ValueError(
                f"the worker has {has}, and the sweep was started with {needs}: install the same "
                "on all machines"
            )
        wanted = {name: self.variables[name] for name in INSTRUCTIONS if name in self.variables}
        if wanted == INSTRUCTIONS:
            limit_to_avx2()
        found = {name: os.environ[name] for name in INSTRUCTIONS if name in os.environ}
        if found != wanted:
            raise ValueError(
                f"the worker computes under {found or 'no limit of instructions'}, and the sweep "
                f"was started under {wanted or 'none'}: start the workers again"
            )
        if COMMAND in self.variables:
            os.environ[COMMAND] = self.variables[COMMAND]


def perform_on_cluster(
    work: Callable[[Item], Value],
    items: Sequence[Item],
    *,
    backend: str,
    scheduler: str,
    jobs: int,
    threads: int | None,
) -> Iterator[Ended[Item, Value]]:
    """Work on every item on a cluster, and yield how each ended as soon as it has ended.

    Workers begin an item under the terms of this process: versions, instructions, number of
    threads, no denormal numbers. One item at a time is worked on in a process.

    Args:
        work: called with each item; both are pickled. An exception becomes the `failure` of its
            end and does not affect the other items.
        items: what to work on, in the order in which work begins.
        backend: `dask` or `ray`.
        scheduler: address of the cluster.
        jobs: items that are worked on at once.
        threads: threads of one item; 1 by default. It does not follow the cores of a machine: the
            last bits of a result depend on it.

    Yields:
        One end per item; an end without an item if the cluster broke, which ends the sweep.

    Raises:
        ValueError: no cluster that can be worked on is at the address.
    """
    if backend == "dask":
        from .dask_cluster import connected
    else:
        from .ray_cluster import connected
    terms = Terms.of_this_process(threads or 1)
    with connected(scheduler) as engine:
        # One item a batch: what is lost with a worker, and begun again, is one item.
        how: dict[str, Any] = {"pre_dispatch": jobs, "batch_size": 1}
        pool = Parallel(n_jobs=jobs, backend=engine, return_as="generator_unordered", **how)
        try:
            yield from pool(delayed(_on_worker)(work, item, terms) for item in items)
        except Exception:
            yield Ended(None, failure=traceback.format_exc())


def _on_worker(work: Callable[[Item], Value], item: Item, terms: Terms) -> Ended[Item, Value]:
    """Work on an item in a process that others may use before and after."""

    def under_terms(item: Item) -> Value:
        terms.accept()
        with threads_set(terms.threads), without_denormals():
            return work(item)

    with _alone:
        return attempt(under_terms, item)
