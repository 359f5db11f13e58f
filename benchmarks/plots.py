"""The papers' figures: accuracy against the size of a perturbation, and accuracy round by round."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from benchmarks.config import Perturbation
from benchmarks.estimates import Sweep
from benchmarks.published import Best
from benchmarks.tables import SYMBOLS, point_label

# Okabe and Ito's palette, told apart by colour-blind readers; marks serve those who print in grey.
_LOOKS = {
    "gradual": ("#009E73", "D"),
    "mask0": ("#0072B2", "s"),
    "mask1": ("#D55E00", "o"),
    "standard": ("#7F7F7F", "^"),
}
_ACCURACY_TICKS = (0, 20, 40, 60, 70, 80, 85, 90, 93, 95, 96, 97, 98, 98.5, 99, 99.3, 99.5, 99.8)
_AXIS = {
    "epsilon": "ε: fraction of surviving signs flipped",
    "delta": "δ: fraction of survivors (smallest first) whose signs are drawn anew",
    "phi": "φ: threshold above which a reference weight counts as positive",
}
_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.5,
    "legend.frameon": False,
}
_DPI = 200


def plot_sweep(sweep: Sweep, path: Path, title: str, published: dict[str, Best]) -> Path:
    """Final test accuracy against the perturbation, a line per strategy, mean ± std over seeds.

    Args:
        sweep: A sweep over one kind of perturbation.
        path: The PNG to write.
        title: Stands above the figure.
        published: The paper's best; drawn as a star where the paper says at which point it lies.

    Returns:
        The path.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 3.9), layout="constrained")
        axes = figure.subplots()
        _perturbation_axis(axes, sweep)
        for place, strategy in enumerate(sweep.strategies):
            # A little space between the strategies keeps their error bars apart.
            shift = 0.008 * (place - (len(sweep.strategies) - 1) / 2)
            _strategy_line(axes, sweep, strategy, shift)
        for strategy, best in published.items():
            if best.at is not None and strategy in sweep.strategies:
                colour = _LOOKS[strategy][0]
                axes.plot(best.at, best.accuracy, "*", ms=11, mfc="none", mec=colour, zorder=5)
        if any(best.at is not None for best in published.values()):
            axes.plot([], [], "*", ms=11, mfc="none", mec="#333333", label="published best")
        finals = [
            found.mean
            for strategy in sweep.strategies
            for point in sweep.points
            if (found := sweep.final(strategy, point, "test_accuracy")) is not None
        ]
        axes.set_ylabel("final test accuracy (%)" + _accuracy_axis(axes, finals))
        # Above the axes a legend can hide nothing.
        figure.legend(loc="outside upper center", ncols=5, title=title, title_fontsize=10)
        figure.savefig(path, dpi=_DPI)
    return path


def plot_rounds(sweep: Sweep, path: Path, title: str) -> Path:
    """Test accuracy against density, a panel per strategy and a line per grid point.

    Args:
        sweep: Any sweep.
        path: The PNG to write.
        title: Stands above the figure.

    Returns:
        The path.
    """
    columns = min(2, len(sweep.strategies))
    rows = -(-len(sweep.strategies) // columns)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(3.3 * columns + 1.2, 2.5 * rows + 0.7), layout="constrained")
        panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        # cividis without its lightest end, which is lost on white.
        colours = colormaps["cividis"].resampled(256)
        last = max(1, len(sweep.points) - 1)
        shades = {p: colours(0.92 * i / last) for i, p in enumerate(sweep.points)}
        for axes, strategy in zip(panels.flat, sweep.strategies, strict=False):
            for point in sweep.points:
                _round_line(axes, sweep, strategy, point, shades[point])
            axes.set_title(strategy, loc="left")
        for axes in list(panels.flat)[len(sweep.strategies) :]:
            axes.set_visible(False)
        _density_axis(panels[0, 0], sweep)
        figure.supxlabel("density: weights left alive (%), one mark per round", fontsize=9)
        accuracies = [
            record["test_accuracy"]
            for runs in sweep.cells.values()
            for run in runs
            for record in run["rounds"]
        ]
        figure.supylabel("test accuracy (%)" + _accuracy_axis(panels[0, 0], accuracies), fontsize=9)
        figure.suptitle(title, fontsize=10)
        handles, labels = panels[0, 0].get_legend_handles_labels()
        figure.legend(
            handles,
            labels,
            loc="outside right center",
            title=SYMBOLS.get(sweep.kind, "perturbation"),
        )
        figure.savefig(path, dpi=_DPI)
    return path


def _strategy_line(axes: Axes, sweep: Sweep, strategy: str, shift: float) -> None:
    known = [
        (sweep.value(point), found)
        for point in sweep.points
        if (found := sweep.final(strategy, point, "test_accuracy")) is not None
    ]
    colour, marker = _LOOKS[strategy]
    axes.errorbar(
        _shifted(axes, [x for x, _ in known], shift),
        [found.mean for _, found in known],
        yerr=[found.std or 0.0 for _, found in known],
        color=colour,
        marker=marker,
        capsize=2.5,
        elinewidth=1,
        label=strategy,
    )


def _shifted(axes: Axes, values: Sequence[float], shift: float) -> Any:
    """Moves values by a fraction of the axis, whatever its scale."""
    scale = axes.xaxis.get_transform()
    places = scale.transform(np.asarray(values, dtype=float))
    return scale.inverted().transform(places + shift * (places.max() - places.min()))


def _round_line(axes: Axes, sweep: Sweep, strategy: str, point: Perturbation, colour: Any) -> None:
    runs = [result["rounds"] for result in sweep.results(strategy, point)]
    if not runs:
        return
    shared = min(map(len, runs))
    unperturbed = not point
    axes.plot(
        [100 * runs[0][k]["density"] for k in range(shared)],
        [fmean(run[k]["test_accuracy"] for run in runs) for k in range(shared)],
        color="black" if unperturbed else colour,
        linestyle="--" if unperturbed else "-",
        zorder=3 if unperturbed else 2,
        marker="o",
        ms=2.8,
        label=_short(point_label(sweep.kind, point)),
    )


def _accuracy_axis(axes: Axes, accuracies: Sequence[float]) -> str:
    """Spreads the upper end where some runs collapse; gives what the axis label has to add.

    On a linear axis a few runs near chance would press all others into one line.
    """
    axes.margins(y=0.08)
    top, bottom = max(accuracies), min(accuracies)
    near_top = sum(value > top - 5 for value in accuracies)
    if top - bottom < 20 or near_top < len(accuracies) / 2:
        return ""
    axes.set_yscale(
        "function",
        functions=(
            # What is right, by the logarithm of what is wrong; 0.01 keeps 100 % on the paper.
            lambda accuracy: -np.log10(np.maximum(100 - np.asarray(accuracy), 0.01)),
            lambda place: 100 - 10.0 ** -np.asarray(place),
        ),
    )
    axes.set_ylim(max(0.0, bottom - 12), top + (100 - top) * 0.3)
    axes.yaxis.set_major_locator(FixedLocator(_ACCURACY_TICKS))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    return ",\nerror on a logarithmic scale"


def _perturbation_axis(axes: Axes, sweep: Sweep) -> None:
    axes.set_xlabel(_AXIS.get(sweep.kind, "perturbation"))
    values = [sweep.value(point) for point in sweep.points]
    if sweep.kind == "phi":
        nonzero = [abs(value) for value in values if value]
        axes.set_xscale("symlog", linthresh=min(nonzero, default=1e-4), linscale=0.6)
        axes.xaxis.set_major_locator(FixedLocator(values))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(f"{value:g}")))
        axes.tick_params(axis="x", labelrotation=55)
    elif len(values) <= 12:
        axes.xaxis.set_major_locator(FixedLocator(values))


def _density_axis(axes: Axes, sweep: Sweep) -> None:
    rounds: list[dict[str, Any]] = max(
        (run["rounds"] for runs in sweep.cells.values() for run in runs), key=len, default=[]
    )
    densities = [100 * record["density"] for record in rounds]
    axes.set_xscale("log")
    axes.invert_xaxis()
    # Every second round where there are many, the last one in any case.
    shown = densities[::-1][:: 2 if len(densities) > 6 else 1]
    axes.xaxis.set_major_locator(FixedLocator(shown))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))


def _short(label: str) -> str:
    return label.replace("e-0", "e-").replace("-", "−")
