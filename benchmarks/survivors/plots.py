"""The figure of the rounds: seconds and accuracy, dense, with masks, and survivors alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from polarity import plot

from ..pages.estimates import Estimate
from ..pages.style import LEAST, drawn, save, ticks, title


def plot_rounds(
    series: Mapping[str, tuple[Sequence[Estimate], Sequence[Estimate]]],
    densities: Sequence[float],
    path: Path,
    scale: str,
) -> Path:
    """Draw the seconds of each round's training, and the test accuracy after it.

    Args:
        series: seconds and accuracies by form.
        densities: of each round, written above the panels at every few rounds.
        path: the figure.
        scale: what was run, for the title.
    """
    with plot.style():
        figure = Figure(figsize=(8, 4.1), layout="constrained")
        left, right = figure.subplots(1, 2)
        rounds = range(len(densities))
        shown = list(rounds)[:: max(1, len(rounds) // 5)]
        looks = plot.looks(list(series))
        for form, estimates in series.items():
            for axes, values in zip((left, right), estimates, strict=True):
                plot.points(axes, rounds, drawn(values), band=True, **looks[form])
        left.set_ylim(bottom=0)
        left.set_ylabel("seconds of training")
        right.set_ylabel("test accuracy (%)")
        for axes in (left, right):
            axes.set_xlabel("round")
            ticks(axes, shown, "{:.0f}".format)
            above = axes.secondary_xaxis("top")
            above.set_xticks(shown, [f"{100 * densities[at]:.3g}" for at in shown])
            above.set_xlabel("density (%)")
        plot.widen(right, LEAST, within=(0, 100.2))
        title(figure, "Seconds and accuracy round by round", scale)
        plot.legend(figure, where="below")
        return save(figure, path)
