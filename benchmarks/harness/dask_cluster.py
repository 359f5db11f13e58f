"""A Dask cluster: joblib's backend on its scheduler, and the withdrawal of an interrupted sweep."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any

import distributed
from joblib._dask import DaskDistributedBackend

from .workers import Ended

_SECONDS_TO_ANSWER = 10
_SECONDS_TO_JOIN = 60
_SECONDS_TO_RESTART = 30


class DaskBackend(DaskDistributedBackend):  # type: ignore[misc]
    """joblib's backend, which also works with one worker and tells of a run that killed several."""

    def effective_n_jobs(self, n_jobs: int) -> int:
        """Return how many items to prepare: those asked for, however many workers there are now.

        joblib's own counts cores, and with a single one it would work in this process.
        """
        return max(2, n_jobs)

    def submit(self, func: Any, callback: Callable[[Any], None] | None = None) -> Future[Any]:
        """Submit one item; Dask gives it to another worker where its worker is lost.

        joblib hears of results alone. Where Dask gives up, as it does after several lost workers,
        or the item cannot be read by a worker, joblib would wait for ever.
        """
        future: Future[Any] = super().submit(func, callback)

        def tell(ended: Future[Any]) -> None:
            if callback is not None and (error := ended.exception()) is not None:
                text = "".join(traceback.format_exception(error))
                callback([Ended(args[1], failure=text) for _, args, _ in func.items])

        future.add_done_callback(tell)
        return future


@contextmanager
def connected(scheduler: str) -> Iterator[DaskBackend]:
    """Connect to a scheduler for a sweep.

    Args:
        scheduler: its address, such as `tcp://127.0.0.1:8786`.

    Raises:
        ValueError: none answers, it has no workers, or workers have several threads.
    """
    try:
        client = distributed.Client(scheduler, timeout=_SECONDS_TO_ANSWER, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"--scheduler {scheduler}: no Dask scheduler answers ({error})") from None
    with client:
        try:
            client.wait_for_workers(1, timeout=_SECONDS_TO_JOIN)
        except TimeoutError:
            raise ValueError(
                f"--scheduler {scheduler}: no worker has joined it in {_SECONDS_TO_JOIN} seconds; "
                f"start some: dask worker {scheduler} --nthreads 1 --nworkers 2"
            ) from None
        if several := [name for name, threads in client.nthreads().items() if threads > 1]:
            raise ValueError(
                f"--scheduler {scheduler}: worker {several[0]} has several threads, and a process "
                "performs one run at a time; start workers with --nthreads 1"
            )
        try:
            yield DaskBackend(client=client)
        finally:
            # An address that no longer answers has nothing left to withdraw.
            with suppress(OSError):
                _withdraw(client)


def _withdraw(client: distributed.Client) -> None:
    """Withdraw what waits, and restart the workers that are at runs of this sweep.

    Dask cannot stop what is under way; such a run would hold its worker for hours.
    """
    mine = set(client.futures)
    busy = [worker for worker, keys in client.processing().items() if mine & set(keys)]
    client.cancel([distributed.Future(key, client) for key in mine])
    if not busy:
        return
    try:
        client.restart_workers(busy, timeout=_SECONDS_TO_RESTART, raise_for_error=False)
    except ValueError as error:
        # Workers without a nanny: no one would start them again.
        print(f"runs that are under way go on to their end: {error}", file=sys.stderr)
