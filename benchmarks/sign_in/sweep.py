"""Many runs, one result file each; runs whose file is there are skipped.

A run takes a minute at the scale that is committed and writes its file at its end: one that was
interrupted begins again.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import joblib
import torch
from joblib import Parallel, delayed

from benchmarks.data import Dataset, load_dataset
from benchmarks.models.networks import SMALL, build_network
from benchmarks.results import git_commit, machine, now, versions, write_result
from benchmarks.sign_in.config import SignInConfig
from benchmarks.sign_in.run import run
from benchmarks.sweep import Outcome, Place

SCHEMA = 1
Result = dict[str, Any]


def result_file(out: Path, config: SignInConfig) -> Path:
    """Where the result of a run lies."""
    return out / f"{config.run_id}.json"


def sweep(
    configs: Sequence[SignInConfig], place: Place, *, jobs: int = 1, quiet: bool = False
) -> list[Outcome]:
    """Performs the runs whose result file is not there yet.

    Args:
        configs: The runs.
        place: Where results go and data comes from.
        jobs: Processes that work at once.
        quiet: Tell nothing on the way.

    Returns:
        Outcomes of the runs that were performed, the failed ones among them.

    Raises:
        ValueError: A setting that the network or the data set refuses; nothing has been trained.
        FileNotFoundError: The data set is not there; nothing has been trained.
    """
    pending = [config for config in configs if not result_file(place.out, config).is_file()]
    if not pending:
        return []
    # Fails early, and downloads once instead of in every process.
    first, data = pending[0], _dataset(pending[0], place)
    build_network(
        first.arch, data.shape, data.classes, width=first.width, stem_stride=first.stem_stride
    )
    # The small networks' layers are too small to share: on a busy machine two threads that wait
    # for each other take many times longer than one.
    share = 1 if first.arch in SMALL else max(1, joblib.cpu_count() // jobs)
    threads = place.threads or share
    outcomes: list[Outcome] = []
    for outcome in _perform(pending, place, jobs, threads):
        outcomes.append(outcome)
        if not quiet:
            told = "failed" if outcome.failure else f"{outcome.test_accuracy:.2f} %"
            done = len(configs) - len(pending) + len(outcomes)
            line = f"[{done}/{len(configs)}] {outcome.run_id}: {told} ({outcome.seconds:.0f} s)"
            print(line, file=sys.stderr, flush=True)
    return outcomes


def load_results(folder: str | Path) -> list[Result]:
    """Reads every Sign-In result of a folder and the folders below it, in the order of names."""
    found = []
    for path in sorted(Path(folder).rglob("sign_in-*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        if result.get("experiment") == "sign_in" and result.get("schema") == SCHEMA:
            found.append(result)
    return found


def _perform(
    pending: Sequence[SignInConfig], place: Place, jobs: int, threads: int
) -> Iterator[Outcome]:
    if jobs == 1:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            yield from (_attempt(config, place) for config in pending)
        finally:
            torch.set_num_threads(before)
        return
    _resident.cache_clear()
    pool = Parallel(n_jobs=jobs, return_as="generator_unordered", pre_dispatch="n_jobs")
    try:
        results: Iterable[Outcome] = pool(
            delayed(_in_process)(config, place, threads) for config in pending
        )
        yield from results
    except Exception:
        # A worker that is killed (memory) takes its pool along; what is on disk stays.
        yield Outcome("the pool of processes", failure=traceback.format_exc())


def _in_process(config: SignInConfig, place: Place, threads: int) -> Outcome:
    torch.set_num_threads(threads)
    return _attempt(config, place, parent=os.getppid())


def _attempt(config: SignInConfig, place: Place, parent: int | None = None) -> Outcome:
    """One run that cannot pull the others down with it."""
    try:
        return _complete(config, place, parent)
    except Exception:
        return Outcome(config.run_id, failure=traceback.format_exc())


def _complete(config: SignInConfig, place: Place, parent: int | None) -> Outcome:
    def watch(record: dict[str, Any]) -> None:
        # A worker whose sweep was killed would work on, unseen, beside the next sweep.
        if parent is not None and os.getppid() != parent:
            os._exit(1)

    data = _dataset(config, place)
    started = now()
    outcome = run(config, data, on_epoch=watch)
    seconds = (now() - started).total_seconds()
    result = {
        "schema": SCHEMA,
        "experiment": "sign_in",
        "run_id": config.run_id,
        "config": config.as_json(),
        "config_digest": config.digest,
        "dataset": data.facts(),
        **asdict(outcome),
        "started": started.isoformat(timespec="seconds"),
        "seconds": seconds,
        "versions": versions(),
        "machine": machine(config.device),
        "git_commit": git_commit(),
    }
    write_result(result_file(place.out, config), result)
    return Outcome(config.run_id, outcome.final["test_accuracy"], seconds)


def _dataset(config: SignInConfig, place: Place) -> Dataset:
    return _resident(
        config.dataset,
        place.data_root,
        place.download,
        config.device,
        config.train_size,
        config.test_size,
    )


@lru_cache(maxsize=1)
def _resident(
    name: str,
    root: Path | None,
    download: bool,
    device: str,
    train_size: int | None,
    test_size: int | None,
) -> Dataset:
    """The data set of this process; the runs of a sweep share it."""
    return load_dataset(
        name,
        root,
        download=download,
        device=device,
        train_size=train_size,
        test_size=test_size,
        # Nothing is selected, so nothing needs to be held out: the paper reports the last epoch.
        holdout=0,
    )
