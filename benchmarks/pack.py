"""`python -m benchmarks pack`: one JSON-lines file of an experiment's result files, to commit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .harness.command_line import refuse
from .harness.committed import pack


@dataclass
class PackOptions:
    """Puts the result files of an experiment into one JSON-lines file, the form that is committed.

    Refuses results of code that is not committed, and results of different commits.
    """

    # Folder with result files, one a run; folders below it are read too.
    results: Path

    # The file: EXPERIMENT.jsonl. Results that it holds already stay, unless the folder has them.
    out: Path


def main(options: PackOptions) -> int:
    """Write the file and give the exit code."""
    try:
        records, new = pack(options.results, options.out)
    except (ValueError, OSError) as error:
        return refuse(str(error))
    print(f"{options.out}: {len(records)} results, {new} of them from {options.results}")
    return 0
