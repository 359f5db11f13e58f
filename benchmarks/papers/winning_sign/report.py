"""The page on "Find a Winning Sign": tables in the paper's layout, barriers, figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ...harness.results import Result, load_results
from ...pages.captions import settings_table
from ...pages.claims import case_table, claim_table, detectable, shown, tally
from ...pages.estimates import cell
from ...pages.markdown import markdown
from ...pages.paired import compare
from ...pages.repeat import unrepeatable
from ...pages.section import (
    Section,
    folded,
    provenance,
    runs_and_seeds,
    write_page,
)
from ...pages.verdicts import RULE
from .. import winning_sign
from .captions import caption, rows_of
from .cells import scale
from .claims import Runs, claims
from .config import EXPERIMENT
from .contestants import CONTESTANTS, PARTS, pair_label
from .summary import Outcomes, settings

_RULE = f"""\
A difference is paired by seed, with its 95 % interval (Student) and the effect that this many seeds
detect with 80 % power; in accuracy the spread is pooled over all sparse contestants and ratios.
{RULE}
The paper's effect is that of Table 2 at the nearest ratio. Where the paper says "comparable" and
prints no number, our bound is one point. LRR's and AWS's networks have trained for longer than
fresh ones: a verdict in their favour must survive what a dense network gains by training as long.
Where that is more than any difference of two sparse networks that Table 2 prints, nothing has
converged, and no claim is tested."""
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
    results = load_results(folder, [EXPERIMENT])
    if not results:
        return []
    title, claim, *rest = (winning_sign.__doc__ or "").strip().split("\n\n")
    section = describe(results, out, details=True)
    text = "\n\n".join([section.text, "## The experiment", *rest])
    return [write_page(out / f"{EXPERIMENT}.md", f"{title}\n\n{claim}", Section(text))]


def describe(results: Sequence[Result], plots: Path | None, *, details: bool = False) -> Section:
    """Make a section for each setting: its verdicts and, where a folder is given, its figures.

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
        figures: dict[str, tuple[Path, str]] = {}
        if plots is not None:
            from .plots import draw

            figures = draw(outcomes, plots)
            drawn += [path for path, _ in figures.values()]
        pictures = figures if details else {}
        judged = claims(outcomes)
        parts += [f"## {scale(outcomes)}", _runs(outcomes), *unrepeatable(outcomes.results)]
        parts += ["### Verdicts", tally(judged), claim_table(judged)]
        parts += _figures(pictures, "differences", "figure3")
        if details:
            parts += [_RULE, *folded("Every case of every claim", case_table(judged))]
        parts += ["### Test accuracy (%) after the full schedule"]
        accuracies = accuracy_table(outcomes)
        parts += folded("Every contestant at every ratio", accuracies) if details else [accuracies]
        parts += _gems(outcomes)
        if differences := difference_table(outcomes):
            parts += ["### Differences, seed by seed (points of accuracy)", differences]
        parts += _barriers(outcomes)
        rest = [name for name in pictures if name not in ("differences", "figure3")]
        parts += _figures(pictures, *rest)
        if details:
            parts += ["### Settings and provenance", _provenance(outcomes)]
            table = settings_table(rows_of(outcomes))
            parts += folded("Every setting, with the paper's", table)
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
    """Tabulate what the claims compare, as paired differences with their 95 % intervals."""
    runs, rounds = Runs(outcomes), outcomes.rounds
    head = ["difference", *(f"{outcomes.density(round):.3f}" for round in rounds), "detectable"]
    rows = []
    for one, other in _DIFFERENCES:
        found = [
            compare(runs.seeds(one, k), runs.seeds(other, k), runs.spread)
            if other != "dense_longer" or k == outcomes.barrier_round
            else None
            for k in rounds
        ]
        if any(found):
            labels = [CONTESTANTS[name].label for name in (one, other)]
            effects = dict.fromkeys(detectable(each) for each in found if each is not None)
            name = f"({labels[0]}) − ({labels[1]})"
            rows.append([name, *map(shown, found), "; ".join(effects)])
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


def _runs(outcomes: Outcomes) -> str:
    """Say what was run, and all of it that the paper gives otherwise."""
    weights = next((r["total"] for r in outcomes.results if "total" in r), None)
    counted = f" {weights:,} weights are masked (remaining ratio 1)." if weights else ""
    fitted = [r["train_accuracy"] for r in outcomes.results if "train_accuracy" in r]
    ends = (
        f" Train accuracy at the end: {min(fitted):.0f} to {max(fitted):.0f} %." if fitted else ""
    )
    return (
        f"{runs_and_seeds(outcomes.results)}. Scale: {caption(outcomes)}.{counted}{ends} "
        "± is the standard deviation over seeds; where seeds are missing, their number stands in "
        "brackets."
    )


def _barriers(outcomes: Outcomes) -> list[str]:
    barriers = barrier_table(outcomes)
    if not barriers:
        return []
    ratio = outcomes.density(outcomes.barrier_round or 0)
    return [
        f"### Error barriers at remaining ratio {ratio:.3f} (points of test error)",
        "Supremum over 11 points of the test error above the mean of both ends.",
        barriers,
    ]


def _provenance(outcomes: Outcomes) -> str:
    hours = sum(result["seconds"] for result in outcomes.results) / 3600
    return "\n".join(provenance(outcomes.results, f"{hours:.1f} h in all"))


def _figures(figures: Mapping[str, tuple[Path, str]], *names: str) -> list[str]:
    found = [figures[name] for name in names if name in figures]
    return [f"![{told}]({path.name})\n\n*{told}*" for path, told in found]
