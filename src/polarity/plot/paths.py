"""The error along the straight path between two networks."""

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes

from polarity._checks import check_flag
from polarity.analysis.connectivity import ErrorBarrier
from polarity.plot.estimates import Spread, estimate, points
from polarity.plot.given import by_label
from polarity.plot.style import PALETTE, Look, canvas, check_looks
from polarity.plot.style import looks as looks_of

__all__ = ["barriers"]


def barriers(
    paths: Any,
    *,
    relative: bool = True,
    spread: Spread = "std",
    looks: Mapping[str, Look] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the error along straight paths between two networks.

    The ends of a path are the two networks themselves, and have open marks; the points between them
    are interpolated, and have filled ones. The barrier is the highest point above 0.

    Args:
        paths: a :class:`polarity.ErrorBarrier`; a sequence of them, one per seed, drawn as their
            mean and a band; or a mapping of either by label.
        relative: draw the error minus the mean of the two ends
            (:attr:`~polarity.ErrorBarrier.excess`), as the paper does; otherwise the error itself.
        spread: what the band is, as for :func:`estimate`.
        looks: colours and marks by label, as for :func:`polarity.plot.looks`.
        ax: what to draw in. By default a new figure, with a legend if there are labels.

    Returns:
        The axes; the error has the units of ``evaluate``.

    Raises:
        ValueError: if the seeds of a label have different points.
        TypeError: if ``paths`` is something else.

    Example:
        >>> import polarity as pol
        >>> from polarity import plot
        >>> path = pol.ErrorBarrier((0.0, 0.5, 1.0), (0.25, 0.75, 0.5))
        >>> axes = plot.barriers({"LRR": path})
        >>> [float(y) for y in axes.lines[0].get_ydata()]
        [-0.125, 0.375, 0.125]

    Source: *Find a Winning Sign*, Figures 2 and 3.
    """
    check_flag("relative", relative)
    expected = "an ErrorBarrier, one per seed, or {label: either}"
    runs = by_label("paths", paths, _path, expected)
    check_looks(looks)
    labels = [label for label in runs if label is not None]
    for label, each in runs.items():
        if len({path.alphas for path in each}) > 1:
            name = "paths" if label is None else f"paths[{label!r}]"
            raise ValueError(f"{name} has seeds with different alphas, expected the same points")
    found = looks_of(labels, looks)
    with canvas(ax, (5.2, 3.4)) as axes:
        for label, each in runs.items():
            look = found[label] if label is not None else {"marker": "o", "color": PALETTE["blue"]}
            _draw(axes, each, look, relative, spread)
        if relative:
            axes.axhline(0, color=PALETTE["black"], lw=0.6)
        for end in (0, 1):
            axes.axvline(end, color=PALETTE["grey"], lw=0.6, ls=":", zorder=0)
        axes.set_xlabel("interpolation factor α (open marks: the two networks)")
        axes.set_ylabel("error above the mean of the ends" if relative else "error")
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    return axes


def _path(name: str, given: Any) -> ErrorBarrier | None:
    return given if isinstance(given, ErrorBarrier) else None


def _draw(ax: Axes, paths: list[ErrorBarrier], look: Look, relative: bool, spread: Spread) -> None:
    """Draw the paths of one label: mean and band, the ends with open marks."""
    curves = [path.excess if relative else path.curve for path in paths]
    found = [estimate(values, spread) for values in zip(*curves, strict=True)]
    line = points(ax, paths[0].alphas, found, band=True, **look)
    ax.plot(
        [paths[0].alphas[0], paths[0].alphas[-1]],
        [found[0].mean, found[-1].mean],
        ls="",
        marker=line.get_marker() if line.get_marker() not in ("", "None", None) else "o",
        ms=1.5 * line.get_markersize(),
        mfc="white",
        mec=line.get_color(),
        mew=1.3,
        zorder=line.get_zorder() + 1,
    )
