"""Pages of the sign papers: tables compared with the published numbers, provenance, figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...harness.results import Result
from ...pages.estimates import same_settings, shared_settings
from ...pages.published import Best, best_over_grid, setup
from ...pages.section import (
    Section,
    distinct,
    figure_stem,
    images,
    provenance,
    runs_and_seeds,
    seeds,
    spread_text,
    write_paper,
)
from . import fragility, zero_crossing
from .captions import caption
from .config import RunConfig
from .summary import VARIED, Sweep, sweeps
from .tables import accuracy_table, sign_table, summary_table

_SETTINGS = {
    "rounds": "rounds",
    "prune_base": "prune base",
    "epochs": "epochs per round",
    "optimizer": "optimizer",
    "lr": "learning rate",
    "momentum": "momentum (sgd)",
    "batch_size": "batch size",
    "weight_decay": "weight decay",
    "init": "initialisation",
    "prune_scope": "pruning scope",
    "sign_scope": "sign scope",
    "mix": "gradual's share of trained signs",
    "keep_rest": "biases and norms kept at a round",
    "holdout": "held out",
    "device": "device",
}


def write_pages(folder: Path, out: Path) -> list[Path]:
    """Write `<paper>.md` and its figures for every sign paper that has results."""
    return [
        page
        for paper in (fragility, zero_crossing)
        for page in write_paper(folder, out, paper.EXPERIMENT, paper.__doc__, describe)
    ]


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
    for group in same_settings(results, VARIED):
        config = group[0]["config"]
        parts.append(f"## {config['dataset']}, {config['arch']}")
        parts.append(_settings(group) if details else _scale(group))
        for sweep in sweeps(group):
            published = best_over_grid(
                config["experiment"], config["dataset"], config["arch"], sweep.kind
            )
            figures = _draw(group, sweep, published, plots) if plots is not None else []
            drawn += figures
            parts.append(f"### {sweep.kind}: final test accuracy (%)")
            parts += _coverage(config["experiment"], sweep)
            parts.append(accuracy_table(sweep))
            parts.append(summary_table(sweep, published))
            if details:
                parts += [f"![{figure.stem}]({figure.name})" for figure in figures]
                parts.append("Signs of the survivors at the last round, before training:")
                parts.append(sign_table(sweep))
    return Section("\n\n".join(parts), drawn)


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
    scale = (
        f"{images(group[0]['dataset'])}, {config['arch']}{width}\n"
        f"{config['rounds'] + 1} trainings of {config['epochs']} epochs; "
        f"{spread_text(len(seeds(group)))}"
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
        caption(RunConfig.from_json(result["config"]), result["dataset"]) for result in group
    )
    density = group[0]["final"]["density"]
    return (
        f"{runs_and_seeds(group)}; final density {density:.4f}. "
        f"Scale: {' / '.join(captions)}. ± is the standard deviation over seeds."
    )


def _settings(group: list[Result]) -> str:
    """State scale, settings and provenance of a group."""
    config = group[0]["config"]
    settings = "; ".join(f"{label} {config[key]}" for key, label in _SETTINGS.items())
    lines = [_scale(group), "", f"- Settings: {settings}", *provenance(group)]
    return "\n".join(lines)
