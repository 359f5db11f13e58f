"""The page on "Find a Winning Sign": tables in the paper's layout, barriers, figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...harness.results import Result
from ...pages.estimates import Estimate, cell
from ...pages.markdown import NONE, markdown
from ...pages.section import Section, write_paper
from .. import winning_sign
from .config import EXPERIMENT
from .contestants import CONTESTANTS, PARTS, pair_label
from .scale import full_scale, scale
from .summary import Outcomes, settings

_YES, _NO = "yes", "no"
# Tickets that are trained from the one initialisation they were found for.
_OWN = {"imp": "its own", "gem_miner": "its own"}
# Differences that the claim is about, and what Table 2 has for them at the nearest density.
_DIFFERENCES = (
    ("aws", "lrr"),
    ("init+lrr_sign", "lrr"),
    ("init+aws_sign", "aws"),
    ("init+aws_sign", "init+lrr_sign"),
    ("init+aws_sign", "dense"),
    ("aws", "dense_longer"),
    ("init+lrr_sign", "init+lrr_mask"),
    ("init+lrr_sign+norms", "init+lrr_sign"),
    ("init+lrr_sign+norm_signs", "init+lrr_sign"),
    ("init+lrr_sign+norm_signs", "init+lrr_sign+norm_bias"),
    ("init+aws_sign", "gem_miner"),
)
_WHAT = {
    "noise": "SGD noise, the paper's (one start, two orders)",
    "two-inits": "SGD noise, the official script's (two initialisations)",
    "solution": "to the solution of the ticket's finder",
    "norms": "found network to the same with initial norms, before final training",
}


def write_pages(folder: Path, out: Path) -> list[Path]:
    """Write `winning_sign.md` and its figures where there are results."""
    return write_paper(folder, out, EXPERIMENT, winning_sign.__doc__, describe)


def describe(results: Sequence[Result], plots: Path | None, *, details: bool = False) -> Section:
    """Make a section for each setting: its tables and, where a folder is given, its figures.

    Args:
        results: results of any settings.
        plots: folder to draw into; None draws nothing.
        details: show figures and provenance too: for files, not for terminals.

    Returns:
        The Markdown and the figures drawn.
    """
    parts: list[str] = []
    drawn: list[Path] = []
    for outcomes in settings(results):
        parts.append(f"## {outcomes.dataset}, {outcomes.arch}")
        parts.append(full_scale(outcomes) if details else scale(outcomes))
        figures: list[tuple[Path, str]] = []
        if plots is not None:
            from .plots import draw

            figures = draw(outcomes, plots)
            drawn += [path for path, _ in figures]
        parts += ["### Test accuracy (%) after the full schedule", accuracy_table(outcomes)]
        parts += _gems(outcomes)
        differences = difference_table(outcomes)
        if differences:
            parts += ["### Differences, seed by seed (points of accuracy)", differences]
        barriers = barrier_table(outcomes)
        if barriers:
            round = outcomes.barrier_round or 0
            parts += [
                f"### Error barriers at remaining ratio {outcomes.density(round):.3f} "
                "(points of test error)",
                "Supremum over 11 points of the test error above the mean of both ends.",
                barriers,
            ]
        if details:
            for path, caption in figures:
                parts.append(f"![{caption}]({path.name})\n\n*{caption}*")
    return Section("\n\n".join(parts), drawn)


def accuracy_table(outcomes: Outcomes) -> str:
    """Tabulate accuracies in Table 2's layout: contestants in rows, a block per remaining ratio."""
    head = ["method", "AWS subnetwork", "trained from θ_init", "top-1 (%)", "remaining"]
    dense = outcomes.accuracy("dense", 0)
    rows = [["dense network", "-", "-", cell(dense, len(outcomes.seeds)), "1"]]
    for round in outcomes.rounds:
        for name, contestant in CONTESTANTS.items():
            found = outcomes.accuracy(name, round)
            if name == "dense" or found is None:
                continue
            rows.append(
                [
                    contestant.label,
                    _YES if contestant.finder == "aws" else _NO,
                    _YES if contestant.fresh else _OWN.get(name, _NO),
                    cell(found, len(outcomes.seeds)),
                    f"{outcomes.density(round):.3f}" if contestant.finder else "1",
                ]
            )
    return markdown(head, rows)


def difference_table(outcomes: Outcomes) -> str:
    """Tabulate what the claims compare, as paired differences; no ordering is read into them."""
    rounds = outcomes.rounds
    head = ["difference", *(f"{outcomes.density(round):.3f}" for round in rounds)]
    rows = []
    for one, other in _DIFFERENCES:
        cells = [_signed(outcomes.difference(one, other, round)) for round in rounds]
        if any(each != NONE for each in cells):
            labels = [CONTESTANTS[name].label for name in (one, other)]
            rows.append([f"({labels[0]}) − ({labels[1]})", *cells])
    return markdown(head, rows) if rows else ""


def barrier_table(outcomes: Outcomes) -> str:
    """Tabulate the error barriers of every pair, mean ± std over seeds."""
    pairs = dict.fromkeys(pair for part in PARTS.values() for pair in part.pairs)
    rows = []
    for kind, what in _WHAT.items():
        for pair in pairs:
            found = outcomes.barrier(pair) if pair.startswith(f"{kind}:") else None
            if found is not None:
                rows.append([what, pair_label(pair), cell(found, len(outcomes.seeds))])
    return markdown(["path", "network", "barrier"], rows) if rows else ""


def _gems(outcomes: Outcomes) -> list[str]:
    """Say how far Gem-Miner's scores got by themselves."""
    runs = outcomes.runs("rounds", "gem_miner").values()
    records = [record for run in runs for record in run["records"] if record["round"]]
    if not records:
        return []
    reported = set(outcomes.rounds)
    mined = [record["test_accuracy"] for record in records if record["round"] in reported]
    away = [record["rounded_away"] for record in records if record["round"] in reported]
    config = next(iter(runs))["config"]
    return [
        f"Gem-Miner: scores trained at learning rate {config['score_lr']:g} with penalty "
        f"{config['score_penalty']:g}. Before any weight was trained its subnetworks had "
        f"{min(mined):.1f} to {max(mined):.1f} % test accuracy at these ratios; up to "
        f"{100 * max(away):.1f} % of the weights that it kept had scores that round to 0."
    ]


def _signed(found: Estimate | None) -> str:
    if found is None:
        return NONE
    spread = "" if found.std is None else f" ± {found.std:.2f}"
    return f"{found.mean:+.2f}{spread}".replace("-", "−")
