"""Committed results: packed from the files of runs, and found again by the next sweep.

Runs write one JSON file each. `python -m benchmarks pack` puts them together into one JSON-lines
file per experiment, which is committed. The report reads both forms, and a sweep that asks
`found_result` skips the runs of either.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from .json_lines import named, read_lines, refuse_dirty, write_lines
from .results import (
    Result,
    Settings,
    read_result,
    result_path,
    stored_result,
)

COMMITTED = Path(__file__).parents[1] / "results"
# Set where committed runs are performed again; worker processes inherit it.
_REPEAT = "POLARITY_BENCHMARKS_REPEAT"


def repeat_committed(repeat: bool) -> None:
    """Say whether this process and those that it starts perform committed runs again."""
    if repeat:
        os.environ[_REPEAT] = "1"
    else:
        os.environ.pop(_REPEAT, None)


def pack(folder: Path, out: Path) -> tuple[list[Result], int]:
    """Put the results of a folder into a JSON-lines file, next to those that it holds already.

    Args:
        folder: folder of result files, one a run; folders below it are read too.
        out: the file, `EXPERIMENT.jsonl`. Runs that are in the folder too take its place there.

    Returns:
        All records of the file, and how many of them came from the folder.

    Raises:
        ValueError: there is nothing to pack, a file is damaged, the tree that a result was computed
            in was changed or unknown, or results come from different commits. Nothing is written.
    """
    if out.suffix != ".jsonl":
        raise ValueError(f"{out} must be named EXPERIMENT.jsonl, for the experiment it holds")
    experiment = out.stem
    paths = sorted(folder.rglob(f"{experiment}-*.json"))
    found = [(str(path), result) for path in paths if (result := _run_of(path, experiment))]
    if not found:
        raise ValueError(f"no results of {experiment} in {folder.resolve()}")
    twice = [run for run, n in Counter(result["run_id"] for _, result in found).items() if n > 1]
    if twice:
        raise ValueError(f"more than one result in {folder.resolve()} of {named(twice)}")
    new = {result["run_id"] for _, result in found}
    kept = read_lines(out) if out.is_file() else []
    found += [(str(out), result) for result in kept if result["run_id"] not in new]
    refuse_dirty([result for _, result in found], out)
    _refuse_mixed(found, out)
    write_lines(out, [result for _, result in found])
    return [result for _, result in found], len(new)


def _run_of(path: Path, experiment: str) -> Result | None:
    """Read the result of a run; None where the file belongs to another experiment."""
    result = read_result(path)
    if result.get("experiment") != experiment:
        return None
    if result.get("run_id") != path.stem or "config" not in result:
        raise ValueError(f"{path} is not the result of the run that it is named after")
    return result


def _refuse_mixed(found: Sequence[tuple[str, Result]], out: Path) -> None:
    commits = Counter(result["git_commit"] for _, result in found)
    if len(commits) == 1:
        return
    (most, _), *_ = commits.most_common(1)
    others = [
        f"{result['run_id']} in {name} ({result['git_commit']})"
        for name, result in found
        if result["git_commit"] != most
    ]
    raise ValueError(
        f"{out} must hold results of one commit; most are of {most}, and not so: {named(others)}. "
        "Run them again at one commit"
    )


def found_result(out: Path, config: Settings, committed: Path = COMMITTED) -> Result | None:
    """Return the result of a finished run, from its own file or from the committed ones.

    A file of its own that is damaged is set aside, as `stored_result` has it. Committed files do
    not count where `repeat_committed` says so.

    Args:
        out: folder of the sweep's result files.
        config: settings of the run.
        committed: folder of the committed files.

    Returns:
        The result; None where the run has none.
    """
    own = stored_result(result_path(out, config))
    if own is None and _REPEAT in os.environ:
        return None
    return own or committed_results(config.experiment, committed).get(config.run_id)


def committed_results(experiment: str, folder: Path = COMMITTED) -> dict[str, Result]:
    """Return the committed results of an experiment by the name of their run.

    Raises:
        ValueError: the file is damaged; the message names it and the line.
    """
    path = folder / f"{experiment}.jsonl"
    if not path.is_file():
        return {}
    return _by_run(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _by_run(path: Path, changed: int) -> dict[str, Result]:
    # A sweep asks once for every run, and a file is parsed once for every time it was written.
    return {record["run_id"]: record for record in read_lines(path)}
