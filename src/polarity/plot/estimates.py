"""Means with their spread over seeds: as numbers, as lines and as bars."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from statistics import fmean, stdev
from typing import Any, Literal, TypeAlias

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from polarity._checks import check_choice, check_finite, check_flag, check_mapping, check_type
from polarity.plot.style import Look, check_looks, looks

__all__ = ["Estimate", "Spread", "bars", "dodged", "estimate", "points"]

Spread: TypeAlias = Literal["std", "interval", "range"]
_SPREADS = ("std", "interval", "range")
# The 97.5 % points of Student's distribution, for 1, 2, … degrees of freedom.
_STUDENT = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281)
_NORMAL = 1.959964


@dataclass(frozen=True)
class Estimate:
    """A mean and how far it is known.

    Attributes:
        mean: where the line goes.
        low: lower end of the spread; None where there is none, as for one seed.
        high: upper end.
    """

    mean: float
    low: float | None = None
    high: float | None = None


def estimate(values: Sequence[float], spread: Spread = "std") -> Estimate:
    r"""Return the mean of the values of several seeds, with their spread.

    Args:
        values: one per seed, at least one.
        spread: ``"std"``, mean ± the sample standard deviation; ``"interval"``, the 95 % interval
            of the mean, :math:`\bar x \pm t_{n-1}\, s / \sqrt n` with Student's :math:`t`; or
            ``"range"``, from the least to the largest.

    Returns:
        The :class:`Estimate`; without a spread if there is one value.

    Raises:
        ValueError: if there is no value, one is not finite, or ``spread`` is something else.
        TypeError: if a value is not a number.

    Example:
        >>> from polarity import plot
        >>> plot.estimate([1.0, 2.0, 3.0])
        Estimate(mean=2.0, low=1.0, high=3.0)
        >>> plot.estimate([1.0])
        Estimate(mean=1.0, low=None, high=None)
    """
    check_choice("spread", spread, _SPREADS)
    check_type("values", values, Sequence, "a sequence of numbers, one per seed")
    if not values:
        raise ValueError("values is empty, expected at least one number")
    for value in values:
        check_finite("values", value)
    numbers = [float(value) for value in values]
    mean = fmean(numbers)
    if len(numbers) == 1:
        return Estimate(mean)
    if spread == "range":
        return Estimate(mean, min(numbers), max(numbers))
    half = stdev(numbers)
    if spread == "interval":
        half *= _student(len(numbers) - 1) / math.sqrt(len(numbers))
    return Estimate(mean, mean - half, mean + half)


def _student(freedom: int) -> float:
    """Return the 97.5 % point of Student's distribution (Cornish and Fisher's series above 10)."""
    if freedom <= len(_STUDENT):
        return _STUDENT[freedom - 1]
    z, n = _NORMAL, freedom
    first = (z**3 + z) / (4 * n)
    second = (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
    return z + first + second + third


def points(
    ax: Axes, x: Sequence[float], estimates: Sequence[Estimate], *, band: bool = False, **look: Any
) -> Line2D:
    """Draw means as a marked line, and their spread where they have one.

    Args:
        ax: what is drawn in.
        x: where they stand.
        estimates: one per place.
        band: draw the spread as a band, not as whiskers.
        **look: arguments of matplotlib's ``plot``.

    Returns:
        The line through the means.

    Raises:
        ValueError: if there are not as many estimates as places.

    Example:
        >>> from matplotlib.figure import Figure
        >>> from polarity import plot
        >>> axes = Figure().subplots()
        >>> line = plot.points(axes, [1, 2], [plot.estimate([3.0, 5.0]), plot.estimate([4.0])])
        >>> [float(y) for y in line.get_ydata()]
        [4.0, 4.0]
    """
    check_type("ax", ax, Axes, "a matplotlib Axes")
    check_flag("band", band)
    if len(x) != len(estimates):
        raise ValueError(f"estimates has {len(estimates)} entries, expected {len(x)}, one per x")
    (line,) = ax.plot(x, [each.mean for each in estimates], **look)
    known = [(at, e.mean, e.low, e.high) for at, e in zip(x, estimates, strict=True)]
    spread = [(at, mean, lo, hi) for at, mean, lo, hi in known if lo is not None and hi is not None]
    if not spread:
        return line
    places, means, low, high = (list(column) for column in zip(*spread, strict=True))
    if band:
        ax.fill_between(places, low, high, color=line.get_color(), alpha=0.15, lw=0)
    else:
        _whiskers(ax, places, means, low, high, line.get_color())
    return line


def _whiskers(
    ax: Axes,
    places: Sequence[float],
    means: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    color: Any,
) -> None:
    """Draw ranges that may lie beside their means."""
    below = [mean - end for mean, end in zip(means, low, strict=True)]
    above = [end - mean for mean, end in zip(means, high, strict=True)]
    ax.errorbar(places, means, [below, above], fmt="none", ecolor=color, elinewidth=1, capsize=2.5)


def bars(
    ax: Axes,
    groups: Sequence[str],
    heights: Mapping[str, Sequence[Estimate | None]],
    *,
    looks: Mapping[str, Look] | None = None,
) -> None:
    """Draw groups of bars with their spread.

    Args:
        ax: what is drawn in.
        groups: what stands below each group.
        heights: for each label of the legend, its bar in every group; None leaves a place empty.
        looks: as for :func:`polarity.plot.looks`; colours count alone.

    Raises:
        ValueError: if a label has not one bar per group.

    Example:
        >>> from matplotlib.figure import Figure
        >>> from polarity import plot
        >>> axes = Figure().subplots()
        >>> plot.bars(axes, ["one", "two"], {"ours": [plot.Estimate(3.0), plot.Estimate(1.0)]})
        >>> [float(bar.get_height()) for bar in axes.patches]
        [3.0, 1.0]
    """
    check_type("ax", ax, Axes, "a matplotlib Axes")
    check_mapping("heights", heights, "{label: one Estimate per group}")
    check_looks(looks)
    found = _looks(list(heights), looks)
    width = 0.8 / max(1, len(heights))
    for place, (label, column) in enumerate(heights.items()):
        if len(column) != len(groups):
            raise ValueError(
                f"heights[{label!r}] has {len(column)} entries, expected {len(groups)}, one per "
                "group: None leaves a place empty"
            )
        shift = width * (place - (len(heights) - 1) / 2)
        known = [(at + shift, each) for at, each in enumerate(column) if each is not None]
        places = [at for at, _ in known]
        means = [each.mean for _, each in known]
        ax.bar(places, means, width=0.93 * width, color=found[label]["color"], label=label)
        for at, each in known:
            if each.low is not None and each.high is not None:
                _whiskers(ax, [at], [each.mean], [each.low], [each.high], "black")
    ax.set_xticks(range(len(groups)), groups)
    ax.grid(visible=False, axis="x")
    ax.set_axisbelow(True)


# The argument of `bars` has the function's name.
_looks = looks


def dodged(ax: Axes, values: Sequence[float], shift: float, whole: Sequence[float]) -> list[float]:
    """Move places by a fraction of the stretch ``whole``, in the scale of the axis."""
    scale = ax.xaxis.get_transform()
    ends = scale.transform([min(whole), max(whole)])
    moved = scale.transform(list(values)) + shift * (ends[1] - ends[0])
    return [float(value) for value in scale.inverted().transform(moved)]


def is_number(value: object) -> bool:
    """Whether a value is a number, and not a bool."""
    return isinstance(value, Real) and not isinstance(value, bool)
