"""Many runs, one result file each: finished ones are skipped, interrupted ones go on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.harness.data import Dataset
from benchmarks.harness.place import Place, forget_dataset
from benchmarks.harness.progress import Progress
from benchmarks.harness.results import (
    checkpoint_path,
    make_result,
    now,
    result_path,
    write_result,
)
from benchmarks.harness.workers import Ended, perform
from benchmarks.models import build_model
from benchmarks.papers.signs.checkpoints import last_round
from benchmarks.papers.signs.config import RunConfig
from benchmarks.papers.signs.run import perturbations, run


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
    first = pending[0]
    _refuse_early(first, place)
    # Layers of fc are too small to share.
    threads = place.threads or (1 if first.arch == "fc" else None)
    if jobs > 1:
        forget_dataset()  # every worker holds its own
    outcomes = []
    with Progress(len(configs), len(configs) - len(pending), nested=jobs == 1, quiet=quiet) as bars:
        work = partial(_complete, place=place, bars=bars if jobs == 1 else None)
        for end in perform(work, pending, jobs=jobs, threads=threads):
            outcome = outcome_of(end)
            outcomes.append(outcome)
            bars.finished(outcome.run_id, outcome.test_accuracy, outcome.seconds)
    return outcomes


def outcome_of(end: Ended[Any, Outcome]) -> Outcome:
    """The outcome of a run that ended, by itself or by an exception."""
    if end.value is not None:
        return end.value
    # A worker that is killed (memory) takes its pool along; what is on disk stays.
    name = "the pool of processes" if end.item is None else end.item.run_id
    return Outcome(name, failure=end.failure)


def _refuse_early(first: RunConfig, place: Place) -> None:
    """Fails where data is missing or the network does not fit the images or the weights.

    It also downloads once instead of in every process.
    """
    data = _dataset(first, place)
    build_model(first.arch, data.shape, data.classes, first.init, weights=first.weights)


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
        on_epoch=None if bars is None else bars.epoch,
        on_round=None if bars is None else bars.round,
        compile=place.compile,
        channels_last=place.channels_last,
    )
    result = make_result(
        config, data.facts(), records, started=started, resumed_after=resumed_after
    )
    result["execution"] = {"compile": place.compile, "channels_last": place.channels_last}
    write_result(result_path(place.out, config), result)
    if not place.keep_checkpoints:
        checkpoint.unlink(missing_ok=True)
    return Outcome(config.run_id, records[-1]["test_accuracy"], result["seconds"])


def _dataset(config: RunConfig, place: Place) -> Dataset:
    return place.dataset(
        config.dataset,
        config.device,
        train_size=config.train_size,
        test_size=config.test_size,
        holdout=config.holdout,
    )
