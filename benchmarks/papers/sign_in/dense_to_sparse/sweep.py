"""The runs of the experiment, each with one result file, and the files that they share.

A start needs what its source learned, and STR the decay that a search found. Both are in files
beside the results; where one is missing (a run of another process is not over, or the folder was
cleared), the same run is made again, with the same outcome.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from ....harness.committed import found_result
from ....harness.data import Dataset
from ....harness.place import Place
from ....harness.progress import Progress
from ....harness.recipe_training import Record
from ....harness.results import new_result, now, result_path, write_result
from ....harness.sweep import Outcome, perform_pending
from ....models.networks import SMALL
from ..network import fresh_network
from .config import SEARCH, DenseToSparseConfig
from .run import schedule_of, steps_of, train_arm
from .search import find_decay
from .starts import (
    Learned,
    learned_path,
    read_learned,
    write_learned,
)


def sweep(configs: Sequence[DenseToSparseConfig], place: Place) -> list[Outcome]:
    """Perform the runs whose result is missing.

    Args:
        configs: the runs, searches and sources before what needs them.
        place: where and how they take place.

    Returns:
        Outcomes of the runs that were performed, the failed ones among them.

    Raises:
        ValueError: a setting that the network, the data set or a method refuses; nothing has been
            trained.
        FileNotFoundError: the data set is missing; nothing has been trained.
    """
    threads = place.threads or (1 if configs[0].arch in SMALL else None)
    return perform_pending(
        configs,
        place,
        finished=lambda config: found_result(place.out, config) is not None,
        check=lambda first: _check(first, configs, place),
        complete=_complete,
        threads=threads,
    )


def _check(
    first: DenseToSparseConfig, configs: Sequence[DenseToSparseConfig], place: Place
) -> None:
    """Refuse data that is missing, networks that do not fit it, and runs that are too short."""
    data = place.dataset(first)
    fresh_network(first, data)
    for config in configs:
        schedule_of(config, steps_of(config, data))


def _complete(config: DenseToSparseConfig, place: Place, bars: Progress | None) -> Outcome:
    """Perform a run or a search and write its file."""
    # Nothing is selected, so nothing is held out: the paper reports the last epoch.
    data = place.dataset(config)
    if config.arm == SEARCH:
        return _searched(config, data, place)[1]
    decay = _decay_for(config, data, place)
    learned = _learned_for(config, data, place, decay)
    started = now()
    if bars is not None:
        bars.begin(config.run_id, 0, config.epochs, None)
    measured, kept = train_arm(
        config,
        data,
        learned=learned,
        decay=decay,
        on_epoch=None if bars is None else lambda record: bars.epoch(0, record["epoch"]),
        compile=place.compile,
    )
    if config.is_source:
        # First, so that a source with a result has this file.
        write_learned(learned_path(place.out, config), kept)
    seconds = (now() - started).total_seconds()
    result = new_result(config, data.facts(), asdict(measured), started=started, seconds=seconds)
    write_result(result_path(place.out, config), result)
    return Outcome(config.run_id, measured.final["test_accuracy"], seconds)


def _decay_for(config: DenseToSparseConfig, data: Dataset, place: Place) -> float | None:
    """Return the weight decay of s: as given, found before, or found now; None but for STR."""
    if config.start is not None or config.method != "str":
        return None
    search = config.search
    if search is None:
        return config.str_decay
    stored = found_result(place.out, search)
    decay: float = (_searched(search, data, place)[0] if stored is None else stored)["decay"]
    return decay


def _learned_for(
    config: DenseToSparseConfig, data: Dataset, place: Place, decay: float | None
) -> Learned | None:
    """Return what the source of a start learned, from its file or by training it again."""
    if config.start is None:
        return None
    source = config.source
    path = learned_path(place.out, source)
    learned = read_learned(path)
    if learned is None:
        again = _decay_for(source, data, place)
        _, learned = train_arm(source, data, decay=again, compile=place.compile)
        write_learned(path, learned)
    return learned


def _searched(config: DenseToSparseConfig, data: Dataset, place: Place) -> tuple[Record, Outcome]:
    """Search for the decay of s and write the record of the search."""
    started = now()
    trials = place.out / "learned" / f"trials-{config.run_id}.json"
    content = find_decay(config, data, trials, compile=place.compile)
    seconds = (now() - started).total_seconds()
    result = new_result(config, data.facts(), content, started=started, seconds=seconds)
    write_result(result_path(place.out, config), result)
    return content, Outcome(config.run_id, content["accuracy"], seconds)
