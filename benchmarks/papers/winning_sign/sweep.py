"""Every run of a comparison, seed by seed; finished ones are skipped."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from benchmarks.harness.data import Dataset
from benchmarks.harness.place import Place, forget_dataset
from benchmarks.harness.workers import perform
from benchmarks.papers.winning_sign.config import AwsConfig
from benchmarks.papers.winning_sign.contestants import CONTESTANTS, PARTS
from benchmarks.papers.winning_sign.networks import build_network
from benchmarks.papers.winning_sign.run import Pipeline
from benchmarks.papers.winning_sign.store import Result, result_path


def plan(
    base: AwsConfig, parts: Sequence[str], at: Sequence[int], barrier_at: int
) -> list[AwsConfig]:
    """The runs of one seed, each once, in an order that gives whole tables early.

    Args:
        base: The setting and its seed.
        parts: Names in `PARTS`.
        at: Rounds whose tickets are finally trained.
        barrier_at: Round whose networks the barriers are measured between.
    """
    chosen = [PARTS[part] for part in parts]
    everywhere = dict.fromkeys(name for part in chosen for name in part.everywhere)
    once = dict.fromkeys(name for part in chosen for name in part.once)
    pairs = dict.fromkeys(name for part in chosen for name in part.pairs)
    finders = {CONTESTANTS[name].finder for name in (*everywhere, *once)}
    runs = [base.task("final", "dense")]
    runs += [base.task("rounds", str(finder)) for finder in sorted(finders - {None}, key=str)]
    for round in (barrier_at, *at):
        runs += [base.task("final", name, round) for name in everywhere]
    runs += [base.task("final", name, barrier_at) for name in once]
    runs += [base.task("barrier", name, barrier_at) for name in pairs]
    return list(dict.fromkeys(runs))


def sweep(
    bases: Sequence[AwsConfig],
    place: Place,
    *,
    parts: Sequence[str],
    at: Sequence[int],
    barrier_at: int,
    jobs: int = 1,
    quiet: bool = False,
) -> list[str]:
    """Performs the runs whose result is not there yet, seeds side by side.

    Args:
        bases: One configuration per seed.
        place: Where results go and data comes from.
        parts: Names in `PARTS`.
        at: Rounds whose tickets are finally trained.
        barrier_at: Round of the barriers.
        jobs: Processes that work at once; there is no use for more than there are seeds.
        quiet: Say nothing about finished runs.

    Returns:
        Tracebacks of the seeds that failed.

    Raises:
        ValueError: A setting that the data set or the network refuses; nothing has been trained.
        FileNotFoundError: The data set is not there; nothing has been trained.
    """
    chains = [plan(base, parts, at, barrier_at) for base in bases]
    chains = [
        chain
        for chain in chains
        if any(not result_path(place.out, config).is_file() for config in chain)
    ]
    if not chains:
        return []
    _refuse_early(bases[0], place)
    jobs = min(jobs, len(chains))
    if jobs > 1:
        forget_dataset()  # every worker holds its own
    # Layers of the small networks are too small to share, and results committed so far say one.
    ends = perform(
        partial(_chain, place=place, quiet=quiet), chains, jobs=jobs, threads=place.threads or 1
    )
    return [end.failure for end in ends if end.failure is not None]


def _refuse_early(first: AwsConfig, place: Place) -> None:
    """Fails where data is missing or the network does not fit it; downloads once."""
    data = _dataset(first, place)
    build_network(first.recipe.arch, data.shape, data.classes, torch.Generator())


def _chain(chain: Sequence[AwsConfig], place: Place, quiet: bool) -> None:
    """One seed."""
    data, told = _dataset(chain[0], place), None if quiet else _tell
    pipeline = Pipeline(data, place.out, told, compile=place.compile)
    for config in chain:
        pipeline.result(config)


def _tell(path: Path, result: Result) -> None:
    shown = {"final": "test_accuracy", "barrier": "barrier"}.get(result["config"]["kind"])
    told = f": {shown} {result[shown]:.2f}" if shown else ""
    print(f"{path.stem}{told} ({result['seconds']:.0f} s)", file=sys.stderr, flush=True)


def _dataset(config: AwsConfig, place: Place) -> Dataset:
    return place.dataset(
        config.recipe.dataset,
        config.device,
        train_size=config.train_size,
        test_size=config.test_size,
        # Nothing is selected, so nothing is held out.
        holdout=0,
    )


def seeds_of(base: AwsConfig, seeds: Sequence[int]) -> list[AwsConfig]:
    """The same setting with each of the seeds."""
    return [replace(base, seed=seed) for seed in dict.fromkeys(seeds)]
