"""Many runs, one result file each: finished ones are skipped, interrupted ones go on."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import joblib
import torch
from joblib import Parallel, delayed

from benchmarks.checkpoints import last_round
from benchmarks.config import RunConfig
from benchmarks.data import Dataset, load_dataset
from benchmarks.models import build_model
from benchmarks.progress import Progress
from benchmarks.results import (
    checkpoint_path,
    make_result,
    now,
    result_path,
    write_result,
)
from benchmarks.rounds import perturbations, run


@dataclass(frozen=True)
class Place:
    """Where and how a sweep runs; none of it changes what a run computes.

    Attributes:
        out: Folder of the result files.
        data_root: Folder of the data sets.
        download: Fetch data that is missing.
        keep_checkpoints: Leave the last checkpoint of a finished run on disk.
        threads: Threads of one run; None takes one for fc, whose layers are too small to share,
            and an equal share of the cores for the others.
    """

    out: Path
    data_root: Path | None = None
    download: bool = False
    keep_checkpoints: bool = False
    threads: int | None = None


@dataclass(frozen=True)
class Outcome:
    """How a run ended: with a test accuracy, or with a traceback."""

    run_id: str
    test_accuracy: float | None = None
    seconds: float = 0.0
    failure: str | None = None


def sweep(
    configs: Sequence[RunConfig], place: Place, *, jobs: int = 1, quiet: bool = False
) -> list[Outcome]:
    """Performs the runs whose result file is not there yet.

    Args:
        configs: The runs.
        place: Where results go and data comes from.
        jobs: Processes that work at once.
        quiet: Show no progress.

    Returns:
        Outcomes of the runs that were performed, the failed ones among them.

    Raises:
        ValueError: A setting that polarity or the data set refuses; nothing has been trained.
        FileNotFoundError: The data set is not there; nothing has been trained.
    """
    for perturbation in {config.perturbation for config in configs}:
        perturbations(perturbation)
    pending = [config for config in configs if not result_path(place.out, config).is_file()]
    if not pending:
        return []
    # Fails early where data is missing, and downloads once instead of in every process.
    data, first = _dataset(pending[0], place), pending[0]
    # Fails early where the network does not fit the images or the weights.
    build_model(first.arch, data.shape, data.classes, first.init, weights=first.weights)
    share = 1 if first.arch == "fc" else max(1, joblib.cpu_count() // jobs)
    threads = place.threads or share
    outcomes = []
    with Progress(len(configs), len(configs) - len(pending), nested=jobs == 1, quiet=quiet) as bars:
        for outcome in _perform(pending, place, jobs, threads, bars):
            outcomes.append(outcome)
            bars.finished(outcome.run_id, outcome.test_accuracy, outcome.seconds)
    return outcomes


def _perform(
    pending: Sequence[RunConfig], place: Place, jobs: int, threads: int, bars: Progress
) -> Iterator[Outcome]:
    if jobs == 1:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            yield from (_attempt(config, place, bars) for config in pending)
        finally:
            torch.set_num_threads(before)
        return
    _resident.cache_clear()
    # Unordered, so that a slow run does not hold back the news of quick ones.
    pool = Parallel(n_jobs=jobs, return_as="generator_unordered", pre_dispatch="n_jobs")
    try:
        yield from pool(delayed(_in_process)(config, place, threads) for config in pending)
    except Exception:
        # A worker that is killed (memory) takes its pool along; what is on disk stays.
        yield Outcome("the pool of processes", failure=traceback.format_exc())


def _in_process(config: RunConfig, place: Place, threads: int) -> Outcome:
    torch.set_num_threads(threads)
    return _attempt(config, place, None)


class _Watch:
    """Stops a worker whose sweep was killed: it would work on, unseen, beside the next sweep."""

    def __init__(self) -> None:
        self.parent = os.getppid()

    def __call__(self, number: int, epochs_done: int) -> None:
        if os.getppid() != self.parent:
            os._exit(1)


def _attempt(config: RunConfig, place: Place, bars: Progress | None) -> Outcome:
    """One run that cannot pull the others down with it."""
    try:
        return _complete(config, place, bars)
    except Exception:
        return Outcome(config.run_id, failure=traceback.format_exc())


def _complete(config: RunConfig, place: Place, bars: Progress | None) -> Outcome:
    data = _dataset(config, place)
    checkpoint = checkpoint_path(place.out, config)
    resumed_after = last_round(checkpoint)
    started = now()
    if bars is not None:
        bars.begin(config.run_id, config.rounds, config.epochs, resumed_after)
    records = run(
        config,
        data,
        checkpoint=checkpoint,
        on_epoch=_Watch() if bars is None else bars.epoch,
        on_round=None if bars is None else bars.round,
    )
    result = make_result(
        config, data.facts(), records, started=started, resumed_after=resumed_after
    )
    write_result(result_path(place.out, config), result)
    if not place.keep_checkpoints:
        checkpoint.unlink(missing_ok=True)
    return Outcome(config.run_id, records[-1]["test_accuracy"], result["seconds"])


def _dataset(config: RunConfig, place: Place) -> Dataset:
    return _resident(
        config.dataset,
        place.data_root,
        place.download,
        config.device,
        config.train_size,
        config.test_size,
        config.holdout,
    )


@lru_cache(maxsize=1)
def _resident(
    name: str,
    root: Path | None,
    download: bool,
    device: str,
    train_size: int | None,
    test_size: int | None,
    holdout: float,
) -> Dataset:
    """The data set of this process; the runs of a sweep share it."""
    return load_dataset(
        name,
        root,
        download=download,
        device=device,
        train_size=train_size,
        test_size=test_size,
        holdout=holdout,
    )
