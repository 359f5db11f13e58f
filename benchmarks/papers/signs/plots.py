"""The papers' figures: accuracy against the size of a perturbation, and accuracy round by round."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator

from ...pages.published import Best
from ...pages.style import BLUE, GREEN, GREY, RED, drawing, error_bars, save, ticks
from .config import Perturbation
from .summary import Sweep
from .tables import SYMBOLS, point_label

_LOOKS = {
    "gradual": (GREEN, "D"),
    "mask0": (BLUE, "s"),
    "mask1": (RED, "o"),
    "standard": (GREY, "^"),
}
_AXIS = {
    "epsilon": "ε: fraction of surviving signs flipped",
    "delta": "δ: fraction of survivors (smallest first) whose signs are drawn anew",
    "phi": "φ: threshold above which a reference weight counts as positive",
}


def plot_sweep(sweep: Sweep, path: Path, title: str, published: dict[str, Best]) -> Path:
    """Draw final test accuracy against the perturbation: mean ± std, a line per strategy.

    Args:
        sweep: a sweep over one kind of perturbation.
        path: the PNG to write.
        title: stands above the figure.
        published: the paper's best; drawn as a star where the paper says at which point it lies.

    Returns:
        The path.
    """
    stars = {
        strategy: (best.at, best.accuracy)
        for strategy, best in published.items()
        if best.at is not None and strategy in sweep.strategies
    }
    finals = [
        found
        for strategy in sweep.strategies
        for point in sweep.points
        if (found := sweep.final(strategy, point, "test_accuracy")) is not None
    ]
    bars = [(found.mean, found.std or 0.0) for found in finals]
    bars += [(accuracy, 0.0) for _, accuracy in stars.values()]
    with drawing():
        figure = Figure(figsize=(6.4, 3.9), layout="constrained")
        ((*parts,),) = _panels(figure, 1, 1, bars)
        for axes in parts:
            _perturbation_axis(axes, sweep)
            for place, strategy in enumerate(sweep.strategies):
                # A little space between the strategies keeps their error bars apart.
                shift = 0.008 * (place - (len(sweep.strategies) - 1) / 2)
                _strategy_line(axes, sweep, strategy, shift)
            for strategy, (at, accuracy) in stars.items():
                colour = _LOOKS[strategy][0]
                axes.plot(at, accuracy, "*", ms=11, mfc="none", mec=colour, zorder=5)
        parts[-1].set_xlabel(_AXIS[sweep.kind])
        figure.supylabel("final test accuracy (%)")
        handles, labels = parts[0].get_legend_handles_labels()
        if stars:
            handles.append(Line2D([], [], ls="", marker="*", ms=11, mfc="none", mec="#333333"))
            labels.append("published best")
        # Above the axes a legend can hide nothing.
        figure.legend(handles, labels, loc="outside upper center", ncols=5, title=title)
        return save(figure, path)


def plot_rounds(sweep: Sweep, path: Path, title: str) -> Path:
    """Draw test accuracy against density, a panel per strategy and a line per grid point.

    Args:
        sweep: any sweep.
        path: the PNG to write.
        title: stands above the figure.

    Returns:
        The path.
    """
    columns = min(2, len(sweep.strategies))
    rows = -(-len(sweep.strategies) // columns)
    lines = {
        (strategy, point): _round_means(sweep, strategy, point)
        for strategy in sweep.strategies
        for point in sweep.points
    }
    with drawing():
        figure = Figure(figsize=(3.3 * columns + 1.2, 2.6 * rows + 0.7), layout="constrained")
        bars = [(y, 0.0) for _, ys in lines.values() for y in ys]
        panels = _panels(figure, rows, columns, bars)
        # cividis without its lightest end, which is lost on white.
        colours = colormaps["cividis"].resampled(256)
        last = max(1, len(sweep.points) - 1)
        shades = {p: colours(0.92 * i / last) for i, p in enumerate(sweep.points)}
        for strategy, parts in zip(sweep.strategies, panels, strict=False):
            # `standard` only remembers its mask: the axis is the mask's density, not the network's.
            note = " (mask not enforced)" if strategy == "standard" else ""
            parts[0].set_title(strategy + note, loc="left")
            for axes in parts:
                for point in sweep.points:
                    label = point_label(sweep.kind, point)
                    _round_line(axes, lines[strategy, point], label, shades[point], not point)
        for axes in (axes for parts in panels[len(sweep.strategies) :] for axes in parts):
            axes.set_visible(False)
        _density_axis(panels[0][0], max((xs for xs, _ in lines.values()), key=len))
        figure.supxlabel("density of the mask (%), one mark per round")
        figure.supylabel("test accuracy (%)")
        figure.suptitle(title)
        handles, labels = panels[0][0].get_legend_handles_labels()
        symbol = SYMBOLS.get(sweep.kind, "perturbation")
        figure.legend(handles, labels, loc="outside right center", title=symbol)
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


def _strategy_line(axes: Axes, sweep: Sweep, strategy: str, shift: float) -> None:
    known = [
        (sweep.value(point), found)
        for point in sweep.points
        if (found := sweep.final(strategy, point, "test_accuracy")) is not None
    ]
    colour, marker = _LOOKS[strategy]
    places = _shifted(axes, [x for x, _ in known], shift)
    finals = [found for _, found in known]
    error_bars(axes, places, finals, color=colour, marker=marker, label=strategy)


def _shifted(axes: Axes, values: Sequence[float], shift: float) -> Any:
    """Move values by a fraction of the axis, in its own scale."""
    scale = axes.xaxis.get_transform()
    places = scale.transform(np.asarray(values, dtype=float))
    return scale.inverted().transform(places + shift * (places.max() - places.min()))


def _round_means(
    sweep: Sweep, strategy: str, point: Perturbation
) -> tuple[list[float], list[float]]:
    """Return densities in percent and mean test accuracies, over the rounds all seeds have."""
    runs = [result["rounds"] for result in sweep.results(strategy, point)]
    shared = range(min(map(len, runs), default=0))
    densities = [100 * runs[0][k]["density"] for k in shared]
    return densities, [fmean(run[k]["test_accuracy"] for run in runs) for k in shared]


def _round_line(
    axes: Axes, line: tuple[list[float], list[float]], label: str, colour: Any, unperturbed: bool
) -> None:
    axes.plot(
        *line,
        color="black" if unperturbed else colour,
        linestyle="--" if unperturbed else "-",
        zorder=3 if unperturbed else 2,
        marker="o",
        ms=2.8,
        label=_short(label),
    )


def _perturbation_axis(axes: Axes, sweep: Sweep) -> None:
    values = [sweep.value(point) for point in sweep.points]
    if sweep.kind == "phi":
        nonzero = [abs(value) for value in values if value]
        axes.set_xscale("symlog", linthresh=min(nonzero, default=1e-4), linscale=0.6)
        ticks(axes, values, lambda value: _short(f"{value:g}"))
        axes.tick_params(axis="x", labelrotation=55)
    elif len(values) <= 12:
        axes.xaxis.set_major_locator(FixedLocator(values))


def _density_axis(axes: Axes, densities: Sequence[float]) -> None:
    axes.set_xscale("log")
    axes.invert_xaxis()
    # Every second round where there are many, the last one in any case.
    shown = densities[::-1][:: 2 if len(densities) > 6 else 1]
    ticks(axes, shown, lambda value: f"{value:.0f}")


def _short(label: str) -> str:
    return label.replace("e-0", "e-").replace("-", "−")
