"""The figure of the rounds: seconds and accuracy, dense, with masks, and survivors alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from ..pages.estimates import Estimate
from ..pages.style import BLUE, GREY, RED, drawing, error_bars, save, ticks

_LOOKS = {
    "dense": {"color": GREY, "marker": "s"},
    "masks": {"color": RED, "marker": "^"},
    "survivors": {"color": BLUE, "marker": "o"},
}


def plot_rounds(
    series: Mapping[str, tuple[Sequence[Estimate], Sequence[Estimate]]],
    densities: Sequence[float],
    path: Path,
    title: str,
) -> Path:
    """Draw the seconds of each round's training, and the test accuracy after it.

    Args:
        series: seconds and accuracies by form.
        densities: of each round, written above the panels at every few rounds.
        path: the figure.
        title: stands above both panels.
    """
    with drawing():
        figure = Figure(figsize=(8, 3.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        rounds = range(len(densities))
        shown = list(rounds)[:: max(1, len(rounds) // 5)]
        for form, estimates in series.items():
            for axes, values in zip((left, right), estimates, strict=True):
                error_bars(axes, rounds, values, label=form, **_LOOKS[form])
        left.set_ylim(bottom=0)
        left.set_ylabel("seconds of training")
        right.set_ylabel("test accuracy (%)")
        for axes in (left, right):
            axes.set_xlabel("round")
            ticks(axes, shown, "{:.0f}".format)
            above = axes.secondary_xaxis("top")
            above.set_xticks(shown, [f"{densities[at]:.2g}" for at in shown])
            above.set_xlabel("density")
        figure.suptitle(title)
        left.legend(loc="lower left")
        return save(figure, path)
