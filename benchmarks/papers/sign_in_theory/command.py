"""`python -m benchmarks sign_in theory`: computes the theory section and writes its page."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from benchmarks.papers.sign_in_theory.dependence import dependence, step_size
from benchmarks.papers.sign_in_theory.line import obstruction, portrait
from benchmarks.papers.sign_in_theory.records import Record, measure
from benchmarks.papers.sign_in_theory.report import report
from benchmarks.papers.sign_in_theory.single_neuron import failure, figure7, table2, table8
from benchmarks.papers.sign_in_theory.speed import speed
from benchmarks.papers.sign_in_theory.students import students

Part = Literal[
    "portrait",
    "table2",
    "table8",
    "dependence",
    "step_size",
    "students",
    "figure7",
    "failure",
    "obstruction",
    "speed",
]
PARTS: dict[Part, Callable[[bool], Record]] = {
    "portrait": portrait,
    "table2": table2,
    "table8": table8,
    "dependence": dependence,
    "step_size": step_size,
    "students": students,
    "figure7": figure7,
    "failure": failure,
    "obstruction": obstruction,
    "speed": speed,
}
COMMITTED = Path(__file__).parents[2] / "results" / "theory"
PAGE = Path(__file__).parents[3] / "docs" / "results"


@dataclass
class TheoryOptions:
    """Sign-In's theory section: Tables 2 and 8, Figures 3, 4, 6, 7 and Theorem 5.4.

    The whole of it takes about a quarter of an hour of one CPU core.
    """

    quick: bool = False
    """Few runs and few steps, to see that everything works: the numbers mean nothing."""
    results: Path | None = None
    """Folder of the result files; benchmarks/results/theory, or runs/theory_quick with --quick."""
    out: Path | None = None
    """Folder of the page and its pictures; docs/results, or runs/theory_quick with --quick."""
    only: tuple[Part, ...] = ()
    """Parts to compute; all of them by default. The page is written from all result files."""
    report_only: bool = False
    """Compute nothing: write the page from the result files that are there."""


def main(options: TheoryOptions) -> int:
    """Computes the parts, writes the page and gives the exit code."""
    elsewhere = Path("runs") / "theory_quick" if options.quick else None
    results = options.results or elsewhere or COMMITTED
    out = options.out or elsewhere or PAGE
    if not options.report_only:
        for part in options.only or tuple(PARTS):
            print(f"{part} …", flush=True)
            print(f"  {measure(results, part, partial(PARTS[part], options.quick))}", flush=True)
    missing = [part for part in PARTS if not (results / f"{part}.json").is_file()]
    if missing:
        print(f"error: no result of {', '.join(missing)} in {results.resolve()}", file=sys.stderr)
        return 1
    for path in report(results, out):
        print(path)
    return 0
