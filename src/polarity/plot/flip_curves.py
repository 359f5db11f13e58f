"""Sign flips: epoch by epoch, by stage of training, and layer by layer."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from polarity._checks import check_mapping
from polarity.analysis.flip_report import FlipReport, FlipSeries
from polarity.analysis.sign_tracker import SignTracker
from polarity.plot.estimates import Estimate, Spread, bars, estimate, is_number, points
from polarity.plot.given import by_label, seeds_of
from polarity.plot.layers import draw_layers, fractions_of
from polarity.plot.scales import from_zero, percent_axis
from polarity.plot.style import Look, canvas, check_looks
from polarity.plot.style import looks as looks_of

__all__ = ["flip_stages", "flips", "layer_flips"]


def flips(
    series: Any,
    *,
    spread: Spread = "std",
    looks: Mapping[str, Look] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the sign flips so far per survivor, step by step.

    The vertical axis begins at 0. It can exceed 1, because a sign that flips back counts again.

    Args:
        series: a :class:`polarity.SignTracker`, a :class:`polarity.analysis.FlipSeries`, or numbers
            (its ``per_survivor``, as read from a file); a sequence of them, one per seed, drawn as
            their mean and a band; or a mapping of any of these by label, drawn together.
        spread: what the band is, as for :func:`estimate`.
        looks: colours and marks by label, as for :func:`polarity.plot.looks`.
        ax: what to draw in. By default a new figure, with a legend if there are labels.

    Returns:
        The axes.

    Raises:
        ValueError: if the seeds of a label have different numbers of steps.
        TypeError: if ``series`` is something else.

    Example:
        >>> from polarity import plot
        >>> from polarity.analysis import FlipReport, FlipSeries, LayerFlips
        >>> steps = [FlipReport((LayerFlips("weight", n, 10, 10),)) for n in (4, 1, 2)]
        >>> axes = plot.flips({"random": FlipSeries(tuple(steps))})
        >>> [float(y) for y in axes.lines[0].get_ydata()]
        [0.4, 0.5, 0.7]
        >>> axes.figure.savefig("flips.png")  # doctest: +SKIP
    """
    expected = "a SignTracker, a FlipSeries or numbers, one per seed, or {label: any of these}"
    runs = by_label("series", series, _per_survivor, expected)
    check_looks(looks)
    labels = [label for label in runs if label is not None]
    found = looks_of(labels, looks)
    curves = {label: _curve(label, each, spread) for label, each in runs.items()}
    with canvas(ax, (5.2, 3.4)) as axes:
        for label, curve in curves.items():
            look = dict(found[label]) if label is not None else {}
            # A mark at each of many steps would hide the line.
            look["marker"] = ""
            points(axes, range(1, len(curve) + 1), curve, band=True, **look)
        axes.set_xlabel("epoch")
        axes.set_ylabel("sign flips so far per survivor")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        from_zero(axes)
    return axes


def _per_survivor(name: str, given: Any) -> Sequence[float] | None:
    """Return the numbers of a series, or None if it is none."""
    if isinstance(given, SignTracker):
        given = given.cumulative()
    if isinstance(given, FlipSeries):
        return given.per_survivor
    if isinstance(given, Sequence) and given and all(map(is_number, given)):
        return given
    return None


def _curve(label: str | None, runs: list[Sequence[float]], spread: Spread) -> list[Estimate]:
    """Return the mean and spread of each step."""
    if len({len(run) for run in runs}) > 1:
        name = "series" if label is None else f"series[{label!r}]"
        counts = ", ".join(str(len(run)) for run in runs)
        raise ValueError(f"{name} has seeds of {counts} steps, expected equal numbers of steps")
    return [estimate(values, spread) for values in zip(*runs, strict=True)]


def flip_stages(
    stages: Mapping[str, Mapping[str, Any]],
    *,
    spread: Spread = "std",
    looks: Mapping[str, Look] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the fraction of the survivors whose sign differs between the ends of each stage.

    Args:
        stages: by method, and then by stage: a :class:`polarity.FlipReport`, a number (its
            ``fraction``), or a sequence of either, one per seed.
        spread: what the whiskers are, as for :func:`estimate`.
        looks: colours by stage, as for :func:`polarity.plot.looks`.
        ax: what to draw in. By default a new figure with a legend of the stages.

    Returns:
        The axes: a group of bars per method, a colour per stage.

    Raises:
        TypeError: if ``stages`` is something else.

    Example:
        >>> from polarity import plot
        >>> found = {"warm-up → end": [0.18, 0.22], "initialisation → end": [0.3, 0.3]}
        >>> axes = plot.flip_stages({"Sign-In": found})
        >>> [round(float(bar.get_height()), 6) for bar in axes.patches]
        [0.2, 0.3]

    Source: *Sign-In to the Lottery*, Figure 1.
    """
    expected = "a FlipReport or a fraction, or one per seed"
    check_mapping("stages", stages, "{method: {stage: a FlipReport or a fraction}}")
    found: dict[str, dict[str, list[float]]] = {}
    for method, given in stages.items():
        name = f"stages[{method!r}]"
        check_mapping(name, given, "{stage: a FlipReport or a fraction}")
        found[method] = {
            stage: seeds_of(f"{name}[{stage!r}]", value, _fraction, expected)
            for stage, value in given.items()
        }
    check_looks(looks)
    names = list(dict.fromkeys(stage for given in found.values() for stage in given))
    heights = {
        stage: [
            estimate(given[stage], spread) if stage in given else None for given in found.values()
        ]
        for stage in names
    }
    with canvas(ax, (1.6 + 1.2 * len(found), 3.2)) as axes:
        bars(axes, list(found), heights, looks=looks)
        percent_axis(axes, "survivors whose sign differs")
    return axes


def _fraction(name: str, given: Any) -> float | None:
    """Return the fraction of flips of a report, or a number as it is."""
    if isinstance(given, FlipReport):
        return given.fraction
    return float(given) if is_number(given) else None


def layer_flips(
    reports: Any,
    *,
    spread: Spread = "std",
    numbered: bool = False,
    looks: Mapping[str, Look] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the fraction of each layer's survivors whose sign differs between two moments.

    Args:
        reports: a :class:`polarity.FlipReport`, or fractions by layer (``{name: fraction}``); a
            sequence of them, one per seed; or a mapping of any of these by label (a stage of
            training, a method).
        spread: what the band is, as for :func:`estimate`.
        numbered: number the layers, as for :func:`layer_axis`.
        looks: colours and marks by label, as for :func:`polarity.plot.looks`.
        ax: what to draw in. By default a new figure, with a legend if there are labels.

    Returns:
        The axes.

    Raises:
        TypeError: if ``reports`` is something else.

    Example:
        >>> from polarity import plot
        >>> axes = plot.layer_flips({"warm-up → end": {"conv.weight": 0.2, "fc.weight": 0.1}})
        >>> [float(y) for y in axes.lines[0].get_ydata()]
        [0.2, 0.1]

    Source: *Sign-In to the Lottery*, Figure 8.
    """
    expected = "a FlipReport or {name: fraction}, one per seed, or {label: any of these}"
    runs = by_label("reports", reports, fractions_of("fraction"), expected)
    check_looks(looks)
    with canvas(ax, (6.0, 3.4)) as axes:
        draw_layers(axes, runs, looks, spread=spread, numbered=numbered)
        percent_axis(axes, "survivors whose sign differs")
        from_zero(axes)
    return axes
