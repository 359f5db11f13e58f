"""`python -m benchmarks sign_in theory`: computes the theory section and writes its page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...harness.command_line import refuse, unwritable
from ...harness.home import pages_folder, results_folder
from .config import PARTS, Part
from .report import write_pages

COMMITTED = results_folder("theory")


@dataclass
class TheoryOptions:
    """Sign-In's theory section: Tables 2 and 8, Figures 3, 4, 6, 7, Eq. (4), Theorem 5.4.

    The whole of it takes about a quarter of an hour of one CPU core.
    """

    quick: bool = False
    """Few runs and few steps, to see that everything works: the numbers mean nothing."""
    results: Path | None = None
    """Folder of the result files. Default: benchmarks/results/theory in a checkout, runs/theory
    where the package is installed, runs/theory_quick with --quick."""
    out: Path | None = None
    """Folder of the page and its pictures. Default: docs/results in a checkout, runs/theory where
    the package is installed, runs/theory_quick with --quick."""
    only: tuple[Part, ...] = ()
    """Parts to compute; all of them by default. The page is written from all result files."""
    report_only: bool = False
    """Compute nothing: write the page from the result files that are there."""


def main(options: TheoryOptions) -> int:
    """Compute the parts, write the page and return the exit code."""
    elsewhere = Path("runs") / "theory_quick" if options.quick else None
    results = options.results or elsewhere or COMMITTED
    out = options.out or elsewhere or pages_folder("theory")
    problems = [] if options.report_only else unwritable("--results", results)
    if problems := [*problems, *unwritable("--out", out)]:
        return refuse("; ".join(problems))
    if not options.report_only:
        # Not before here: torch is slow to import, and --help must not wait for it.
        from .sweep import sweep

        sweep(options.only or PARTS, results, quick=options.quick)
    missing = [part for part in PARTS if not (results / f"{part}.json").is_file()]
    if missing:
        return refuse(f"no result of {', '.join(missing)} in {results.resolve()}")
    try:
        pages = write_pages(results, out)
    except ValueError as error:
        return refuse(str(error))
    for path in pages:
        print(path)
    return 0
