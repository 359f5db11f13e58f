"""The papers' figures: accuracy against the size of a perturbation, and accuracy round by round."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator

from polarity import plot

from ...pages.estimates import estimate
from ...pages.published import Best
from ...pages.style import BLACK, BLUE, GREY, LEAST, RED, SKY, drawn, save, title
from .config import Perturbation
from .summary import Sweep
from .tables import SYMBOLS, point_label

_AXIS = {
    "epsilon": "ε: fraction of surviving signs flipped",
    "delta": "δ: fraction of survivors (smallest first) whose signs are drawn anew",
    "delta_largest": "δ: fraction of survivors (largest first) whose signs are drawn anew",
    "phi": "φ: threshold above which a reference weight counts as positive",
}
# The perturbations that are drawn as lines, from the smallest value to the largest.
_LINES = ((SKY, "v"), (BLUE, "s"), (RED, "o"))
_MANY = 4


def plot_sweep(sweep: Sweep, path: Path, scale: str, published: dict[str, Best]) -> Path:
    """Draw final test accuracy against the perturbation: mean ± std, a line per strategy.

    Args:
        sweep: a sweep over one kind of perturbation.
        path: the PNG to write.
        scale: what was run, for the title.
        published: the paper's best; drawn as a star where the paper says at which point it lies.

    Returns:
        The path.
    """
    stars = {
        strategy: (best.at, best.accuracy)
        for strategy, best in published.items()
        if best.at is not None and strategy in sweep.strategies
    }
    lines = {
        strategy: [
            (sweep.value(point), found)
            for point in sweep.points
            if (found := sweep.final(strategy, point, "test_accuracy")) is not None
        ]
        for strategy in sweep.strategies
    }
    bars = [(found.mean, found.std or 0.0) for line in lines.values() for _, found in line]
    bars += [(accuracy, 0.0) for _, accuracy in stars.values()]
    values = [sweep.value(point) for point in sweep.points] + [at for at, _ in stars.values()]
    places = _places(sweep.kind, values)
    looks = plot.looks(sweep.strategies)
    with plot.style():
        figure = Figure(figsize=(6.4, 4.1), layout="constrained")
        ((*parts,),) = _panels(figure, 1, 1, bars)
        for axes in parts:
            for place, (strategy, line) in enumerate(lines.items()):
                # A little space between the strategies keeps their whiskers apart.
                shift = 0.01 * (max(places.values()) - min(places.values()))
                shift *= place - (len(lines) - 1) / 2
                xs = [places[value] + shift for value, _ in line]
                plot.points(axes, xs, drawn([found for _, found in line]), **looks[strategy])
            for strategy, (at, accuracy) in stars.items():
                colour = looks[strategy]["color"]
                star: Any = {"ms": 11, "mfc": "none", "mec": colour, "zorder": 5}
                axes.plot(places[at], accuracy, "*", **star)
            _perturbation_axis(axes, sweep.kind, places)
        _lengthen(parts)
        parts[-1].set_xlabel(_AXIS[sweep.kind])
        figure.supylabel("final test accuracy (%)")
        title(figure, "Test accuracy after the last round", scale)
        if stars:
            # For the legend alone.
            star = Line2D([], [], ls="", marker="*", ms=11, mfc="none", mec=BLACK)
            parts[0].add_line(star)
            star.set_label("published best")
        plot.legend(figure, where="below", columns=5)
        return save(figure, path)


def plot_rounds(sweep: Sweep, path: Path, scale: str) -> Path:
    """Draw test accuracy against density, a panel per strategy.

    Many grid points are drawn as the unperturbed one, three of the others, and a band that the
    means of the rest lie in.

    Args:
        sweep: any sweep.
        path: the PNG to write.
        scale: what was run, for the title.

    Returns:
        The path.
    """
    columns = min(2, len(sweep.strategies))
    rows = -(-len(sweep.strategies) // columns)
    curves = {
        (strategy, point): curve
        for strategy in sweep.strategies
        for point in sweep.points
        if (curve := _curve(sweep, strategy, point))[0]
    }
    looks = _looks(sweep)
    with plot.style():
        figure = Figure(figsize=(3.4 * columns + 0.6, 2.5 * rows + 1.3), layout="constrained")
        panels = _panels(
            figure, rows, columns, [(e.mean, 0.0) for _, es in curves.values() for e in es]
        )
        for strategy, parts in zip(sweep.strategies, panels, strict=False):
            # `standard` only remembers its mask: the axis is the mask's density, not the network's.
            note = " (mask not enforced)" if strategy == "standard" else ""
            parts[0].set_title(strategy + note, loc="left")
            mine = {point: curve for (who, point), curve in curves.items() if who == strategy}
            for axes in parts:
                _rest(axes, [curve for point, curve in mine.items() if point not in looks], sweep)
                for point, look in looks.items():
                    if point in mine:
                        plot.points(axes, *mine[point], band=True, **look)
                        axes.lines[-1].set_zorder(3 if point else 4)
        for axes in (axes for parts in panels[len(sweep.strategies) :] for axes in parts):
            axes.set_visible(False)
        longest = max((xs for xs, _ in curves.values()), key=len)
        for axes in figure.axes:
            plot.density_axis(axes, longest, label="")
        for parts in panels:
            _lengthen(parts)
        for parts in panels[: len(sweep.strategies)][-columns:]:
            parts[-1].set_xlabel("density of the mask (%)")
            parts[-1].tick_params(labelbottom=True)
        figure.supylabel("test accuracy (%)")
        title(figure, "Test accuracy after each round", scale)
        plot.legend(figure, where="below", columns=5)
        return save(figure, path)


def _panels(
    figure: Figure, rows: int, columns: int, bars: Sequence[tuple[float, float]]
) -> list[list[Axes]]:
    """Make equal panels; each is two, one above the other, where some runs lie far below the rest.

    On one axis a few runs near chance would press all others into a line. `bars` are the means and
    half lengths of what will be drawn; a bar ends at the latest where the axis is interrupted.
    """
    cut = _gap([mean for mean, _ in bars])
    if cut is None:
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        grid[0, 0].margins(y=0.08)
        return [[axes] for axes in grid.flat]
    ratios = [3, 1] * rows
    grid = figure.subplots(2 * rows, columns, sharex=True, squeeze=False, height_ratios=ratios)
    below = [y for mean, half in bars if mean < cut for y in (mean - half, min(mean + half, cut))]
    above = [y for mean, half in bars if mean > cut for y in (max(mean - half, cut), mean + half)]
    for place, axes in np.ndenumerate(grid):
        upper = place[0] % 2 == 0
        values = above if upper else below
        margin = 0.08 * (max(values) - min(values)) + 0.1
        axes.set_ylim(min(values) - margin, max(values) + margin)
        axes.tick_params(labelleft=place[1] == 0)
        # Slanted strokes where the axis is interrupted.
        stroke = {"marker": [(-1, -0.6), (1, 0.6)], "ms": 7, "color": "black", "clip_on": False}
        axes.plot(0, 0 if upper else 1, ls="", mew=0.8, transform=axes.transAxes, **stroke)
        if upper:
            axes.spines.bottom.set_visible(False)
            axes.tick_params(axis="x", length=0)
        else:
            axes.yaxis.set_major_locator(MaxNLocator(3))
    return [
        [grid[2 * row, column], grid[2 * row + 1, column]]
        for row in range(rows)
        for column in range(columns)
    ]


def _gap(accuracies: Sequence[float]) -> float | None:
    """Find the middle of the empty stretch that an axis can leave out, if there is a wide one."""
    ordered = sorted(accuracies)
    widest, low, high = max((b - a, a, b) for a, b in pairwise((*ordered, ordered[-1])))
    wide = widest > 15 and widest > 0.4 * (ordered[-1] - ordered[0])
    return (low + high) / 2 if wide else None


def _lengthen(parts: Sequence[Axes]) -> None:
    """Keep the accuracies of a panel from being zoomed in on."""
    plot.widen(parts[0], LEAST, within=(0, 100.2))


def _places(kind: str, values: Sequence[float]) -> dict[float, float]:
    """Return where each value stands: thresholds of many magnitudes stand at equal distances."""
    ordered = sorted(set(values))
    return (
        {v: float(at) for at, v in enumerate(ordered)} if kind == "phi" else {v: v for v in ordered}
    )


def _perturbation_axis(axes: Axes, kind: str, places: dict[float, float]) -> None:
    if kind == "phi":
        names = [_short(f"{value:g}") for value in places]
        axes.set_xticks(list(places.values()), names, rotation=40 if len(names) > 8 else 0)
    elif len(places) <= 12:
        axes.xaxis.set_major_locator(FixedLocator(list(places)))


def _curve(
    sweep: Sweep, strategy: str, point: Perturbation
) -> tuple[list[float], list[plot.Estimate]]:
    """Return densities and test accuracies, over the rounds that all seeds have."""
    runs = [result["rounds"] for result in sweep.results(strategy, point)]
    shared = range(min(map(len, runs), default=0))
    found = (estimate(run[k]["test_accuracy"] for run in runs) for k in shared)
    densities = [fmean(run[k]["density"] for run in runs) for k in shared]
    return densities, drawn([each for each in found if each is not None])


def _looks(sweep: Sweep) -> dict[Perturbation, dict[str, Any]]:
    """Return how the points that are drawn as lines look; of many, a few are chosen."""
    points = [point for point in sweep.points if point]
    if len(points) > _MANY:
        points = [points[0], points[len(points) // 2], points[-1]]
    symbol = SYMBOLS.get(sweep.kind, "")
    looks: dict[Perturbation, dict[str, Any]] = {}
    if () in sweep.points:
        looks[()] = {"color": BLACK, "ls": "--", "marker": "D", "ms": 3, "label": "unperturbed"}
    for place, point in enumerate(points):
        colour, mark = _LINES[place % len(_LINES)]
        label = _short(point_label(sweep.kind, point))
        looks[point] = {
            "color": colour,
            "marker": mark,
            "ms": 3,
            "label": f"{symbol} = {label}" if symbol else label,
        }
    return looks


def _rest(
    axes: Axes, curves: Sequence[tuple[list[float], list[plot.Estimate]]], sweep: Sweep
) -> None:
    """Draw the band in which the means of other grid points lie."""
    if not curves:
        return
    rounds = min(len(xs) for xs, _ in curves)
    low, high = (
        [end(estimates[k].mean for _, estimates in curves) for k in range(rounds)]
        for end in (min, max)
    )
    # Strategies may have different numbers of points, and one entry of the legend is for all.
    label = f"means of the other {SYMBOLS.get(sweep.kind, 'perturbations')}"
    look: Any = {"facecolor": "none", "edgecolor": GREY, "hatch": "////", "lw": 0, "alpha": 0.7}
    axes.fill_between(curves[0][0][:rounds], low, high, label=label, **look)


def _short(label: str) -> str:
    return label.replace("e-0", "e-").replace("-", "−")
