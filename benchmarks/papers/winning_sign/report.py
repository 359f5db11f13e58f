"""The page on "Find a Winning Sign": tables in the paper's layout, barriers, figures.

`write(results_folder, out)` makes `winning_sign.md` and its figures from committed result files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.papers.signs.estimates import Estimate
from benchmarks.papers.signs.tables import markdown
from benchmarks.papers.winning_sign.contestants import CONTESTANTS, PARTS
from benchmarks.papers.winning_sign.outcomes import Outcomes, settings
from benchmarks.papers.winning_sign.scale import details, scale
from benchmarks.papers.winning_sign.store import Result, load_results

_NONE = "—"
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


def write(results_folder: Path, out: Path) -> list[Path]:
    """Writes `winning_sign.md` and its figures.

    Args:
        results_folder: Folder of the result files.
        out: Folder of the page and its figures.

    Returns:
        The page; nothing where there are no results.
    """
    from benchmarks.papers.winning_sign import command

    results = load_results(results_folder)
    if not results:
        return []
    out.mkdir(parents=True, exist_ok=True)
    text, _ = group_markdown(results, out, page=True)
    path = out / "winning_sign.md"
    path.write_text(f"# {(command.__doc__ or '').strip()}\n\n{text}\n", encoding="utf-8")
    return [path]


def group_markdown(
    results: Iterable[Result], plots: Path | None, *, page: bool = False
) -> tuple[str, list[Path]]:
    """A section for each setting: its tables and, where a folder is given, its figures.

    Args:
        results: Results of any settings.
        plots: Folder to draw into; None draws nothing.
        page: Show figures and provenance too: for files, not for terminals.
    """
    parts: list[str] = []
    drawn: list[Path] = []
    for outcomes in settings(results):
        parts.append(f"## {outcomes.dataset}, {outcomes.arch}")
        parts.append(details(outcomes) if page else scale(outcomes))
        figures: list[tuple[Path, str]] = []
        if plots is not None:
            from benchmarks.papers.winning_sign.plots import draw

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
        if page:
            for path, caption in figures:
                parts.append(f"![{caption}]({path.name})\n\n*{caption}*")
    return "\n\n".join(parts), drawn


def accuracy_table(outcomes: Outcomes) -> str:
    """Table 2's layout: contestants below each other, a block per remaining ratio."""
    head = ["method", "AWS subnetwork", "trained from θ_init", "top-1 (%)", "remaining"]
    dense = outcomes.accuracy("dense", 0)
    rows = [["dense network", "-", "-", _cell(dense, outcomes), "1"]]
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
                    _cell(found, outcomes),
                    f"{outcomes.density(round):.3f}" if contestant.finder else "1",
                ]
            )
    return markdown(head, rows)


def difference_table(outcomes: Outcomes) -> str:
    """What the claims compare, as paired differences; no ordering is read into them."""
    rounds = outcomes.rounds
    head = ["difference", *(f"{outcomes.density(round):.3f}" for round in rounds)]
    rows = []
    for one, other in _DIFFERENCES:
        cells = [_signed(outcomes.difference(one, other, round)) for round in rounds]
        if any(cell != _NONE for cell in cells):
            labels = [CONTESTANTS[name].label for name in (one, other)]
            rows.append([f"({labels[0]}) − ({labels[1]})", *cells])
    return markdown(head, rows) if rows else ""


def barrier_table(outcomes: Outcomes) -> str:
    """Error barriers of every pair, mean ± std over seeds."""
    pairs = dict.fromkeys(pair for part in PARTS.values() for pair in part.pairs)
    rows = []
    for kind, what in _WHAT.items():
        for pair in pairs:
            found = outcomes.barrier(pair) if pair.startswith(f"{kind}:") else None
            if found is not None:
                rows.append([what, pair_label(pair), _cell(found, outcomes)])
    return markdown(["path", "network", "barrier"], rows) if rows else ""


def pair_label(pair: str) -> str:
    """The network that a pair is about, as tables and legends call it."""
    name = pair.split(":", 1)[1]
    return CONTESTANTS.get(name, CONTESTANTS.get(f"init+{name}", CONTESTANTS["dense"])).label


def _gems(outcomes: Outcomes) -> list[str]:
    """How far Gem-Miner's scores got by themselves."""
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


def _cell(found: Estimate | None, outcomes: Outcomes) -> str:
    if found is None:
        return _NONE
    seeds: Sequence[int] = outcomes.seeds
    return str(found) if found.count == len(seeds) else f"{found} ({found.count})"


def _signed(found: Estimate | None) -> str:
    if found is None:
        return _NONE
    spread = "" if found.std is None else f" ± {found.std:.2f}"
    return f"{found.mean:+.2f}{spread}".replace("-", "−")
