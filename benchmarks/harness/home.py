"""Where the benchmarks are: in a checkout of the repository, or installed from a wheel.

A wheel holds them as the package `polarity_bench`, without committed results and timings. An
editable installation has them under both names.
"""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).parents[1]
# A wheel renames the folder.
IN_CHECKOUT = HERE.name == "benchmarks"
# What a user types in front of a command's name.
PROGRAM = "python -m benchmarks" if __name__.startswith("benchmarks.") else "polarity-bench"


def results_folder(name: str) -> Path:
    """Return where an experiment without `--out` keeps its results: in a checkout, to commit."""
    return HERE / "results" / name if IN_CHECKOUT else Path("runs") / name


def pages_folder(name: str) -> Path:
    """Return where an experiment without `--out` writes its page: in a checkout, the docs."""
    return HERE.parent / "docs" / "results" if IN_CHECKOUT else Path("runs") / name
