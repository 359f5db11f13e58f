"""How every figure looks: fonts, grid, colours, ticks, and where legends stand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from .estimates import Estimate

STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "figure.titlesize": 9.5,
    "figure.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.5,
    "legend.fontsize": 8,
    "legend.title_fontsize": 9.5,
    "legend.frameon": False,
}
DPI = 180
# Okabe and Ito's palette, told apart by colour-blind readers; marks serve those who print in grey.
GREEN, BLUE, RED, GREY, ORANGE, SKY = (
    "#009E73",
    "#0072B2",
    "#D55E00",
    "#7F7F7F",
    "#E69F00",
    "#56B4E9",
)


def drawing() -> Any:
    """Return the context that figures are made in."""
    return matplotlib.rc_context(STYLE)


def save(figure: Figure, path: Path) -> Path:
    """Write a figure and return its path."""
    figure.savefig(path, dpi=DPI)
    return path


def ticks(axes: Axes, values: Sequence[float], shown: Callable[[float], str]) -> None:
    """Mark these values on the horizontal axis and no others, each as `shown` writes it."""
    axes.xaxis.set_major_locator(FixedLocator(list(values)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value)))


def error_bars(axes: Axes, xs: Sequence[Any], estimates: Sequence[Estimate], **look: Any) -> None:
    """Draw means with their standard deviations over seeds."""
    axes.errorbar(
        xs,
        [found.mean for found in estimates],
        yerr=[found.std or 0.0 for found in estimates],
        capsize=2.5,
        elinewidth=1,
        **look,
    )


def legend_above(figure: Figure, axes: Axes, *, columns: int) -> None:
    """Explain the lines of one panel above all panels, where a legend can hide nothing."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=columns)


def legend_below(figure: Figure, axes: Axes, *, columns: int) -> None:
    """Explain the lines of one panel below all panels, where a title stands above them."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)
