"""The figure of the rounds: seconds and accuracy, dense, with masks, and survivors alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.pages.estimates import Estimate
from benchmarks.pages.style import BLUE, GREY, RED, drawing, error_bars, legend_above, save

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
        densities: of each round; every fourth is written above the left panel.
        path: the figure.
        title: stands below the legend.
    """
    with drawing():
        figure = Figure(figsize=(8, 3.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        rounds = range(len(densities))
        for form, estimates in series.items():
            for axes, values in zip((left, right), estimates, strict=True):
                error_bars(axes, rounds, values, label=form, **_LOOKS[form])
        left.set_ylim(bottom=0)
        left.set_ylabel("seconds of training")
        right.set_ylabel("test accuracy (%)")
        for axes in (left, right):
            axes.set_xlabel("round")
            above = axes.secondary_xaxis("top")
            above.set_xticks([*rounds][::4], [f"{densities[at]:.2g}" for at in [*rounds][::4]])
            above.set_xlabel("density")
        figure.suptitle(title)
        legend_above(figure, left, columns=3)
        return save(figure, path)
