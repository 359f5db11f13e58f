"""The runs of a sweep over methods, densities, rescale periods and seeds.

A run takes a minute at the scale that is committed and writes its file at its end: one that was
interrupted begins again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from ...harness.committed import found_result
from ...harness.place import Place
from ...harness.progress import Progress
from ...harness.results import new_result, now, result_path, write_result
from ...harness.sweep import Outcome, perform_pending
from ...models.networks import SMALL
from .config import SignInConfig
from .network import fresh_network
from .run import train_sparse


def sweep(configs: Sequence[SignInConfig], place: Place) -> list[Outcome]:
    """Perform the runs whose result file is missing.

    Args:
        configs: the runs.
        place: where and how they take place.

    Returns:
        Outcomes of the runs that were performed, the failed ones among them.

    Raises:
        ValueError: a setting that the network or the data set refuses; nothing has been trained.
        FileNotFoundError: the data set is missing; nothing has been trained.
    """
    # The small networks' layers are too small to share: on a busy machine two threads that wait
    # for each other take many times longer than one.
    threads = place.threads or (1 if configs[0].arch in SMALL else None)
    return perform_pending(
        configs,
        place,
        finished=lambda config: found_result(place.out, config) is not None,
        check=lambda first: _check(first, place),
        complete=_complete,
        threads=threads,
    )


def _check(first: SignInConfig, place: Place) -> None:
    """Refuse data that is missing and networks that do not fit it."""
    data = place.dataset(first)
    fresh_network(first, data)


def _complete(config: SignInConfig, place: Place, bars: Progress | None) -> Outcome:
    """Perform a run and write its file."""
    # Nothing is selected, so nothing is held out: the paper reports the last epoch.
    data = place.dataset(config)
    started = now()
    if bars is not None:
        bars.begin(config.run_id, 0, config.epochs, None)
    measured = train_sparse(
        config,
        data,
        on_epoch=None if bars is None else lambda record: bars.epoch(0, record["epoch"]),
        compile=place.compile,
        graphs=place.graphs,
    )
    seconds = (now() - started).total_seconds()
    execution = {"compile": place.compile, "graphs": place.graphs}
    content = {**asdict(measured), "execution": execution}
    result = new_result(config, data.facts(), content, started=started, seconds=seconds)
    write_result(result_path(place.out, config), result)
    return Outcome(config.run_id, measured.final["test_accuracy"], seconds)
