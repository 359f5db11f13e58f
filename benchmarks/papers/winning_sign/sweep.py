"""Every run of a comparison, seed by seed; finished ones are skipped."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from ...harness.committed import found_result
from ...harness.place import Place
from ...harness.progress import Progress
from ...harness.results import Result
from ...harness.sweep import Outcome, perform_pending
from .config import AwsConfig
from .grid import Chain
from .images import load
from .networks import build_network
from .run import Pipeline


def sweep(chains: Sequence[Chain], place: Place, workers: int = 0) -> list[Outcome]:
    """Perform the runs whose result is missing, seeds side by side.

    Args:
        chains: the runs of each seed.
        place: where and how they take place; at most one process per seed works.
        workers: processes that read images from folders, for each of these.

    Returns:
        How each seed that had something to do ended.

    Raises:
        ValueError: a setting that the data set or the network refuses; nothing has been trained.
        FileNotFoundError: the data set is missing; nothing has been trained.
    """

    def finished(chain: Chain) -> bool:
        # All of them are looked at, so that what is damaged is set aside before anything starts.
        results = [found_result(place.out, config) for config in chain.runs]
        return None not in results

    return perform_pending(
        chains,
        # A line per result takes the place of the bars; those of a cluster's workers are not seen.
        replace(
            place, jobs=min(place.jobs, len(chains)), quiet=place.quiet or not place.on_cluster
        ),
        finished=finished,
        check=lambda first: _check(first.runs[0], place),
        complete=partial(_complete, quiet=place.quiet, workers=workers),
        # Layers of the small networks are too small to share, and results committed so far say one.
        threads=place.threads or 1,
    )


def _check(first: AwsConfig, place: Place) -> None:
    """Refuse data that is missing and networks that do not fit it."""
    data = load(first, place)
    build_network(first.recipe.arch, data.shape, data.classes, torch.Generator())


def _complete(
    chain: Chain, place: Place, bars: Progress | None, *, quiet: bool, workers: int
) -> Outcome:
    """Perform the runs of one seed, and write their files."""
    data = load(chain.runs[0], place, workers)
    pipeline = Pipeline(
        data,
        place.out,
        None if quiet else _tell,
        compile=place.compile,
        graphs=place.graphs,
    )
    for config in chain.runs:
        pipeline.result(config)
    return Outcome(chain.run_id)


def _tell(path: Path, result: Result) -> None:
    """Print a line about a finished run."""
    shown = {"final": "test_accuracy", "barrier": "barrier"}.get(result["config"]["kind"])
    value = f": {shown} {result[shown]:.2f}" if shown else ""
    print(f"{path.stem}{value} ({result['seconds']:.0f} s)", file=sys.stderr, flush=True)
