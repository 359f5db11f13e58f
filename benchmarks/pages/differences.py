"""The figure that a page of verdicts begins with: what decides its claims, next to the paper."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from polarity import plot

from .claims import Claim
from .paired import Compared
from .style import BLUE, LEAST, ORANGE, save, title


def draw_differences(
    panels: Sequence[tuple[str, Claim]], path: Path, what: str, scale: str, unit: str
) -> Path:
    """Draw the differences of some claims with their 95 % intervals, a panel per claim.

    Args:
        panels: each claim under its title; the cases of all are the rows.
        path: the PNG to write.
        what: what is drawn, for the title.
        scale: what was run, for the title.
        unit: label of the horizontal axis.

    Returns:
        The path.
    """
    names = list(dict.fromkeys(case.name for _, claim in panels for case in claim.cases))
    with plot.style():
        size = (max(4.8, 1.8 + 2.1 * len(panels)), 1.9 + 0.42 * len(names))
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
        for axes, (name, claim) in zip(grid, panels, strict=True):
            _panel(axes, claim, names)
            axes.set_title(name, loc="left")
        grid[0].set_yticks(range(len(names)), names)
        grid[0].set_ylim(len(names) - 0.4, -0.6)
        low, high = grid[0].get_xlim()
        missing = max(0.0, LEAST - (high - low)) / 2
        grid[0].set_xlim(low - missing, high + missing)
        grid[len(panels) // 2].set_xlabel(unit)
        title(figure, what, scale)
        plot.legend(figure, where="below", columns=2)
        return save(figure, path)


def _panel(axes: Axes, claim: Claim, names: Sequence[str]) -> None:
    axes.axvline(0, color="#999999", lw=0.8)
    axes.grid(axis="y", visible=False)
    found = [
        (names.index(case.name), case.gain)
        for case in claim.cases
        if isinstance(case.gain, Compared)
    ]
    whiskers = [(place, gain) for place, gain in found if gain.half is not None]
    for place, gain in whiskers:
        axes.errorbar(gain.mean, place, xerr=gain.half, color=BLUE, capsize=2.5, elinewidth=1)
    label = "ours, with 95 % interval" if whiskers else "ours, one seed"
    means, places = [gain.mean for _, gain in found], [place for place, _ in found]
    axes.plot(means, places, "o", color=BLUE, label=label)
    papers = [
        (case.paper, names.index(case.name) + 0.25)
        for case in claim.cases
        if case.paper is not None
    ]
    if papers:
        xs, ys = zip(*papers, strict=True)
        axes.plot(xs, ys, "D", color=ORANGE, mfc="none", label="paper")
