"""The page of the dense-to-sparse experiment: verdicts and figures first, then the tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ....harness.results import Result, load_results
from ....pages.claims import case_table, claim_table, tally
from ....pages.repeat import unrepeatable
from ....pages.section import (
    Section,
    figure_stem,
    folded,
    provenance,
    runs_and_seeds,
    write_page,
)
from ....pages.verdicts import RULE
from .. import dense_to_sparse
from . import tables
from .captions import (
    derived,
    differences,
    scale,
    settings_table,
)
from .claims import claims
from .config import EXPERIMENT, METHODS
from .summary import NAMES, Comparison, comparisons

if TYPE_CHECKING:
    from .plots import Drawn

_RULE = f"""\
A difference is paired by seed, with its 95 % interval (Student) and the effect that this many seeds
detect with 80 % power. In Tables 1, 5 and 10 the spread is pooled over the rows. For two starts
from one mask, and for Sign-In with its control, it is what is left of a run after the means of its
row and of its seed. Starts share a seed's mask with their baseline, but neither initialisation nor
batches: there it is the mean variance of the differences to the baseline, with Satterthwaite's
degrees of freedom.
{RULE}
A claim of two halves (Table 1) is *not testable* where a detectable effect exceeds the paper's,
*holds partly* if the first lies above zero and the second below its bound, and *does not hold* if
the second lies below and the first not above. For flips and sharpness the paper prints no numbers,
and the interval decides alone. Of several cases, the testable ones decide."""

_FLIPS = """\
Flips are fractions of the survivors of the final mask whose sign differs between two moments; a
survivor without a sign at one of them, because the mask of that moment pruned it, is left out, and
the share of those is stated. k10 is the end of the warm-up, a tenth of the epochs. Flips per
survivor count every change from one epoch to the next. Sharpness is the largest eigenvalue of the
Hessian of the mean training loss in the surviving weights θ, biases and norms, in evaluation
mode."""

_ROWS = """\
The paper's columns are ResNet-50 on ImageNet. A row's verdict is that of its claim. What decides it
first is the gain of signs over the random start, of signs of the same epoch over magnitudes, or of
the baseline over the random start; *detectable* and *paper's* are of that difference. *No value
given* is the share of survivors for which the source had no sign or magnitude at that epoch."""

_GROWN = """\
An update exchanges the smallest survivors for the entries of largest gradient. *Grown in all*
counts every birth of a run; *entries that ever grew* were pruned at first, and count once. With
few of them a mask of RigL is little better than random. Runs with other layers than those of the
tables differ in nothing else."""


def write_pages(folder: Path, out: Path) -> list[Path]:
    """Write `dense_to_sparse.md`, its figures and that of the first page, where results exist."""
    # matplotlib is slow to import and only needed here.
    from . import first_page

    results = load_results(folder, [EXPERIMENT])
    if not results:
        return []
    title, claim, *rest = (dense_to_sparse.__doc__ or "").strip().split("\n\n")
    section = describe(results, out, details=True)
    text = "\n\n".join([section.text, "## The experiment", *rest])
    page = write_page(out / f"{EXPERIMENT}.md", f"{title.rstrip('.')}\n\n{claim}", Section(text))
    return [page, *first_page.draw(comparisons(results), out)]


def describe(results: Sequence[Result], plots: Path | None, *, details: bool = False) -> Section:
    """Make a section per group of runs with the same settings.

    Args:
        results: contents of result files.
        plots: folder to draw into; None draws nothing.
        details: show figures, settings and provenance too: for files, not for terminals.

    Returns:
        The Markdown and the figures drawn.
    """
    parts: list[str] = []
    drawn: list[Path] = []
    for group in comparisons(results):
        figures = {} if plots is None else _draw(group, plots)
        drawn += [figure.path for figure in figures.values()]
        shown = figures if details else {}
        judged = claims(group)
        parts += [f"## {scale(group)}", _runs(group), *unrepeatable(group.results)]
        parts += ["### Verdicts", tally(judged), claim_table(judged)]
        parts += _figures(shown, "table1", "figure1")
        if details:
            parts += [_RULE, *folded("Every case of every claim", case_table(judged))]
        parts += _accuracies(group)
        parts += ["### Signs and curvature at density 0.1", tables.sign_table(group)]
        parts += [_FLIPS, *_figures(shown, "figure5", "figure8")] if details else []
        layers = tables.layer_table(group)
        if details and layers is not None:
            parts += ["### Layerwise densities", *_figures(shown, "figure9")]
            parts += folded("The densities of Figure 9, layer by layer", layers)
        parts += _search(group)
        if details:
            parts += _provenance(group)
    return Section("\n\n".join(parts), drawn)


def _accuracies(group: Comparison) -> list[str]:
    parts = ["### Table 1: what a learned mask needs", tables.table1(group)]
    for method in METHODS:
        parts += [f"**{NAMES[method]}**{_spread(group, method)}"]
        parts += [tables.method_table(group, method)]
    grown = tables.growth_table(group)
    return [
        *parts,
        _ROWS,
        *([] if grown is None else ["### What RigL's updates grew", grown, _GROWN]),
        "### Table 5: AC/DC with Sign-In",
        tables.table5(group),
        "At density 0.1 the paper's own numbers are 74.75 and 74.74: there is no gain to look for.",
        "### Table 10: Sign-In on masks with a random start",
        tables.table10(group),
        "*Difference* is with Sign-In minus without. For STR and SynFlow the paper prints a loss, "
        "and the verdict is on a loss.",
    ]


def _spread(group: Comparison, method: str) -> str:
    found = {
        "a start and the baseline": group.spread_to_baseline(method),
        "two starts": group.spread_of_starts(method),
    }
    told = [
        f"{pair} of one seed differ by {spread.std:.2f} points ({spread.freedom:.1f} degrees of "
        "freedom)"
        for pair, spread in found.items()
        if spread is not None
    ]
    return f". Standard deviations: {'; '.join(told)}." if told else ": too few seeds to compare."


def _runs(group: Comparison) -> str:
    """Say what was run, and all of it that the paper gives otherwise."""
    others = [f"{count} of `{arm}`" for arm, count in sorted(group.left_out.items())]
    left_out = f" Not shown: {', '.join(others)} with other settings." if others else ""
    return (
        f"{runs_and_seeds(group.shown)}.{left_out} What differs from the paper's ImageNet runs: "
        f"{differences(group)}. ± is the standard deviation over seeds, n their number; "
        "— was not run."
    )


def _search(group: Comparison) -> list[str]:
    search = group.search
    if search is None:
        return []
    config = search["config"]
    missed = "" if search["found"] else ", the nearest that was found: none was near enough"
    told = (
        "STR's density cannot be set: the weight decay of s decides it. It was searched for over "
        f"full runs of seed {config['seed']}, for a density of {config['density']:g} ± "
        f"{config['search_tolerance']:g}, and is {search['decay']:.4g} for all seeds{missed}."
    )
    return ["### The search for STR's decay", told, tables.search_table(search)]


def _provenance(group: Comparison) -> list[str]:
    return [
        "### Settings and provenance",
        "\n".join([*derived(group), *provenance(group.tabulated)]),
        *folded("Every setting, with the paper's", settings_table(group)),
    ]


def _figures(figures: dict[str, Drawn], *names: str) -> list[str]:
    found = [figures[name] for name in names if name in figures]
    return [f"![{each.title}]({each.path.name})\n\n{each.caption}" for each in found]


def _draw(group: Comparison, folder: Path) -> dict[str, Drawn]:
    # matplotlib is slow to import and only needed here.
    from .plots import draw

    folder.mkdir(parents=True, exist_ok=True)
    names = (EXPERIMENT, group.config["dataset"], group.config["arch"])
    return draw(group, folder, figure_stem(names, group.shared))
