"""Pages from result files: one for each paper, the zoo, the survivors and the timings."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from .harness.home import IN_CHECKOUT


@dataclass
class ReportOptions:
    """Writes one Markdown report per paper from the result files of a folder."""

    # Folder with result files; folders below it are read too.
    results: Path = Path("runs")

    # Folder of the reports and their plots.
    out: Path = Path("runs/report")


def main(options: ReportOptions) -> int:
    """Write the reports and give the exit code."""
    try:
        written = write_pages(options.results, options.out)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if not written:
        print(f"error: no result files in {options.results.resolve()}", file=sys.stderr)
        return 1
    for path in written:
        print(path)
    return 0


def write_pages(results: Path, out: Path) -> list[Path]:
    """Write the page of everything that has results.

    Args:
        results: folder of result files. What is no sweep of runs has a folder of its own below it.
        out: folder of the pages and their figures.

    Returns:
        The pages, and the figures of the theory section.
    """
    from . import zoo
    from .papers.sign_in import report as sign_in
    from .papers.sign_in.dense_to_sparse import report as dense_to_sparse
    from .papers.sign_in_theory import report as sign_in_theory
    from .papers.signs import report as signs
    from .papers.winning_sign import report as winning_sign
    from .survivors import report as survivors

    written = [*signs.write_pages(results, out), *sign_in.write_pages(results, out)]
    written += dense_to_sparse.write_pages(results, out)
    if _has_results(theory := results / "theory"):
        written += sign_in_theory.write_pages(theory, out)
    written += winning_sign.write_pages(results, out)
    written += survivors.write_pages(results, out)
    written += [zoo.write_page(path, out) for path in sorted((results / "zoo").glob("*.json"))]
    # A wheel has neither timings nor what writes their page.
    if IN_CHECKOUT and _has_results(timings := results / "throughput"):
        from .throughput import command as throughput

        written.append(throughput.write_page(timings, out))
    return written


def _has_results(folder: Path) -> bool:
    return any(folder.glob("*.json"))
