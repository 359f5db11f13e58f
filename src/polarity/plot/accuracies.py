"""Accuracy against density, with its spread over seeds."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from polarity._checks import check_fraction, check_mapping
from polarity.plot.estimates import Estimate, Spread, dodged, estimate, is_number, points
from polarity.plot.scales import density_axis, named_places, widen
from polarity.plot.style import PALETTE, Look, canvas, check_looks
from polarity.plot.style import looks as looks_of

__all__ = ["accuracy"]

# How far apart the whiskers of two methods stand, of the whole axis.
_DODGE = 0.018
# Shortest axis, in points of accuracy.
_LENGTH = 4.0


def accuracy(
    results: Mapping[str, Mapping[float, Any]],
    *,
    dense: float | Sequence[float] | None = None,
    spread: Spread = "std",
    looks: Mapping[str, Look] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw test accuracy against density, with its spread over seeds.

    Methods are moved apart by a little, so that their whiskers can be told apart. If there is only
    one density, the methods stand side by side under their names. The vertical axis is at
    least 4 points long.

    Args:
        results: by method, and then by density: the accuracy in percent, or a sequence of them, one
            per seed. One seed has no whiskers.
        dense: accuracy of the dense network, one number or one per seed; a dashed line.
        spread: what the whiskers are, as for :func:`estimate`.
        looks: colours and marks by method, as for :func:`polarity.plot.looks`.
        ax: what to draw in. By default a new figure with a legend.

    Returns:
        The axes.

    Raises:
        ValueError: if there is no result, or a density is not in (0, 1].
        TypeError: if ``results`` is something else.

    Example:
        >>> from polarity import plot
        >>> found = {"SNIP": {0.1: [91.0, 93.0], 0.05: [88.0, 90.0]}, "random": {0.1: 89.0}}
        >>> axes = plot.accuracy(found, dense=94.5)
        >>> [float(y) for y in axes.lines[0].get_ydata()]
        [92.0, 89.0]
        >>> axes.get_xlabel(), axes.get_ylabel()
        ('density (%)', 'test accuracy (%)')
    """
    check_mapping("results", results, "{method: {density: accuracies}}")
    known: dict[str, dict[float, Estimate]] = {}
    for method, given in results.items():
        check_mapping(f"results[{method!r}]", given, "{density: accuracies}")
        for density in given:
            check_fraction(f"results[{method!r}]", density, zero=False)
        known[method] = {
            density: _mean(f"results[{method!r}][{density!r}]", given[density], spread)
            for density in sorted(given, reverse=True)
        }
    places = sorted({density for found in known.values() for density in found})
    if not places:
        raise ValueError("results is empty, expected {method: {density: accuracies}}")
    line = None if dense is None else _mean("dense", dense, spread)
    check_looks(looks)
    found = looks_of(list(known), looks)
    with canvas(ax, (5.2, 3.4)) as axes:
        if len(places) == 1:
            _side_by_side(axes, known, found, places[0])
        else:
            density_axis(axes, places)
            for place, (method, each) in enumerate(known.items()):
                # To the right on an axis that runs from dense to sparse.
                shift = -_DODGE * (place - (len(known) - 1) / 2)
                points(
                    axes,
                    dodged(axes, list(each), shift, places),
                    list(each.values()),
                    **found[method],
                )
        if line is not None:
            _dense_line(axes, line)
        axes.set_ylabel("test accuracy (%)")
        widen(axes, _LENGTH, within=(0, 100))
    return axes


def _mean(name: str, given: Any, spread: Spread) -> Estimate:
    """Return mean and spread of a number, or of one per seed."""
    values = [given] if is_number(given) else given
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        raise TypeError(f"{name}={given!r}, expected an accuracy in percent, or one per seed")
    return estimate(values, spread)


def _side_by_side(
    ax: Axes, known: Mapping[str, Mapping[float, Estimate]], found: Mapping[str, Look], at: float
) -> None:
    """Draw the methods of one density next to each other, each under its name."""
    shown = [(method, each[at]) for method, each in known.items() if each]
    for place, (method, each) in enumerate(shown):
        points(ax, [place], [each], **{**found[method], "linestyle": ""})
    named_places(ax, [method for method, _ in shown])
    ax.set_xlim(-0.6, len(shown) - 0.4)
    ax.grid(visible=False, axis="x")
    ax.set_xlabel(f"method, at density {100 * at:.3g} %")


def _dense_line(ax: Axes, found: Estimate) -> None:
    """Draw the dense network as a line over the whole width, with its spread."""
    look = looks_of(["dense"])["dense"]
    ax.axhline(found.mean, color=PALETTE["grey"], ls=look["linestyle"], lw=1.2, label="dense")
    if found.low is not None and found.high is not None:
        ax.axhspan(found.low, found.high, color=PALETTE["grey"], alpha=0.12, lw=0)
