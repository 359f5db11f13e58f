"""Work in several processes, each on its own share of the cores."""

from __future__ import annotations

import os
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, Generic, TypeVar

import joblib
import torch
from joblib import Parallel, delayed

Item = TypeVar("Item")
Value = TypeVar("Value")

_ORPHAN_CHECK_SECONDS = 1.0
_SEAT_WAIT_SECONDS = 5.0


@dataclass(frozen=True)
class Ended(Generic[Item, Value]):
    """How one piece of work ended: with a value, or with a traceback.

    Attributes:
        item: the item; None if the pool of processes itself broke.
        value: what the work returned.
        failure: traceback of the exception that ended it.
    """

    item: Item | None
    value: Value | None = None
    failure: str | None = None


@dataclass(frozen=True)
class Plan:
    """How workers share a machine.

    Attributes:
        shares: the cores of each worker, disjoint; empty if workers are not pinned.
        allowed: cores that all workers together may use; empty if the system does not say.
        threads: threads of one worker, the same for all: the last bits of a result depend on the
            number of threads, and must not depend on which worker took the work.
    """

    shares: tuple[tuple[int, ...], ...]
    allowed: tuple[int, ...]
    threads: int


def perform(
    work: Callable[[Item], Value],
    items: Sequence[Item],
    *,
    jobs: int = 1,
    threads: int | None = None,
) -> Iterator[Ended[Item, Value]]:
    """Work on every item, and yield how each ended as soon as it has ended.

    Two or more jobs are processes, each pinned to its share of the cores that this process may use:
    threads of two pinned processes never wait for each other, so two cores are twice as fast as
    one. With fewer cores than jobs, or on systems that cannot pin (macOS, Windows), no process is
    pinned. Workers end themselves soon after this process has died.

    Args:
        work: called with each item; pickled with it for other processes. An exception becomes the
            `failure` of its end and does not affect the other items.
        items: what to work on, in the order in which work begins.
        jobs: processes that work at once; 1 works in this process.
        threads: threads of one worker; an equal share of the cores by default.

    Yields:
        One end per item; an end without an item if a worker was killed, which ends the pool.
    """
    shared = plan(jobs, threads)
    if jobs == 1:
        with threads_set(shared.threads):
            yield from (attempt(work, item) for item in items)
        return
    with tempfile.NamedTemporaryFile(prefix="polarity-workers-") as seats:
        # Unordered, so that a slow run does not hold back the news of quick ones.
        pool = Parallel(n_jobs=jobs, return_as="generator_unordered", pre_dispatch="n_jobs")
        try:
            ends: Iterable[Ended[Item, Value]] = pool(
                delayed(_in_worker)(work, item, shared, Path(seats.name), os.getpid())
                for item in items
            )
            yield from ends
        except Exception:
            yield Ended(None, failure=traceback.format_exc())


def plan(jobs: int, threads: int | None = None) -> Plan:
    """Divide the cores that this process may use among its workers.

    Args:
        jobs: number of workers.
        threads: threads of one worker; an equal share of the cores by default.
    """
    allowed = _allowed()
    share = max(1, joblib.cpu_count() // jobs)
    pinned = jobs > 1 and len(allowed) >= jobs
    return Plan(split(allowed, jobs) if pinned else (), allowed, threads or share)


def split(cores: Sequence[int], parts: int) -> tuple[tuple[int, ...], ...]:
    """Give each of `parts` workers neighbouring cores; the first ones get one more each.

    Args:
        cores: at least as many as parts.
        parts: number of workers.

    Returns:
        Disjoint shares that hold all cores and differ in size by one at most.
    """
    borders = [-(-len(cores) * part // parts) for part in range(parts + 1)]
    return tuple(tuple(cores[a:b]) for a, b in pairwise(borders))


def _allowed() -> tuple[int, ...]:
    if not hasattr(os, "sched_getaffinity"):
        return ()
    return tuple(sorted(os.sched_getaffinity(0)))


def attempt(work: Callable[[Item], Value], item: Item) -> Ended[Item, Value]:
    """Work on an item; an exception becomes the failure of its end."""
    try:
        return Ended(item, work(item))
    except Exception:
        return Ended(item, failure=traceback.format_exc())


def _in_worker(
    work: Callable[[Item], Value], item: Item, shared: Plan, seats: Path, sweep: int
) -> Ended[Item, Value]:
    """Work on an item in a process that keeps to its cores and ends with the sweep's process."""
    _end_with(sweep)
    _take_seat(shared, seats)
    torch.set_num_threads(shared.threads)
    # OpenMP's threads, made later, inherit it; see `execution.without_denormals`.
    torch.set_flush_denormal(True)
    return attempt(work, item)


@lru_cache(maxsize=1)
def _end_with(sweep: int) -> None:
    """End this process when the sweep's has ended: it would work on, unseen, next to a new sweep.

    The sweep's id comes with the work. Asked for here, it would be that of process 1 where the
    sweep was killed while this process was still importing.
    """

    def watch() -> None:
        while os.getppid() == sweep:
            time.sleep(_ORPHAN_CHECK_SECONDS)
        os._exit(1)

    if os.getppid() != sweep:
        os._exit(1)
    threading.Thread(target=watch, name="watch for the sweep", daemon=True).start()


# joblib reuses the processes of one pool for the next, which may have another plan.
@lru_cache(maxsize=1)
def _take_seat(shared: Plan, seats: Path) -> None:
    """Keep this process to a share of the cores that no other worker of the pool has."""
    if not hasattr(os, "sched_setaffinity") or not shared.allowed:
        return
    seat = _free_seat(len(shared.shares), seats)
    cores = shared.allowed if seat is None else shared.shares[seat]
    # Every thread has its own affinity, and a pool of OpenMP or BLAS may exist already.
    tasks = Path("/proc/self/task")
    threads = [int(task.name) for task in tasks.iterdir()] if tasks.is_dir() else [0]
    for thread in threads:
        try:
            os.sched_setaffinity(thread, cores)
        except OSError:
            continue  # the thread has ended meanwhile, or pinning is not allowed here


# Stays open until this process ends: closing the file would free the seat.
_seat: list[IO[Any]] = []


def _free_seat(count: int, seats: Path) -> int | None:
    """Take the first number below `count` that no live worker has; None where all are taken.

    A seat is a lock on one byte of a file. The system frees it whenever its process ends, so a
    worker that replaces a killed one gets that one's seat.
    """
    if not count:
        return None
    import fcntl  # does not exist on Windows, where workers are not pinned

    while _seat:
        _seat.pop().close()
    file = seats.open("r+b")
    _seat.append(file)
    # joblib may start a worker shortly before the one it replaces has ended.
    deadline = time.monotonic() + _SEAT_WAIT_SECONDS
    while True:
        for number in range(count):
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
            except OSError:
                continue
            return number
        if time.monotonic() > deadline:
            return None
        time.sleep(0.05)


@contextmanager
def threads_set(count: int) -> Iterator[None]:
    """Compute with a number of threads while this lasts."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
