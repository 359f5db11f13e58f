"""Many runs, one result file each; runs whose file is there are skipped.

A run takes a minute at the scale that is committed and writes its file at its end: one that was
interrupted begins again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness.data import Dataset
from benchmarks.harness.place import Place, forget_dataset
from benchmarks.harness.results import git_commit, machine, now, versions, write_result
from benchmarks.harness.workers import perform
from benchmarks.models.networks import SMALL, build_network
from benchmarks.papers.sign_in.config import SignInConfig
from benchmarks.papers.sign_in.run import run
from benchmarks.papers.signs.sweep import Outcome, outcome_of

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
    first = pending[0]
    _refuse_early(first, place)
    # The small networks' layers are too small to share: on a busy machine two threads that wait
    # for each other take many times longer than one.
    threads = place.threads or (1 if first.arch in SMALL else None)
    if jobs > 1:
        forget_dataset()  # every worker holds its own
    outcomes: list[Outcome] = []
    for end in perform(partial(_complete, place=place), pending, jobs=jobs, threads=threads):
        outcome = outcome_of(end)
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


def _refuse_early(first: SignInConfig, place: Place) -> None:
    """Fails where data is missing or the network does not fit it; downloads once."""
    data = _dataset(first, place)
    build_network(
        first.arch, data.shape, data.classes, width=first.width, stem_stride=first.stem_stride
    )


def _complete(config: SignInConfig, place: Place) -> Outcome:
    data = _dataset(config, place)
    started = now()
    outcome = run(config, data, compile=place.compile)
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
    return place.dataset(
        config.dataset,
        config.device,
        train_size=config.train_size,
        test_size=config.test_size,
        # Nothing is selected, so nothing needs to be held out: the paper reports the last epoch.
        holdout=0,
    )
