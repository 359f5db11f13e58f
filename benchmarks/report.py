"""Markdown reports from result files: tables beside the published numbers, provenance, plots."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.pages.published import PAPERS, setup

Result = dict[str, Any]

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


@dataclass
class ReportOptions:
    """Writes one Markdown report per paper from the result files of a folder."""

    # Folder with result files; folders below it are read too.
    results: Path = Path("runs")

    # Folder of the reports and their plots.
    out: Path = Path("runs/report")


@dataclass
class Section:
    """A piece of Markdown and the plots that it shows."""

    text: str
    plots: list[Path] = field(default_factory=list)


def main(options: ReportOptions) -> int:
    """Writes the reports and gives the exit code."""
    from benchmarks.harness.results import load_results
    from benchmarks.papers.sign_in.report import write_page as write_sign_in
    from benchmarks.papers.sign_in.sweep import load_results as load_sign_in

    written = write_reports(load_results(options.results), options.out)
    if sign_in := load_sign_in(options.results):
        written.append(write_sign_in(sign_in, options.out))
    for folder, page in _PAGES.items():
        if any((options.results / folder).glob("*.json")):
            written += page(options.results / folder, options.out)
    if not written:
        print(f"error: no result files in {options.results.resolve()}", file=sys.stderr)
        return 1
    for path in written:
        print(path)
    return 0


def _theory(results: Path, out: Path) -> list[Path]:
    from benchmarks.papers.sign_in_theory.report import report

    return report(results, out)


def _winning_sign(results: Path, out: Path) -> list[Path]:
    from benchmarks.papers.winning_sign.report import write

    return write(results, out)


def _zoo(results: Path, out: Path) -> list[Path]:
    from benchmarks.zoo import write_page

    return [write_page(path, out) for path in sorted(results.glob("*.json"))]


def _throughput(results: Path, out: Path) -> list[Path]:
    from benchmarks.throughput.command import write_page

    return [write_page(results, out)]


# Experiments that are no sweeps over one configuration keep their files in a folder of their own.
_PAGES = {
    "theory": _theory,
    "winning_sign": _winning_sign,
    "zoo": _zoo,
    "throughput": _throughput,
}


def write_reports(results: Sequence[Result], out: Path) -> list[Path]:
    """Writes `<paper>.md` for every paper that has results.

    Args:
        results: Result files' contents, of any papers and settings.
        out: Folder of the reports and the plots they show.

    Returns:
        The reports.
    """
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for experiment in PAPERS:
        mine = [result for result in results if result["experiment"] == experiment]
        if not mine:
            continue
        paper = (import_module(f"benchmarks.papers.signs.{experiment}").__doc__ or "").strip()
        section = experiment_markdown(mine, out, details=True)
        text = f"# {paper}\n\n{section.text}\n"
        path = out / f"{experiment}.md"
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return written


def experiment_markdown(
    results: Sequence[Result], plots: Path | None, *, details: bool = False
) -> Section:
    """Tables of one experiment, a section per group of runs with the same settings.

    Args:
        results: Results of one experiment.
        plots: Folder to draw into; None draws nothing.
        details: Show plots, sign statistics and provenance too: for files, not for terminals.

    Returns:
        The Markdown and the plots drawn.
    """
    from benchmarks.pages.published import best_over_grid
    from benchmarks.papers.signs.estimates import same_settings, sweeps
    from benchmarks.papers.signs.tables import accuracy_table, sign_table, summary_table

    parts: list[str] = []
    drawn: list[Path] = []
    for group in same_settings(results):
        config = group[0]["config"]
        parts.append(f"## {config['dataset']}, {config['arch']}")
        parts.append(_provenance(group) if details else _scale(group))
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


def _draw(group: list[Result], sweep: Any, published: Any, folder: Path) -> list[Path]:
    # matplotlib is slow to import and only needed here.
    from benchmarks.papers.signs.plots import plot_rounds, plot_sweep

    config = group[0]["config"]
    # Two groups of one network differ in settings that a file name has no room for.
    shared = {k: v for k, v in config.items() if k not in ("seed", "strategy", "perturbation")}
    digest = hashlib.sha256(repr(sorted(shared.items())).encode()).hexdigest()[:6]
    names = (config["experiment"], config["dataset"], config["arch"], sweep.kind)
    stem = "-".join((*names, digest))
    seeds = {result["config"]["seed"] for result in group}
    title = f"{config['dataset']}, {config['arch']}: "
    mean = "1 seed" if len(seeds) == 1 else f"mean over {len(seeds)} seeds"
    folder.mkdir(parents=True, exist_ok=True)
    figures = []
    if sweep.kind in ("epsilon", "delta", "phi"):
        spread = title + mean.replace("mean", "mean ± std")
        figures.append(plot_sweep(sweep, folder / f"{stem}.png", spread, published))
    figures.append(plot_rounds(sweep, folder / f"{stem}-rounds.png", title + mean))
    return figures


def _coverage(experiment: str, sweep: Any) -> list[str]:
    """Says where a sweep has fewer points than the paper's grid, where the paper gives one."""
    grid = set(setup(experiment).get("phi_center", ()))
    done = grid & {sweep.value(point) for point in sweep.points}
    if sweep.kind != "phi" or len(done) == len(grid):
        return []
    return [f"{len(done)} of the paper's {len(grid)} values."]


def _scale(group: list[Result]) -> str:
    seeds = sorted({result["config"]["seed"] for result in group})
    captions = _distinct(result["caption"] for result in group)
    density = group[0]["final"]["density"]
    return (
        f"{len(group)} runs, seeds {', '.join(map(str, seeds))}; final density {density:.4f}. "
        f"Scale: {' / '.join(captions)}. ± is the standard deviation over seeds."
    )


def _provenance(group: list[Result]) -> str:
    config = group[0]["config"]
    settings = "; ".join(f"{label} {config[key]}" for key, label in _SETTINGS.items())
    lines = [_scale(group), "", f"- Settings: {settings}", *provenance(group)]
    return "\n".join(lines)


def provenance(results: Sequence[Result]) -> list[str]:
    """Lines on the versions, machines and times behind some results."""
    versions = _distinct(
        ", ".join(f"{name} {number}" for name, number in result["versions"].items())
        for result in results
    )
    machines = _distinct(
        f"{machine['cpu']}, {machine['cores']} cores, threads per run {machine['threads']}, "
        f"device {machine['device']}"
        for machine in (result["machine"] for result in results)
    )
    commits = _distinct(result["git_commit"] or "unknown" for result in results)
    times = [result["seconds"] for result in results]
    days = sorted(result["started"][:10] for result in results)
    period = days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"
    return [
        f"- Versions: {' / '.join(versions)}; commit {' / '.join(commits)}",
        f"- Machine: {' / '.join(machines)}",
        f"- Time: {min(times):.0f} to {max(times):.0f} s per run, {period}",
    ]


def _distinct(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))
