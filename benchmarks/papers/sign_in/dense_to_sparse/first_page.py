"""The figure of the documentation's first page and of README: the idea, and one result."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ....pages.paired import Compared, compare
from ....pages.style import BLUE, GREEN, GREY, ORANGE, RED, SKY, save
from .captions import scale
from .config import METHODS
from .summary import DENSITY, NAMES, Comparison

NAME = "first_page"
SIGNS, MAGNITUDES = "sign_final", "mag_final"
# The drawn matrices: rows and columns, their distance, and which share of the entries survives.
_SIZE, _STEP, _KEPT = 6, 9.4, 0.4
_SEED = 5


class Colours(NamedTuple):
    """What fits the background of a page."""

    background: str
    text: str
    faint: str
    positive: str
    negative: str
    signs: str
    magnitudes: str


LIGHT = Colours("#ffffff", "#222222", "#e0e0e0", BLUE, RED, GREEN, GREY)
DARK = Colours("#131416", "#d8dadd", "#3a3d42", SKY, ORANGE, "#2fc79a", "#a3a6ab")


def gains(group: Comparison, start: str) -> list[Compared]:
    """Compare a start from each method's mask with a random start, where intervals are known."""
    found = [
        compare(
            group.accuracy(f"{method}/{start}"),
            group.accuracy(f"{method}/random"),
            group.spread_of_starts(method),
        )
        for method in METHODS
    ]
    return [each for each in found if each is not None and each.half is not None]


def caption(group: Comparison) -> str:
    """Say what the result was measured on."""
    seeds = sorted({each.count for start in (SIGNS, MAGNITUDES) for each in gains(group, start)})
    return (
        f"{scale(group)}; density {DENSITY:g}; differences paired by seed, "
        f"{' or '.join(map(str, seeds))} seeds, with 95 % intervals"
    )


def shown(groups: Sequence[Comparison]) -> Comparison | None:
    """Return the comparison that the figure shows: of those with every start, the largest."""
    whole = [
        group
        for group in groups
        if all(len(gains(group, start)) == len(METHODS) for start in (SIGNS, MAGNITUDES))
    ]
    return max(whole, key=lambda group: len(group.results), default=None)


def draw(groups: Sequence[Comparison], folder: Path) -> list[Path]:
    """Draw the figure for light and for dark pages, where there are results for it."""
    group = shown(groups)
    if group is None:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    return [
        save(_figure(group, colours), folder / f"{NAME}{suffix}.png")
        for suffix, colours in (("", LIGHT), ("-dark", DARK))
    ]


def _figure(group: Comparison, colours: Colours) -> Figure:
    with matplotlib.rc_context({"font.family": "DejaVu Sans", "axes.axisbelow": True}):
        figure = Figure(figsize=(5.6, 4.5), facecolor=colours.background)
        _idea(figure.add_axes((0.02, 0.545, 0.96, 0.45)), colours)
        below = figure.add_axes((0.12, 0.115, 0.85, 0.335), facecolor=colours.background)
        _result(below, group, colours)
    return figure


def _idea(axes: Axes, colours: Colours) -> None:
    """Draw a trained sparse matrix, its signed mask, and a fresh matrix with the same signs."""
    draw = random.Random(_SEED)
    trained = [draw.gauss(0, 1) for _ in range(_SIZE * _SIZE)]
    order = sorted(range(len(trained)), key=lambda place: -abs(trained[place]))
    learned = {place: trained[place] for place in order[: round(_KEPT * len(order))]}
    signs = {place: 1.0 if value > 0 else -1.0 for place, value in learned.items()}
    fresh = {place: abs(draw.gauss(0, 1)) * sign for place, sign in signs.items()}

    axes.set(xlim=(-0.4, 2 * _STEP + _SIZE + 0.4), ylim=(_SIZE + 2.1, -0.4), aspect="equal")
    axes.axis("off")
    _matrix(axes, 0, learned, "trained and pruned", colours)
    _matrix(axes, _STEP, signs, "its signed mask", colours, side=lambda value: 0.84)
    _matrix(axes, 2 * _STEP, fresh, "learned signs,\nfresh magnitudes", colours)
    look = {"color": colours.background, "ha": "center", "va": "center", "weight": "bold"}
    for place, sign in signs.items():
        row, column = divmod(place, _SIZE)
        axes.text(_STEP + column + 0.5, row + 0.5, "+" if sign > 0 else "−", fontsize=9, **look)
    for right in (_STEP, 2 * _STEP):
        arrow = {"arrowstyle": "-|>", "color": colours.text, "lw": 1.2}
        axes.annotate("", (right - 0.5, _SIZE / 2), (right - 2.9, _SIZE / 2), arrowprops=arrow)


def _side(value: float) -> float:
    """Return the side of a square whose area shows the magnitude."""
    return float(max(0.25, min(0.95, 0.66 * abs(value) ** 0.5)))


def _matrix(
    axes: Axes,
    left: float,
    values: dict[int, float],
    title: str,
    colours: Colours,
    side: Callable[[float], float] = _side,
) -> None:
    for place in range(_SIZE * _SIZE):
        row, column = divmod(place, _SIZE)
        value = values.get(place)
        colour, length = colours.faint, 0.18
        if value is not None:
            colour = colours.positive if value > 0 else colours.negative
            length = side(value)
        corner = (left + column + 0.5 - length / 2, row + 0.5 - length / 2)
        axes.add_patch(Rectangle(corner, length, length, color=colour, lw=0))
    middle = (left + _SIZE / 2, _SIZE + 0.35)
    axes.text(*middle, title, color=colours.text, fontsize=10, ha="center", va="top")


def _result(axes: Axes, group: Comparison, colours: Colours) -> None:
    """Draw what learned signs, and learned magnitudes, gain over a random start."""
    axes.axvline(0, color=colours.text, lw=0.9)
    for start, label, colour, marker, side in (
        (SIGNS, "learned signs", colours.signs, "o", "right"),
        (MAGNITUDES, "learned magnitudes", colours.magnitudes, "s", "left"),
    ):
        for place, found in enumerate(gains(group, start)):
            mean = found.mean
            look = {"color": colour, "marker": marker, "markersize": 6.5, "capsize": 3}
            axes.errorbar(mean, place, xerr=found.half, **look)
            told = f"{mean:+.1f}".replace("-", "−")
            axes.annotate(told, (mean, place), (0, 7), textcoords="offset points", color=colour,
                          ha="center", fontsize=10)  # fmt: skip
        axes.set_title(label, loc=side, color=colour, fontsize=10, weight="bold")
    axes.set_yticks(range(len(METHODS)), [NAMES[method] for method in METHODS])
    axes.set_ylim(len(METHODS) - 0.6, -0.75)
    axes.set_xlabel("points of test accuracy over a random start", color=colours.text, fontsize=10)
    axes.grid(axis="x", color=colours.faint, linewidth=0.6)
    axes.tick_params(labelcolor=colours.text, length=0, labelsize=10)
    axes.spines[:].set_visible(False)
