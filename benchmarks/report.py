"""Pages from result files: one for each paper, the zoo, the survivors and the timings."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .harness.home import IN_CHECKOUT
from .harness.results import load_results
from .pages.published import PAPERS

if TYPE_CHECKING:
    from .pages.front import Paper
    from .pages.stated import Stated

# The pages of experiments, by the experiment's name.
_PAGES = {
    "fragility": "fragility",
    "zero_crossing": "zero-crossing",
    "winning_sign": "winning sign",
    "sign_in": "training from scratch",
    "dense_to_sparse": "dense to sparse",
}


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
    return [write_front_page(results, out), *written] if written else []


def write_front_page(results: Path, out: Path) -> Path:
    """Write `index.md`: every claim and every printed cell, from the result files of a folder."""
    from .pages.front import front_page

    path = out / "index.md"
    path.write_text(front_page(papers(results)), encoding="utf-8")
    return path


def papers(results: Path) -> list[Paper]:
    """Return what the front page says of each paper."""
    from .pages.front import Paper
    from .papers.sign_in import cells as sign_in
    from .papers.sign_in import stated as sign_in_claims
    from .papers.sign_in.dense_to_sparse import cells as dense_to_sparse
    from .papers.sign_in.layerwise import stated as layerwise
    from .papers.sign_in_theory import cells as theory
    from .papers.sign_in_theory.report import read_records
    from .papers.signs import cells as signs
    from .papers.signs import stated as sign_claims
    from .papers.winning_sign import cells as winning_sign
    from .papers.winning_sign import stated as winning_claims

    names = [
        "fragility",
        "zero_crossing",
        "winning_sign",
        "sign_in",
        "dense_to_sparse",
        "layerwise",
    ]
    loaded = {name: load_results(results, [name]) for name in names}
    pages = {name: [(title, f"{name}.md")] for name, title in _PAGES.items() if loaded.get(name)}
    records = read_records(folder) if _has_results(folder := results / "theory") else None
    if records is not None:
        pages["theory"] = [("theory", "sign_in_theory.md")]
    found = {
        **sign_in.found_cells(loaded["sign_in"]),
        **dense_to_sparse.found_cells(loaded["dense_to_sparse"]),
        **({} if records is None else theory.found_cells(records)),
    }
    stated = [
        *dense_to_sparse.stated(loaded["dense_to_sparse"]),
        *sign_in_claims.stated(loaded["sign_in"]),
        *layerwise.stated(loaded["layerwise"]),
        *([] if records is None else theory.stated(records)),
        *_cost(results),
    ]
    return [
        *(
            Paper(
                PAPERS[name],
                title,
                pages.get(name, []),
                signs.found_cells(loaded[name], name),
                sign_claims.stated(loaded[name], name),
            )
            for name, title in (
                ("fragility", "The Fragility of Polarity"),
                ("zero_crossing", "Beyond the Zero-Crossing"),
            )
        ),
        Paper(
            winning_sign.PAPER,
            "Find a Winning Sign",
            pages.get("winning_sign", []),
            winning_sign.found_cells(loaded["winning_sign"]),
            winning_claims.stated(loaded["winning_sign"]),
        ),
        Paper(
            sign_in.PAPER,
            "Sign-In to the Lottery",
            [
                page
                for name in ("dense_to_sparse", "sign_in", "theory")
                for page in pages.get(name, [])
            ],
            found,
            stated,
        ),
    ]


def _cost(results: Path) -> list[Stated]:
    """Return the claim on the cost of Sign-In; a wheel has no timings, and nothing is said."""
    if not IN_CHECKOUT:
        from .pages.published import transcript
        from .pages.stated import Stated

        text = transcript("sign_in_to_the_lottery")["cost_claim"]
        return [Stated("section 4", text, "ImageNet, ResNet-50, a GPU")]
    from .throughput.claims import stated

    return stated(results / "throughput")


def _has_results(folder: Path) -> bool:
    return any(folder.glob("*.json"))
