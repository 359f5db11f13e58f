"""Pages of the sign papers: tables compared with the published numbers, provenance, figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...harness.results import Result, load_results
from ...pages.captions import settings_table
from ...pages.claims import case_table, claim_table, tally
from ...pages.estimates import shared_key, shared_settings
from ...pages.published import Best, best_over_grid, setup
from ...pages.repeat import unrepeatable
from ...pages.section import (
    Section,
    distinct,
    figure_stem,
    folded,
    images,
    provenance,
    runs_and_seeds,
    spread_text,
    write_page,
)
from ...pages.verdicts import RULE
from . import fragility, zero_crossing
from .captions import caption, settings
from .changed import SURVIVORS, gather, sensitivity_table, steps_section
from .claims import claims
from .config import RunConfig
from .controls import controls_table
from .summary import VARIED, Sweep, devices, groups_of, sweeps
from .tables import accuracy_table, sign_table, summary_table
from .thresholds import acting_table, chance_table
from .times import run_times
from .untrained import report as untrained

_EVERY_SETTING = "Every setting, with the paper's"
_RULE = f"""\
A difference is paired by seed, with its 95 % interval (Student) and the effect that this many seeds
detect with 80 % power; the spread is pooled over the rows that a claim compares.
{RULE}
Where the paper says "little" or "hardly" and prints no number, our bound is one point. Points of a
grid are chosen by the held-out images and judged by the test images."""
_BY_CHANCE = """\
The paper's way, the best test accuracy over the grid, gains even if no threshold does anything. Of
the small thresholds (all but ±0.1):"""
_ACTING = """\
`mask0` and `standard` take the sign of trained survivors, and pruning by magnitude leaves none that
is smaller than those it removed: a threshold nearer to zero than all of them changes no sign."""


def write_pages(folder: Path, out: Path) -> list[Path]:
    """Write `<paper>.md` and its figures for every sign paper that has results."""
    pages = []
    for paper in (fragility, zero_crossing):
        results = load_results(folder, [paper.EXPERIMENT])
        parts = [describe(results, out, details=True).text] if results else []
        parts += untrained.section(folder) if paper is zero_crossing else []
        if parts:
            text = Section("\n\n".join(parts))
            pages.append(write_page(out / f"{paper.EXPERIMENT}.md", paper.__doc__, text))
    return pages


def describe(results: Sequence[Result], plots: Path | None, *, details: bool = False) -> Section:
    """Make the tables of one experiment, a section per group of runs with the same settings.

    Args:
        results: results of one experiment.
        plots: folder to draw into; None draws nothing.
        details: show plots, sign statistics and provenance too: for files, not for terminals.

    Returns:
        The Markdown and the plots drawn.
    """
    parts: list[str] = []
    drawn: list[Path] = []
    sections = gather(groups_of(results))
    for gathered in sections:
        group = gathered.main
        config = group[0]["config"]
        parts += [f"## {config['dataset']}, {config['arch']}", _scale(group)]
        parts += [*unrepeatable(gathered.results), *run_times(group), *_verdicts(group, details)]
        for sweep in sweeps(group):
            published = best_over_grid(
                config["experiment"], config["dataset"], config["arch"], sweep.kind
            )
            figures = _draw(group, sweep, published, plots) if plots is not None else []
            drawn += figures
            parts.append(f"### {sweep.kind}: final test accuracy (%)")
            if details:
                parts += [f"![{figure.stem}]({figure.name})" for figure in figures]
            parts += _coverage(config["experiment"], sweep)
            parts += [accuracy_table(sweep), summary_table(sweep, published)]
            parts += _thresholds(sweep, _of_any_device(results, config))
            if details:
                title = "Signs of the survivors at the last round, before training"
                parts += folded(title, sign_table(sweep))
        random_masks = [result for each in gathered.by(SURVIVORS) for result in each.results]
        parts += [*controls_table(group, random_masks), *sensitivity_table(gathered)]
        if details:
            parts += ["\n".join(provenance(gathered.results))]
            parts += folded(_EVERY_SETTING, _settings(group))
    parts += steps_section(sections)
    return Section("\n\n".join(parts), drawn)


def _verdicts(group: Sequence[Result], details: bool) -> list[str]:
    """Judge the claims that are made for a group's data set and network."""
    judged = claims(group)
    if not judged:
        return []
    parts = ["### Verdicts", tally(judged), claim_table(judged)]
    if details:
        parts += [_RULE, *folded("Every case of every claim", case_table(judged))]
    return parts


def _of_any_device(results: Sequence[Result], config: dict[str, Any]) -> list[Result]:
    """Return all runs of some settings, those too that two devices performed."""
    key = shared_key(config, VARIED)
    return [result for result in results if shared_key(result["config"], VARIED) == key]


def _thresholds(sweep: Sweep, results: Sequence[Result]) -> list[str]:
    """Say what a threshold could act on, and what the best of the grid gains by chance."""
    if sweep.kind != "phi":
        return []
    by_chance, acting = chance_table(sweep), acting_table(results)
    parts = [_BY_CHANCE, by_chance] if by_chance else []
    return [*parts, _ACTING, acting] if acting else parts


def _draw(
    group: list[Result], sweep: Sweep, published: dict[str, Best], folder: Path
) -> list[Path]:
    """Draw the figures of a sweep."""
    # matplotlib is slow to import and only needed here.
    from .plots import plot_rounds, plot_sweep

    config = group[0]["config"]
    names = (config["experiment"], config["dataset"], config["arch"], sweep.kind)
    stem = figure_stem(names, repr(sorted(shared_settings(config, VARIED).items())))
    folder.mkdir(parents=True, exist_ok=True)
    width = f" of width {config['width']}" if config.get("width") else ""
    counts = [len(found) for found in sweep.cells.values() if found]
    scale = (
        f"{images(group[0]['dataset'])}, {config['arch']}{width}\n"
        f"{config['rounds'] + 1} trainings of {config['epochs']} epochs; "
        f"{spread_text(max(counts), min(counts))}"
    )
    figures = []
    if sweep.kind in ("epsilon", "delta", "delta_largest", "phi"):
        figures.append(plot_sweep(sweep, folder / f"{stem}.png", scale, published))
    figures.append(plot_rounds(sweep, folder / f"{stem}-rounds.png", scale))
    return figures


def _coverage(experiment: str, sweep: Sweep) -> list[str]:
    """Say where a sweep has fewer points than the paper's grid, where the paper gives one."""
    grid = set(setup(experiment).get("phi_center", ()))
    done = grid & {sweep.value(point) for point in sweep.points}
    if sweep.kind != "phi" or len(done) == len(grid):
        return []
    return [f"{len(done)} of the paper's {len(grid)} values."]


def _scale(group: list[Result]) -> str:
    """Say what was run, and how much smaller than the paper's it is."""
    captions = distinct(
        caption(
            replace(RunConfig.from_json(result["config"]), device=devices(group)),
            result["dataset"],
        )
        for result in group
    )
    density = group[0]["final"]["density"]
    return (
        f"{runs_and_seeds(group)}; final density {density:.4f}. "
        f"Scale: {' / '.join(captions)}. ± is the standard deviation over seeds."
    )


def _settings(group: list[Result]) -> str:
    """Tabulate every setting of a group, with the paper's."""
    config = RunConfig.from_json(group[0]["config"])
    return settings_table(settings(config, group[0]["dataset"]))
