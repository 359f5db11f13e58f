"""Figure 9: the density of every layer, a line per mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from polarity import plot

from ....pages.style import save, title

# Of every seed the density of each layer, in the network's order.
Layers = Sequence[Mapping[str, float]]


def plot_layers(
    densities: Mapping[str, Layers],
    panels: Mapping[str, Sequence[str]],
    path: Path,
    scale: str,
) -> Path:
    """Draw the densities of every layer on a logarithmic axis.

    Args:
        densities: by the name of the mask, of every seed the density of each layer. A layer that
            is empty for a seed has no place on the axis, and a cross in a row below.
        panels: the names of each panel's masks, by its title.
        path: the figure.
        scale: what was computed, for the title.
    """
    with plot.style():
        figure = Figure(figsize=(8.4, 4.6), layout="constrained")
        looks = plot.looks(list(densities))
        shown = {
            what: mine
            for what, names in panels.items()
            if (mine := [name for name in names if name in densities])
        }
        panel = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
        for (what, names), axes in zip(shown.items(), panel, strict=True):
            for name in names:
                found = _filled(densities[name])
                each = [plot.estimate(values, "range") for values in found.values()]
                plot.points(axes, list(found), each, band=True, **looks[name])
            plot.layer_axis(axes, list(densities[names[0]][0]))
            axes.set_yscale("log")
            plot.percent_axis(axes, "density")
            axes.set_title(what, loc="left")
            axes.label_outer()
        row = panel[0].get_ylim()[0]
        for names, axes in zip(shown.values(), panel, strict=True):
            for name in names:
                if _empty(densities[name]):
                    row /= 2
                    _mark_empty(axes, densities[name], row, looks[name]["color"])
        panel[0].set_ylim(bottom=row / 2)
        title(figure, "Layerwise densities of masks of fresh networks, as Figure 9", scale)
        plot.legend(figure, where="below", columns=4)
        return save(figure, path)


def _filled(seeds: Layers) -> dict[int, list[float]]:
    """Return the densities of every layer that no seed leaves empty, by its place."""
    places = enumerate(zip(*(found.values() for found in seeds), strict=True), 1)
    return {place: list(values) for place, values in places if all(values)}


def _empty(seeds: Layers) -> list[int]:
    """Return the places of the layers that a seed leaves empty."""
    return sorted(set(range(1, len(seeds[0]) + 1)) - _filled(seeds).keys())


def _mark_empty(axes: Axes, seeds: Layers, row: float, color: str) -> None:
    """Mark the layers that have no place on the axis, in a row below it."""
    places = _empty(seeds)
    axes.plot(places, [row] * len(places), "x", color=color, ms=5)
