"""Figure 9: the density of every layer, a line per mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from polarity import plot

from ....pages.style import save, title


def plot_layers(
    densities: Mapping[str, Sequence[Mapping[str, float]]], path: Path, scale: str
) -> Path:
    """Draw the densities of every layer on a logarithmic axis.

    Args:
        densities: by the name of the mask, of every seed the density of each layer.
        path: the figure.
        scale: what was computed, for the title.
    """
    with plot.style():
        figure = Figure(figsize=(8.4, 4.8), layout="constrained")
        plot.densities(densities, log=True, spread="range", ax=figure.subplots())
        title(figure, "Layerwise densities of masks of fresh networks, as Figure 9", scale)
        plot.legend(figure, where="below", columns=4)
        return save(figure, path)
