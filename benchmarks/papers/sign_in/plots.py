"""Figures 1, 5, 8 and 9 of the paper from our runs, and accuracy against density and p."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ...pages.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    RED,
    drawing,
    error_bars,
    legend_above,
    save,
    ticks,
)
from .summary import Arm, Comparison, label, mean_over_seeds

_COLOURS = {"": GREY, "mv": ORANGE, "sign_in": BLUE}
_MARKERS = {"random": "o", "snip": "s", "grasp": "^", "synflow": "D"}
_LINES = {"random": "-", "snip": "--", "grasp": ":", "synflow": "-."}
_STAGES = {
    "init_to_end": ("initialisation → end", BLUE),
    "init_to_warmup": ("initialisation → warm-up", RED),
    "warmup_to_end": ("warm-up → end", GREEN),
}


def draw(group: Comparison, folder: Path, stem: str) -> list[tuple[Path, str]]:
    """Draw what the results of a group allow.

    Args:
        group: runs with the same settings.
        folder: where the PNGs go.
        stem: how their names begin.

    Returns:
        Each picture with its caption.
    """
    density = _middle(group.densities)
    at = f"density {density:g}, mean over seeds"
    todo: list[tuple[str, Callable[[Figure, Comparison, float], None], tuple[float, float], str]]
    todo = [
        ("accuracy", _accuracy, (5.2, 3.4), "Test accuracy against density, mean ± std."),
        ("stages", _stages, (6.4, 3.2), f"Sign flips by stage ({at}), after Figure 1."),
        ("epochs", _epochs, (7.2, 3.2), f"Sign flips and sharpness by epoch ({at}), as Figure 5."),
        ("layers", _layer_flips, (7.2, 3.2), f"Layerwise sign flips ({at}), after Figure 8."),
        ("densities", _layer_densities, (5.6, 3.2), f"Layerwise densities ({at}), as Figure 9."),
    ]
    if group.swept():
        todo.append(("period", _period, (5.4, 3.4), "Test accuracy against the rescale period p."))
    drawn = []
    with drawing():
        for name, painter, size, caption in todo:
            figure = Figure(figsize=size, layout="constrained")
            painter(figure, group, density)
            drawn.append((save(figure, folder / f"{stem}-{name}.png"), caption))
    return drawn


def _accuracy(figure: Figure, group: Comparison, density: float) -> None:
    axes = figure.subplots()
    for place, arm in enumerate(group.main_arms):
        known = [
            (each, found)
            for each in group.densities
            if (found := group.final(arm, each, "test_accuracy")) is not None
        ]
        # A little space between the methods keeps their error bars apart.
        shift = 1 + 0.03 * (place - (len(group.main_arms) - 1) / 2)
        places, finals = [each * shift for each, _ in known], [found for _, found in known]
        error_bars(axes, places, finals, **_look(arm))
    axes.set_xscale("log")
    axes.invert_xaxis()
    ticks(axes, group.densities, "{:g}".format)
    axes.set_xlabel("density")
    axes.set_ylabel("test accuracy (%)")
    legend_above(figure, axes, columns=3)


def _stages(figure: Figure, group: Comparison, density: float) -> None:
    axes = figure.subplots()
    arms = [arm for arm in group.main_arms if group.of(arm, density)]
    for place, (stage, (name, colour)) in enumerate(_STAGES.items()):
        found = [group.final(arm, density, stage) for arm in arms]
        axes.bar(
            [i + 0.27 * (place - 1) for i in range(len(arms))],
            [100 * each.mean if each else 0.0 for each in found],
            yerr=[100 * (each.std or 0.0) if each else 0.0 for each in found],
            width=0.25,
            color=colour,
            capsize=2,
            error_kw={"elinewidth": 0.8},
            label=name,
        )
    axes.set_xticks(range(len(arms)), [label(arm).replace(" + ", "\n+ ") for arm in arms])
    axes.grid(axis="x", visible=False)
    axes.set_axisbelow(True)
    axes.set_ylabel("survivors whose sign differs (%)")
    legend_above(figure, axes, columns=3)


def _epochs(figure: Figure, group: Comparison, density: float) -> None:
    left, right = figure.subplots(1, 2)
    for arm in group.main_arms:
        runs = [result["epochs"] for result in group.of(arm, density)]
        if not runs:
            continue
        flips = mean_over_seeds([[each["flips_cumulative"] for each in run] for run in runs])
        left.plot(range(1, len(flips) + 1), flips, **{**_look(arm), "marker": ""})
        xs = [each["epoch"] for each in runs[0] if each.get("sharpness") is not None]
        curves = [[run[x - 1].get("sharpness") for x in xs] for run in runs]
        whole = [curve for curve in curves if None not in curve]
        if xs and whole:
            right.plot(xs, mean_over_seeds(whole), **_look(arm))
    warmup = max(1, round(0.2 * group.config["epochs"]))
    left.axvline(warmup, color="#999999", lw=0.8, ls=":")
    left.set_ylabel("sign flips so far per survivor")
    right.set_ylabel("largest Hessian eigenvalue")
    for axes in (left, right):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylim(bottom=0)
    legend_above(figure, left, columns=3)


def _layer_flips(figure: Figure, group: Comparison, density: float) -> None:
    arms = [arm for arm in group.main_arms if group.of(arm, density)]
    panels = figure.subplots(1, len(arms), sharey=True, squeeze=False)[0]
    for axes, arm in zip(panels, arms, strict=True):
        runs = [result["layers"] for result in group.of(arm, density)]
        for stage, (name, colour) in _STAGES.items():
            means = [100 * y for y in _by_layer(runs, lambda layer, s=stage: layer[s])]
            axes.plot(range(1, len(means) + 1), means, color=colour, marker="o", ms=3, label=name)
        axes.set_title(label(arm), loc="left")
    # Shared by all panels, so not before all are drawn.
    panels[0].set_ylim(bottom=0)
    figure.supxlabel("layer, input to output")
    panels[0].set_ylabel("survivors whose sign differs (%)")
    legend_above(figure, panels[0], columns=3)


def _layer_densities(figure: Figure, group: Comparison, density: float) -> None:
    axes = figure.subplots()
    seen = set()
    for arm in group.main_arms:
        mask, runs = arm[0].split("+")[0], [r["layers"] for r in group.of(arm, density)]
        # Methods with the same kind of mask have the same layerwise densities.
        if runs and mask not in seen:
            seen.add(mask)
            means = _by_layer(runs, lambda layer: layer["survivors"] / layer["total"])
            name, marker = label((mask, None)), _MARKERS[mask]
            axes.plot(range(1, len(means) + 1), means, marker=marker, label=name)
    axes.set_xlabel("layer, input to output")
    axes.set_ylabel("density")
    axes.set_ylim(0, 1.05)
    legend_above(figure, axes, columns=3)


def _period(figure: Figure, group: Comparison, density: float) -> None:
    swept = group.swept()
    panels = figure.subplots(1, len(swept), squeeze=False)[0]
    for axes, (method, at) in zip(panels, swept, strict=True):
        arms = [arm for arm in group.arms if arm[0] == method and group.of(arm, at)]
        known = [(arm[1], found) for arm in arms if (found := group.final(arm, at, _ACCURACY))]
        periods, finals = [period for period, _ in known], [found for _, found in known]
        error_bars(axes, periods, finals, **_look((method, None)))
        for other in (f"{method.split('+')[0]}+mv", method.split("+")[0]):
            if found := group.final((other, None), at, _ACCURACY):
                look = _look((other, None))
                name = f"{look['label']} (never)" if "+" in other else look["label"]
                axes.axhline(found.mean, color=look["color"], ls="--", label=name)
        axes.set_title(f"density {at:g}", loc="left")
        axes.set_xscale("log")
        ticks(axes, [float(period or 0) for period, _ in known], "{:g}".format)
    figure.supxlabel("rescale period p (epochs)")
    panels[0].set_ylabel("test accuracy (%)")
    legend_above(figure, panels[0], columns=3)


_ACCURACY = "test_accuracy"


def _by_layer(
    runs: Sequence[Sequence[dict[str, Any]]], number: Callable[[dict[str, Any]], float]
) -> list[float]:
    return [fmean(number(layer) for layer in layers) for layers in zip(*runs, strict=True)]


def _middle(densities: Sequence[float]) -> float:
    # The paper's figures are at sparsity 0.9.
    return 0.1 if 0.1 in densities else densities[len(densities) // 2]


def _look(arm: Arm) -> dict[str, Any]:
    mask, _, way = arm[0].partition("+")
    return {
        "color": _COLOURS[way],
        "marker": _MARKERS[mask],
        "linestyle": _LINES[mask],
        "label": label(arm),
    }
