"""Files of one result a line, `EXPERIMENT.jsonl`: the form in which results are committed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

Record = dict[str, Any]

# What tells a record of a run from anything else.
_KEYS = ("schema", "experiment", "run_id", "config")


def read_lines(path: Path) -> list[Record]:
    """Read the records of a JSON-lines file.

    Raises:
        ValueError: a line is no record of a run, repeats one, or belongs to another experiment;
            the message names the file and the number of the line.
    """
    records: list[Record] = []
    first: dict[str, int] = {}
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"{path}, line {number}, is not a result ({error}); restore the file from git, or "
                "delete the line to run its run again"
            ) from None
        if not isinstance(record, dict) or not set(_KEYS) <= record.keys():
            raise ValueError(
                f"{path}, line {number}, is not the result of a run: it must hold "
                f"{', '.join(_KEYS)}; restore the file from git, or delete the line"
            )
        if record["experiment"] != path.stem:
            raise ValueError(
                f"{path}, line {number}, is a result of {record['experiment']}; the file's name "
                "says which experiment it holds"
            )
        earlier = first.setdefault(record["run_id"], number)
        if earlier != number:
            raise ValueError(
                f"{path}, line {number}, holds {record['run_id']}, as line {earlier} does; delete "
                "one of them"
            )
        records.append(record)
    return records


def write_lines(path: Path, records: Iterable[Record]) -> None:
    """Write records sorted by `run_id`, in one go: a killed process leaves no half of the file."""
    lines = (
        json.dumps(record, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        for record in sorted(records, key=lambda record: str(record["run_id"]))
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    # Bytes: a newline is one everywhere.
    unfinished.write_bytes("".join(f"{line}\n" for line in lines).encode())
    os.replace(unfinished, path)


def refuse_dirty(results: Sequence[Record], path: Path) -> None:
    """Refuse results whose code no commit holds: nobody else could compute them again.

    Raises:
        ValueError: the tree that a result was computed in was changed, or its commit is unknown.
    """
    dirty = [
        f"{result['run_id']} ({result.get('git_commit') or 'commit unknown'})"
        for result in results
        if not result.get("git_commit") or str(result["git_commit"]).endswith("-dirty")
    ]
    if dirty:
        raise ValueError(
            f"{path} must hold results of committed code alone; not so: {named(dirty)}. Commit "
            "what was changed, and run them again from the checkout"
        )


def named(names: Sequence[str], shown: int = 10) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
