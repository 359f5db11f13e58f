"""Axes that say what they measure: densities, layers, percentages, and no zoom into noise."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    MaxNLocator,
    NullLocator,
)

from polarity._checks import check_flag, check_fraction, check_number, check_type

__all__ = ["density_axis", "from_zero", "layer_axis", "named_places", "percent_axis", "widen"]

_MOST_NAMES = 12
# Labels that are closer than this part of an axis touch.
_APART = 0.085
# Width of a letter of a name, with its part of the space to the next name, in inches.
_LETTER = 0.08


def density_axis(ax: Axes, densities: Sequence[float], *, label: str = "density (%)") -> None:
    """Make the horizontal axis one of densities: logarithmic, dense to sparse, in percent.

    Args:
        ax: what is drawn in.
        densities: where the marks are, in (0, 1]; of marks that would touch, the sparser stays.
        label: what stands below the axis.

    Raises:
        ValueError: if there is no density, or one is not in (0, 1].

    Example:
        >>> from matplotlib.figure import Figure
        >>> from polarity import plot
        >>> axes = Figure().subplots()
        >>> _ = axes.plot([1.0, 0.1, 0.01], [98, 97, 90])
        >>> plot.density_axis(axes, [1.0, 0.1, 0.01])
        >>> axes.get_xscale(), [float(place) for place in axes.get_xticks()]
        ('log', [0.01, 0.1, 1.0])
    """
    check_type("ax", ax, Axes, "a matplotlib Axes")
    places = sorted({float(density) for density in densities})
    if not places:
        raise ValueError("densities is empty, expected at least one density")
    for density in places:
        check_fraction("densities", density, zero=False)
    length = np.log(places[-1] / places[0]) or 1.0
    shown: list[float] = []
    for place in places:
        if not shown or np.log(place / shown[-1]) >= _APART * length:
            shown.append(place)
    ax.set_xscale("log")
    ax.xaxis.set_inverted(True)
    ax.xaxis.set_major_locator(FixedLocator(shown))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _percent(value)))
    ax.set_xlabel(label)


def _percent(density: float) -> str:
    """Write a density in percent, with two digits that count."""
    return f"{100 * density:.0f}" if density >= 0.0995 else f"{100 * density:.2g}"


def layer_axis(ax: Axes, names: Sequence[str], *, numbered: bool = False) -> None:
    """Make the horizontal axis one of layers, the first at 1.

    Args:
        ax: what is drawn in.
        names: plain names of the weights; up to 12 are written at the axis, without ``.weight``.
        numbered: write numbers in any case, as in panels too small for names.

    Example:
        >>> from matplotlib.figure import Figure
        >>> from polarity import plot
        >>> axes = Figure().subplots()
        >>> plot.layer_axis(axes, ["conv.weight", "fc.weight"])
        >>> [label.get_text() for label in axes.get_xticklabels()]
        ['conv', 'fc']
    """
    check_type("ax", ax, Axes, "a matplotlib Axes")
    check_flag("numbered", numbered)
    ax.set_xlim(0.5, len(names) + 0.5)
    if numbered or len(names) > _MOST_NAMES:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        ax.set_xlabel("layer, input to output")
        return
    named_places(ax, [name.removesuffix(".weight") for name in names], first=1)
    ax.set_xlabel("layer")


def named_places(ax: Axes, names: Sequence[str], *, first: int = 0) -> None:
    """Write a name below every place, slanted where names next to each other would touch."""
    inches = ax.get_window_extent().width / ax.figure.dpi
    slanted = max(map(len, names), default=0) * len(names) * _LETTER > inches
    look: Any = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if slanted else {}
    ax.set_xticks(range(first, len(names) + first), names, **look)


def percent_axis(ax: Axes, label: str, *, whole: float = 1.0) -> None:
    """Write the vertical axis in percent of ``whole``; what is drawn stays a fraction.

    Args:
        ax: what is drawn in.
        label: what is measured; the axis says ``"label (%)"``.
        whole: what 100 % is.

    Example:
        >>> from matplotlib.figure import Figure
        >>> from polarity import plot
        >>> axes = Figure().subplots()
        >>> plot.percent_axis(axes, "density")
        >>> axes.get_ylabel(), axes.yaxis.get_major_formatter()(0.25)
        ('density (%)', '25')
    """
    check_type("ax", ax, Axes, "a matplotlib Axes")
    check_number("whole", whole, above=0)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value / whole:.6g}"))
    ax.set_ylabel(f"{label} (%)")


def from_zero(ax: Axes) -> None:
    """Let the vertical axis begin at 0, whatever is drawn in it later and in axes that share it."""
    ax.dataLim.update_from_data_y([0.0], ignore=False)
    for line in ax.lines:
        line.sticky_edges.y.append(0.0)
    ax.autoscale_view(scalex=False)


def widen(
    ax: Axes, at_least: float, *, within: tuple[float, float] = (-np.inf, np.inf)
) -> tuple[float, float]:
    """Make the vertical axis at least this long, so that noise does not look like an effect.

    Call it after everything is drawn. An axis that is longer already stays as it is.

    Args:
        ax: what is drawn in.
        at_least: shortest length, in the axis' units.
        within: bounds that the longer axis does not cross where it can avoid it.

    Returns:
        The limits.

    Example:
        >>> from matplotlib.figure import Figure
        >>> from polarity import plot
        >>> axes = Figure().subplots()
        >>> _ = axes.plot([98.1, 98.3])
        >>> low, high = plot.widen(axes, 4.0, within=(0, 100))
        >>> round(low, 6), round(high, 6)
        (96.0, 100.0)
    """
    check_type("ax", ax, Axes, "a matplotlib Axes")
    check_number("at_least", at_least, above=0)
    low, high = ax.get_ylim()
    missing = at_least - (high - low)
    if missing > 0:
        low, high = low - missing / 2, high + missing / 2
        over, under = max(0.0, high - within[1]), max(0.0, within[0] - low)
        low, high = low - over + under, high - over + under
        ax.set_ylim(low, high)
    return float(low), float(high)
