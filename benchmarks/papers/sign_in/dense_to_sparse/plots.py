"""Table 1 as differences, and Figures 1, 5, 8 and 9, from our runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from ....pages.estimates import estimate
from ....pages.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    RED,
    SKY,
    drawing,
    legend_below,
    save,
)
from .captions import scale
from .config import METHODS, STARTS
from .summary import (
    DENSITY,
    MASKS,
    NAMES,
    Comparison,
    arm_name,
    by_layer,
    paper1,
)
from .tables import difference_to_baseline, row_name

_STAGES = {
    "init_to_end": ("initialisation → end", BLUE),
    "init_to_warmup": ("initialisation → warm-up", RED),
    "warmup_to_end": ("warm-up → end", GREEN),
}
_LOOKS: dict[str, dict[str, Any]] = {
    "acdc": {"color": GREEN, "marker": "o", "linestyle": "-"},
    "rigl": {"color": BLUE, "marker": "s", "linestyle": "-"},
    "str": {"color": RED, "marker": "^", "linestyle": "-"},
    "acdc+sign_in": {"color": GREEN, "marker": "D", "linestyle": ":"},
    "random": {"color": GREY, "marker": "v", "linestyle": "--"},
    "random+sign_in": {"color": ORANGE, "marker": "P", "linestyle": "--"},
    "snip": {"color": ORANGE, "marker": "D", "linestyle": ":"},
    "synflow": {"color": SKY, "marker": "P", "linestyle": ":"},
}
_FIGURE5 = ("acdc", "rigl", "str", "acdc+sign_in", "random", "random+sign_in")
_FIGURE8 = ("acdc", "acdc+sign_in", "acdc/random")

Painter = Callable[[Figure, Comparison], None]


class Drawn(NamedTuple):
    """A figure: its file, what it shows in a few words, and its caption."""

    path: Path
    title: str
    caption: str


def draw(group: Comparison, folder: Path, stem: str) -> dict[str, Drawn]:
    """Draw what the results of a group allow.

    Args:
        group: runs with the same settings.
        folder: where the PNGs go.
        stem: how their names begin.

    Returns:
        The figures by name: `table1`, `figure1`, `figure5`, `figure8`,
        `figure9`; without those that have no run.
    """
    at = f"{scale(group)}; density {DENSITY:g}"
    drawn = {}
    with drawing():
        for name, (painter, arms, size, title, caption) in _FIGURES.items():
            if not any(group.of(arm) for arm in arms):
                continue
            figure = Figure(figsize=size, layout="constrained")
            painter(figure, group)
            figure.suptitle(f"{title}\n{at}", x=0.01, ha="left")
            path = save(figure, folder / f"{stem}-{name}.png")
            drawn[name] = Drawn(path, title, f"{caption} {at}.")
    return drawn


def _table1(figure: Figure, group: Comparison) -> None:
    panels = figure.subplots(1, len(METHODS), sharey=True, sharex=True)
    for axes, method in zip(panels, METHODS, strict=True):
        spread = group.spread_to_baseline(method)
        axes.axvline(0, color="#999999", lw=0.8)
        papers = [paper1(method, start) - paper1(method, "") for start in STARTS]
        ours = [difference_to_baseline(group, method, start, spread) for start in STARTS]
        known = [(place, found) for place, found in enumerate(ours) if found is not None]
        for place, found in known:
            if found.half is not None:
                axes.errorbar(
                    found.mean, place, xerr=found.half, color=BLUE, capsize=2.5, elinewidth=1
                )
        xs, ys = [found.mean for _, found in known], [place for place, _ in known]
        axes.plot(xs, ys, "o", color=BLUE, label="ours, with 95 % interval")
        below = [place + 0.25 for place in range(len(STARTS))]
        axes.plot(papers, below, "D", color=ORANGE, mfc="none", label="paper (ResNet-50, ImageNet)")
        axes.set_title(NAMES[method], loc="left")
        axes.grid(axis="y", visible=False)
    panels[0].set_yticks(range(len(STARTS)), [row_name(group, start) for start in STARTS])
    panels[0].set_ylim(len(STARTS) - 0.4, -0.6)
    panels[1].set_xlabel("test accuracy − baseline (points)")
    legend_below(figure, panels[0], columns=2)


def _figure1(figure: Figure, group: Comparison) -> None:
    scratch = [f"{method}/random" for method in METHODS] + ["random"]
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 4))
    _stage_bars(left, group, METHODS, list(NAMES.values())[:3])
    _stage_bars(right, group, scratch, [*(f"{NAMES[m]}\nmask" for m in METHODS), "Random\nmask"])
    left.set_title("(a) dense-to-sparse", loc="left")
    right.set_title("(b) masks trained from scratch", loc="left")
    left.set_ylabel("survivors whose sign differs (%)")
    legend_below(figure, left, columns=3)


def _stage_bars(axes: Axes, group: Comparison, arms: Sequence[str], names: Sequence[str]) -> None:
    for place, (stage, (label, colour)) in enumerate(_STAGES.items()):
        xs = [each + 0.27 * (place - 1) for each in range(len(arms))]
        found = [group.final(arm, stage) for arm in arms]
        heights = [100 * each.mean if each else 0.0 for each in found]
        axes.bar(xs, heights, width=0.25, color=colour, label=label)
        for x, height, each in zip(xs, heights, found, strict=True):
            if each is not None and each.std is not None:
                axes.errorbar(
                    x, height, yerr=100 * each.std, color="black", capsize=2, elinewidth=0.8
                )
    for x, arm in enumerate(arms):
        if not group.of(arm):
            axes.annotate("not run", (x, 0), ha="center", va="bottom", rotation=90, color=GREY)
    axes.set_xticks(range(len(arms)), names)
    axes.grid(axis="x", visible=False)
    axes.set_axisbelow(True)


def _figure5(figure: Figure, group: Comparison) -> None:
    left, right = figure.subplots(1, 2)
    for arm in _FIGURE5:
        runs = [result["epochs"] for result in group.of(arm)]
        if not runs:
            continue
        look = {**_LOOKS[arm], "label": arm_name(arm)}
        _band(left, runs, "flips_cumulative", {**look, "marker": ""})
        _band(right, runs, "sharpness", look)
    left.axvline(group.epochs_named["10"], color="#999999", lw=0.8, ls=":")
    left.set_ylabel("sign flips so far per survivor")
    right.set_ylabel("largest Hessian eigenvalue")
    right.set_yscale("log")
    right.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    right.yaxis.set_minor_locator(NullLocator())
    right.yaxis.set_major_formatter("{x:g}")
    left.set_ylim(bottom=0)
    left.set_title("(a) flips; dotted: end of the warm-up", loc="left")
    right.set_title("(b) sharpness", loc="left")
    for axes in (left, right):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_below(figure, right if right.lines else left, columns=3)


def _band(axes: Axes, runs: Sequence[Any], key: str, look: dict[str, Any]) -> None:
    """Draw the mean over seeds of a number by epoch, and a band from the least to the largest."""
    values: dict[int, list[float]] = {}
    for run in runs:
        for record in run:
            if record.get(key) is not None:
                values.setdefault(record["epoch"], []).append(record[key])
    if not values:
        return
    epochs = sorted(values)
    axes.plot(epochs, [fmean(values[epoch]) for epoch in epochs], **look)
    if any(len(found) > 1 for found in values.values()):
        low, high = ([end(values[epoch]) for epoch in epochs] for end in (min, max))
        axes.fill_between(epochs, low, high, color=look["color"], alpha=0.15, lw=0)


def _figure8(figure: Figure, group: Comparison) -> None:
    panels = figure.subplots(1, len(_FIGURE8), sharex=True, sharey=True)
    for axes, arm, letter in zip(panels, _FIGURE8, "abc", strict=True):
        axes.set_title(f"({letter}) {arm_name(arm)}", loc="left")
        results = group.of(arm)
        if not results:
            axes.annotate("not run", (0.5, 0.5), xycoords="axes fraction", ha="center")
            continue
        for stage, (label, colour) in _STAGES.items():
            _layers(axes, by_layer(results, stage), 100, color=colour, marker="o", label=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[0].set_ylim(bottom=0)
    panels[1].set_xlabel("layer, input to output")
    panels[0].set_ylabel("survivors whose sign differs (%)")
    shown = max(panels, key=lambda axes: len(axes.get_legend_handles_labels()[1]))
    legend_below(figure, shown, columns=3)


def _figure9(figure: Figure, group: Comparison) -> None:
    axes = figure.subplots()
    for mask in MASKS:
        if results := group.of(mask):
            _layers(axes, by_layer(results, "density"), 1, **_LOOKS[mask], label=NAMES[mask])
    axes.set_xlabel("layer, input to output")
    axes.set_ylabel("density")
    axes.set_ylim(0, 1.05)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_below(figure, axes, columns=6)


def _layers(axes: Axes, runs: Sequence[Sequence[float]], factor: float, **look: Any) -> None:
    """Draw a number of every layer, mean over seeds, with its standard deviation as a band."""
    found = [each for values in zip(*runs, strict=True) if (each := estimate(values))]
    xs = range(1, len(found) + 1)
    axes.plot(xs, [factor * each.mean for each in found], ms=3.5, **look)
    if any(each.std for each in found):
        low, high = (
            [factor * (each.mean + sign * (each.std or 0.0)) for each in found] for sign in (-1, 1)
        )
        axes.fill_between(xs, low, high, color=look["color"], alpha=0.15, lw=0)


_FIGURES: dict[str, tuple[Painter, tuple[str, ...], tuple[float, float], str, str]] = {
    "table1": (
        _table1,
        METHODS,
        (8.4, 3.6),
        "Table 1 as differences: learned mask with learned signs, learned magnitudes, or neither",
        "Accuracy of each start minus that of the method which found the mask, paired by seed, "
        "with 95 % intervals from the spread pooled over the rows.",
    ),
    "figure1": (
        _figure1,
        (*METHODS, "random"),
        (7.6, 3.7),
        "Sign flips by stage, as Figure 1",
        "Sign flips by stage (mean ± std over seeds), as Figure 1: (a) dense-to-sparse, (b) the "
        "same masks and a random one from scratch.",
    ),
    "figure5": (
        _figure5,
        _FIGURE5,
        (8.0, 4.0),
        "Flips and sharpness during training, as Figure 5",
        "Sign flips so far and sharpness by epoch (mean over seeds, bands from the least to the "
        "largest of them), as Figure 5. Sharpness has a logarithmic axis.",
    ),
    "figure8": (
        _figure8,
        _FIGURE8,
        (8.4, 3.6),
        "Layerwise sign flips by stage, as Figure 8",
        "Layerwise sign flips by stage (mean over seeds, bands of one std), as Figure 8.",
    ),
    "figure9": (
        _figure9,
        MASKS,
        (7.2, 3.8),
        "Layerwise densities, as Figure 9",
        "Layerwise densities (mean over seeds, bands of one std), as Figure 9.",
    ),
}
