"""Table 1 as differences, and Figures 1, 5, 8 and 9, from our runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from polarity import plot

from ....harness.results import Result
from ....pages.section import seeds_text
from ....pages.style import BLUE, GREY, ORANGE, STAGES, save, title
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

# What the names of the library leave open.
_LOOKS: dict[str, dict[str, Any]] = {
    "acdc+sign_in": {"color": plot.PALETTE["green"], "marker": "D", "linestyle": ":"},
    "random+sign_in": {"color": ORANGE, "marker": "P", "linestyle": "--"},
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
    drawn = {}
    with plot.style():
        for name, (painter, arms, size, what, caption) in _FIGURES.items():
            counts = sorted({len(runs) for arm in arms if (runs := group.of(arm))})
            if not counts:
                continue
            numbers = [*map(str, counts[:-1]), seeds_text(counts[-1])]
            at = f"density {DENSITY:g}; {' or '.join(numbers)}"
            figure = Figure(figsize=size, layout="constrained")
            painter(figure, group)
            title(figure, what, f"{scale(group)}\n{at}")
            plot.legend(figure, where="below", columns=3)
            path = save(figure, folder / f"{stem}-{name}.png")
            drawn[name] = Drawn(path, what, f"{caption} {scale(group)}; {at}.")
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


def _figure1(figure: Figure, group: Comparison) -> None:
    scratch = [f"{method}/random" for method in METHODS] + ["random"]
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 4))
    _stage_bars(left, group, METHODS, list(NAMES.values())[:3])
    _stage_bars(right, group, scratch, [*(f"{NAMES[m]}\nmask" for m in METHODS), "Random\nmask"])
    left.set_title("(a) dense-to-sparse", loc="left")
    right.set_title("(b) masks trained from scratch", loc="left")
    right.set_ylabel("")


def _stage_bars(axes: Axes, group: Comparison, arms: Sequence[str], names: Sequence[str]) -> None:
    stages = {
        name: {
            shown: found.values
            for stage, shown in STAGES.items()
            if (found := group.final(arm, stage)) is not None
        }
        for arm, name in zip(arms, names, strict=True)
    }
    plot.flip_stages(stages, ax=axes)
    for x, arm in enumerate(arms):
        if not group.of(arm):
            axes.annotate("not run", (x, 0), ha="center", va="bottom", rotation=90, color=GREY)


def _figure5(figure: Figure, group: Comparison) -> None:
    left, right = figure.subplots(1, 2)
    arms = {arm_name(arm): arm for arm in _FIGURE5 if group.of(arm)}
    looks = plot.looks(list(arms), {name: _LOOKS.get(arm, {}) for name, arm in arms.items()})
    flips = {
        name: [[each["flips_cumulative"] for each in result["epochs"]] for result in group.of(arm)]
        for name, arm in arms.items()
    }
    plot.flips(flips, spread="range", looks=looks, ax=left)
    for name, arm in arms.items():
        _sharpness(right, group.of(arm), looks[name])
    left.axvline(group.epochs_named["10"], color=GREY, lw=0.8, ls=":")
    right.set_ylabel("largest Hessian eigenvalue")
    right.set_yscale("log")
    right.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    right.yaxis.set_minor_locator(NullLocator())
    right.yaxis.set_major_formatter("{x:g}")
    left.set_title("(a) flips; dotted: end of the warm-up", loc="left")
    right.set_title("(b) sharpness", loc="left")
    right.set_xlabel("epoch")
    right.xaxis.set_major_locator(MaxNLocator(integer=True))


def _sharpness(axes: Axes, results: Sequence[Result], look: Any) -> None:
    """Draw the mean over seeds by epoch, and a band from the least to the largest."""
    values: dict[int, list[float]] = {}
    for result in results:
        for record in result["epochs"]:
            if record.get("sharpness") is not None:
                values.setdefault(record["epoch"], []).append(record["sharpness"])
    if values:
        epochs = sorted(values)
        found = [plot.estimate(values[epoch], "range") for epoch in epochs]
        plot.points(axes, epochs, found, band=True, **look)


def _figure8(figure: Figure, group: Comparison) -> None:
    panels = figure.subplots(1, len(_FIGURE8), sharex=True, sharey=True)
    for axes, arm, letter in zip(panels, _FIGURE8, "abc", strict=True):
        results = group.of(arm)
        if results:
            stages = {name: _by_layer(results, stage) for stage, name in STAGES.items()}
            plot.layer_flips(stages, numbered=True, ax=axes)
        else:
            axes.annotate("not run", (0.5, 0.5), xycoords="axes fraction", ha="center")
        axes.set_title(f"({letter}) {arm_name(arm)}", loc="left")
        axes.label_outer()


def _figure9(figure: Figure, group: Comparison) -> None:
    found = {NAMES[m]: _by_layer(results, "density") for m in MASKS if (results := group.of(m))}
    plot.densities(found, ax=figure.subplots())


def _by_layer(results: Sequence[Result], number: str) -> list[dict[str, float]]:
    """Return a number of every layer, seed by seed."""
    names = [layer["name"] for layer in results[0]["layers"]]
    return [dict(zip(names, values, strict=True)) for values in by_layer(results, number)]


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
        (7.2, 4.8),
        "Layerwise densities, as Figure 9",
        "Layerwise densities (mean over seeds, bands of one std), as Figure 9.",
    ),
}
