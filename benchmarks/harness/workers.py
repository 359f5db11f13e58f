"""Many pieces of work in processes, each process on its own share of the cores."""

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
        item: What was worked on; None where the pool of processes itself broke.
        value: What the work gave.
        failure: Traceback of the exception that ended it.
    """

    item: Item | None
    value: Value | None = None
    failure: str | None = None


@dataclass(frozen=True)
class Plan:
    """How workers share a machine.

    Attributes:
        shares: The cores of each worker, disjoint; empty where nobody is pinned.
        allowed: Cores that all workers together may use; empty where the system does not say.
        threads: Threads of one worker, the same for all: with the number of threads the last bits
            of a result change, and they shall not depend on which worker took the work.
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
    """Works on every item and gives the ends in the order in which they come.

    Two or more jobs are processes, each kept to its share of the cores that this process may use:
    threads of two pinned processes never wait for each other, so that two cores give twice one.
    Where there are fewer cores than jobs, or the system cannot pin (macOS, Windows), nobody is
    pinned. Workers end themselves soon after this process has died.

    Args:
        work: Called with each item; pickled with it for other processes. What it raises becomes the
            `failure` of its end and leaves the other items alone.
        items: What to work on, in the order in which work begins.
        jobs: Processes that work at once; 1 works in this process.
        threads: Threads of one worker; an equal share of the cores where it is not given.

    Yields:
        One end per item; one without an item where a worker was killed and took the pool along.
    """
    shared = plan(jobs, threads)
    if jobs == 1:
        with _threads(shared.threads):
            yield from (_attempt(work, item) for item in items)
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
    """Divides the cores that this process may use among so many workers.

    Args:
        jobs: Workers.
        threads: Threads of one worker; an equal share of the cores where it is not given.
    """
    allowed = _allowed()
    share = max(1, joblib.cpu_count() // jobs)
    pinned = jobs > 1 and len(allowed) >= jobs
    return Plan(split(allowed, jobs) if pinned else (), allowed, threads or share)


def split(cores: Sequence[int], parts: int) -> tuple[tuple[int, ...], ...]:
    """Neighbouring cores for each of `parts` workers; the first get one more where it does not go.

    Args:
        cores: At least as many as parts.
        parts: Number of workers.

    Returns:
        Disjoint shares, all the cores together, whose sizes differ by one at most.
    """
    borders = [-(-len(cores) * part // parts) for part in range(parts + 1)]
    return tuple(tuple(cores[a:b]) for a, b in pairwise(borders))


def _allowed() -> tuple[int, ...]:
    if not hasattr(os, "sched_getaffinity"):
        return ()
    return tuple(sorted(os.sched_getaffinity(0)))


def _attempt(work: Callable[[Item], Value], item: Item) -> Ended[Item, Value]:
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
    # Before the threads of OpenMP are made, which inherit it; see `execution.without_denormals`.
    torch.set_flush_denormal(True)
    return _attempt(work, item)


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


# joblib lends the processes of one pool to the next, whose plan may be another one.
@lru_cache(maxsize=1)
def _take_seat(shared: Plan, seats: Path) -> None:
    """Keeps this process to a share of the cores that no other worker of the pool has."""
    if not hasattr(os, "sched_setaffinity") or not shared.allowed:
        return
    seat = _free_seat(len(shared.shares), seats)
    cores = shared.allowed if seat is None else shared.shares[seat]
    # Every thread has its own affinity: a pool of OpenMP or BLAS may be there already.
    tasks = Path("/proc/self/task")
    threads = [int(task.name) for task in tasks.iterdir()] if tasks.is_dir() else [0]
    for thread in threads:
        try:
            os.sched_setaffinity(thread, cores)
        except OSError:
            continue  # the thread has ended meanwhile, or this machine does not let us


# Open for as long as this process lives: closing the file would give the seat away.
_seat: list[IO[Any]] = []


def _free_seat(count: int, seats: Path) -> int | None:
    """The first number below `count` that no living worker has, None where all are taken.

    A seat is a lock on one byte of a file. The system frees it when its process ends, however it
    ends, so that a worker that replaces a killed one gets the seat of that one.
    """
    if not count:
        return None
    import fcntl  # nothing for Windows, where nobody is pinned

    while _seat:
        _seat.pop().close()
    file = seats.open("r+b")
    _seat.append(file)
    # joblib may start a worker a moment before the one that it replaces has ended.
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
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
