"""What every layer has of its own: densities and the balance of signs."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from torch import Tensor

from polarity._checks import check_flag
from polarity._reports import Report
from polarity.plot.estimates import Spread, estimate, is_number, points
from polarity.plot.given import by_label
from polarity.plot.scales import layer_axis, percent_axis
from polarity.plot.style import PALETTE, Look, canvas, check_looks
from polarity.plot.style import looks as looks_of

__all__ = ["densities", "draw_layers", "fractions_of", "sign_balance"]

Layers = Mapping[str, float]


def densities(
    reports: Any,
    *,
    log: bool = False,
    spread: Spread = "std",
    numbered: bool = False,
    looks: Mapping[str, Look] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the density of every layer, several methods together.

    Args:
        reports: a report with a density per layer (:func:`polarity.summary`'s,
            :class:`polarity.PruneReport`, …), densities (``{name: density}``, as
            :mod:`polarity.densities` gives them), or masks (``{name: tensor}``, as
            :func:`polarity.masks` gives them); a sequence of them, one per seed, drawn as their
            mean and a band; or a mapping of any of these by label.
        log: make the vertical axis logarithmic, for layers that differ by orders of magnitude.
            A layer without survivors is not on it.
        spread: what the band is, as for :func:`estimate`.
        numbered: number the layers, as for :func:`layer_axis`.
        looks: colours and marks by label, as for :func:`polarity.plot.looks`.
        ax: what to draw in. By default a new figure, with a legend if there are labels.

    Returns:
        The axes.

    Raises:
        TypeError: if ``reports`` is something else.

    Example:
        >>> import polarity as pol
        >>> from polarity import plot
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Linear(40, 10), nn.Linear(10, 2))
        >>> report = pol.imp_prune(net, 0.75, scope="layer")
        >>> axes = plot.densities({"one": report, "other": {"0.weight": 0.2, "1.weight": 1.0}})
        >>> [float(y) for y in axes.lines[0].get_ydata()]
        [0.25, 0.25]
        >>> axes.get_ylabel()
        'density (%)'

    Source: *Sign-In to the Lottery*, Figure 9.
    """
    expected = (
        "a report with densities, {name: density} or {name: mask}, one per seed, or "
        "{label: any of these}"
    )
    check_flag("log", log)
    runs = by_label("reports", reports, fractions_of("density"), expected)
    check_looks(looks)
    with canvas(ax, (6.0, 3.4)) as axes:
        draw_layers(axes, runs, looks, spread=spread, numbered=numbered)
        percent_axis(axes, "density")
        if log:
            axes.set_yscale("log")
            percent_axis(axes, "density")
            axes.set_ylim(top=1.3)
        else:
            axes.set_ylim(0, 1.05)
    return axes


def fractions_of(attribute: str) -> Callable[[str, Any], Layers | None]:
    """Return a function that reads a fraction of every layer: of a report's rows, or as given."""

    def read(name: str, given: Any) -> Layers | None:
        if isinstance(given, Report):
            if any(not hasattr(row, attribute) for row in given):
                raise TypeError(
                    f"{name} is a {type(given).__name__}, whose layers have no {attribute}"
                )
            # None where nothing has a sign.
            shares = {row.name: getattr(row, attribute) for row in given}
            return {layer: float(share) for layer, share in shares.items() if share is not None}
        if not isinstance(given, Mapping) or not given:
            return None
        if all(is_number(value) for value in given.values()):
            return {layer: float(value) for layer, value in given.items()}
        if attribute == "density" and all(isinstance(v, Tensor) for v in given.values()):
            return {layer: _share(mask) for layer, mask in given.items()}
        return None

    return read


def _share(mask: Tensor) -> float:
    """Return the fraction of a mask's entries that are not zero; 1 for an empty one."""
    return int(mask.count_nonzero()) / mask.numel() if mask.numel() else 1.0


def draw_layers(
    ax: Axes,
    runs: Mapping[str | None, Sequence[Layers]],
    looks: Mapping[str, Look] | None,
    *,
    spread: Spread,
    numbered: bool,
) -> list[str]:
    """Draw a number of every layer, a line per label, and return the layers' names."""
    found = looks_of([label for label in runs if label is not None], looks)
    names = list(dict.fromkeys(name for each in runs.values() for run in each for name in run))
    for label, each in runs.items():
        known = {
            place: estimate(values, spread)
            for place, name in enumerate(names, 1)
            if (values := [run[name] for run in each if name in run])
        }
        look = found[label] if label is not None else {"marker": "o", "color": PALETTE["blue"]}
        points(ax, list(known), list(known.values()), band=True, **look)
    layer_axis(ax, names, numbered=numbered)
    return names


def sign_balance(
    signs: Any,
    *,
    spread: Spread = "std",
    numbered: bool = False,
    looks: Mapping[str, Look] | None = None,
    ax: Axes | None = None,
) -> Axes:
    r"""Draw the fraction of every layer's survivors whose sign is +.

    The dashed line is at one half, and a layer without any sign is left out. For a single report or
    set of signs without a label, grey boxes show what fair coins would give: 95 % of the balances
    of :math:`n` fair signs are within :math:`0.5 \pm 0.98 / \sqrt n`.

    Args:
        signs: a report that counts signs (:func:`polarity.summary`'s or a
            :class:`polarity.SignReport`), fractions (``{name: fraction}``), or signs
            (``{name: tensor}``, as :meth:`polarity.SignTracker.signs` gives them: positive and
            negative entries count, zeros do not); a sequence of them, one per seed; or a mapping of
            any of these by label.
        spread: what the band of a label is, as for :func:`estimate`.
        numbered: number the layers, as for :func:`layer_axis`.
        looks: colours and marks by label, as for :func:`polarity.plot.looks`.
        ax: what to draw in. By default a new figure, with a legend if there are labels.

    Returns:
        The axes, at least from 40 to 60 %.

    Raises:
        TypeError: if ``signs`` is something else.

    Example:
        >>> import torch
        >>> from polarity import plot
        >>> axes = plot.sign_balance({"fc.weight": torch.tensor([1, 1, 1, -1, 0])})
        >>> [float(y) for y in axes.lines[0].get_ydata()]
        [0.75]
    """
    expected = (
        "a report that counts signs, {name: fraction} or {name: signs}, one per seed, or "
        "{label: any of these}"
    )
    runs = by_label("signs", signs, _balances, expected)
    check_looks(looks)
    with canvas(ax, (6.0, 3.4)) as axes:
        names = draw_layers(axes, runs, looks, spread=spread, numbered=numbered)
        axes.axhline(0.5, color=PALETTE["black"], lw=0.8, ls="--")
        counts = _counts(signs)
        band: dict[str, Any] = {"color": "#d9d9d9", "lw": 0, "zorder": 0}
        for place, name in enumerate(names, 1):
            if name in counts:
                half = 0.98 / math.sqrt(counts[name])
                ends = (max(0.0, 0.5 - half), min(1.0, 0.5 + half))
                axes.fill_between([place - 0.35, place + 0.35], *ends, **band)
                axes.collections[-1].set_label("95 % of fair coins")
        percent_axis(axes, "survivors with sign +")
        low, high = axes.get_ylim()
        axes.set_ylim(max(-0.02, min(low, 0.4)), min(1.02, max(high, 0.6)))
    return axes


def _balances(name: str, given: Any) -> Layers | None:
    """Return the fraction of positive signs of every layer."""
    if isinstance(given, Mapping) and given and all(isinstance(v, Tensor) for v in given.values()):
        return {
            layer: int((values > 0).sum()) / count
            for layer, values in given.items()
            if (count := int(values.count_nonzero()))
        }
    return fractions_of("positive")(name, given)


def _counts(signs: Any) -> dict[str, int]:
    """Return how many signs every layer has, of one report or set of signs."""
    if isinstance(signs, Report):
        return {row.name: row.survivors for row in signs if row.survivors}
    if isinstance(signs, Mapping) and all(isinstance(value, Tensor) for value in signs.values()):
        counts = {layer: int(values.count_nonzero()) for layer, values in signs.items()}
        return {layer: count for layer, count in counts.items() if count}
    return {}
