"""What figures of the benchmarks add to `polarity.plot`: files, titles with the scale, ticks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from polarity import plot

from .estimates import Estimate

DPI = 180
BLUE, RED, GREEN, ORANGE, SKY, PURPLE, GREY, BLACK = (
    plot.PALETTE[name]
    for name in ("blue", "red", "green", "orange", "sky", "purple", "grey", "black")
)
# The two flips of Sign-In's Figure 1 and all of training, by the keys of a result.
STAGES = {
    "init_to_end": "initialisation → end",
    "init_to_warmup": "initialisation → warm-up",
    "warmup_to_end": "warm-up → end",
}
# Points of accuracy or error that an axis spans at least.
LEAST = 4.0


def save(figure: Figure, path: Path) -> Path:
    """Write a figure and return its path."""
    figure.savefig(path, dpi=DPI)
    return path


def title(figure: Figure, what: str, scale: str) -> None:
    """Say above all panels what is drawn, and at which scale it was measured."""
    figure.suptitle(f"{what}\n{scale}", x=0.01, ha="left")


def ticks(axes: Axes, values: Sequence[float], shown: Callable[[float], str]) -> None:
    """Mark these values on the horizontal axis and no others, each as `shown` writes it."""
    axes.xaxis.set_major_locator(FixedLocator(list(values)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value)))


def drawn(found: Sequence[Estimate], factor: float = 1.0) -> list[plot.Estimate]:
    """Return estimates as figures take them: the mean and one standard deviation on both sides."""
    return [plot.estimate([factor * value for value in each.values]) for each in found]
