"""The paper's figures in form: accuracy against remaining ratio, and error along linear paths."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...pages.estimates import Estimate
from ...pages.section import figure_stem
from ...pages.style import drawing, save, ticks
from .config import EXPERIMENT
from .contestants import CONTESTANTS, pair_label
from .summary import Outcomes

# The paper's colours by network; marks serve those who cannot tell or print them.
_LOOKS = {
    "lrr": ("#1f77b4", "o"),
    "aws": ("#2ca02c", "s"),
    "init+lrr_sign": ("#ff7f0e", "^"),
    "init+aws_sign": ("#d62728", "D"),
    "init+lrr_mask": ("#9467bd", "v"),
    "init+lrr_sign+norms": ("#8c564b", "P"),
    "init+lrr_sign+norm_signs": ("#17becf", "X"),
    "init+lrr_sign+norm_bias": ("#bcbd22", "<"),
    "gem_miner": ("#333333", "*"),
    "imp": ("#e377c2", "h"),
    "wr": ("#7f7f7f", "p"),
}
# Figure, contestants of its left panel, and the pairs of the others under their titles.
_FIGURES: dict[str, tuple[str, Sequence[str], dict[str, Sequence[str]]]] = {
    "figure3": (
        "Six networks, as in Figure 3",
        ("lrr", "aws", "init+lrr_sign", "init+aws_sign", "init+lrr_mask"),
        {
            "(b) SGD-noise stability": ("noise:lrr", "noise:init+lrr_sign", "noise:init+aws_sign"),
            "(c) to the LRR / AWS solution": (
                "noise:lrr",
                "solution:init+lrr_sign",
                "solution:init+aws_sign",
            ),
        },
    ),
    "figure2": (
        "Trained norms kept, as in Figure 2",
        ("lrr", "init+lrr_sign", "init+lrr_sign+norms", "init+lrr_mask"),
        {
            "(b) SGD-noise stability": (
                "noise:lrr",
                "noise:init+lrr_sign",
                "noise:init+lrr_sign+norms",
            ),
            "(c) to the LRR solution": (
                "noise:lrr",
                "solution:init+lrr_sign",
                "solution:init+lrr_sign+norms",
            ),
        },
    ),
    "figure4": (
        "Compared with Gem-Miner, as in Figure 4",
        ("aws", "init+aws_sign", "gem_miner"),
        {},
    ),
    "figure5": (
        "Signs of norms transferred, as in Figure 5",
        ("lrr", "init+lrr_sign", "init+lrr_sign+norm_bias", "init+lrr_sign+norm_signs"),
        {
            "(b) to the LRR solution": (
                "noise:lrr",
                "solution:init+lrr_sign",
                "solution:init+lrr_sign+norm_signs",
            )
        },
    ),
    "paths": (
        "Beyond the paper's figures",
        (),
        {
            "another initialisation too": ("two-inits:lrr_sign", "two-inits:aws_sign"),
            "found network to initial norms": ("norms:lrr", "norms:aws"),
        },
    ),
}


def draw(outcomes: Outcomes, folder: Path) -> list[tuple[Path, str]]:
    """Draw every figure that the results have something for.

    Args:
        outcomes: one setting.
        folder: where PNGs are written.

    Returns:
        Paths and captions.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stem = figure_stem((EXPERIMENT, outcomes.dataset, outcomes.arch), outcomes.shared)
    drawn = []
    for name, (title, contestants, paths) in _FIGURES.items():
        own = set(contestants) - {"lrr", "aws", "init+lrr_sign", "init+aws_sign"}
        shown = [c for c in contestants if any(outcomes.accuracy(c, k) for k in outcomes.rounds)]
        panels = {
            panel: [pair for pair in pairs if outcomes.curve(pair) is not None]
            for panel, pairs in paths.items()
        }
        panels = {panel: pairs for panel, pairs in panels.items() if pairs}
        # A figure needs what is its own, not only what it shares with another.
        if (contestants and not own & set(shown)) or not (shown or panels):
            continue
        path = folder / f"{stem}-{name}.png"
        _figure(outcomes, title, shown, panels, path)
        caption = f"{title}: {_small(outcomes)}. Mean and standard deviation over seeds."
        drawn.append((path, caption))
    return drawn


def _figure(
    outcomes: Outcomes,
    title: str,
    contestants: Sequence[str],
    panels: dict[str, list[str]],
    path: Path,
) -> None:
    count = bool(contestants) + len(panels)
    with drawing():
        # A single panel is wide enough for its title and its legend.
        size = (3.1 * max(count, 1.6) + 0.4, 3.7)
        figure = Figure(figsize=size, layout="constrained")
        grid = list(figure.subplots(1, count, squeeze=False)[0])
        if contestants:
            _accuracy_panel(grid.pop(0), outcomes, contestants, lettered=bool(panels))
        for axes, (panel, pairs) in zip(grid, panels.items(), strict=True):
            _path_panel(axes, outcomes, panel, pairs)
        handles: dict[str, Any] = {}
        for axes in figure.axes:
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
                handles.setdefault(label, handle)
        note = _small(outcomes)
        if count == 1:  # too narrow for the whole line
            note = note.replace(": ", ":\n", 1)
        figure.suptitle(f"{title}\n{note}")
        figure.legend(
            handles.values(), handles.keys(), loc="outside lower center", ncols=min(3, len(handles))
        )
        save(figure, path)


def _accuracy_panel(
    axes: Axes, outcomes: Outcomes, contestants: Sequence[str], *, lettered: bool
) -> None:
    dense = outcomes.accuracy("dense", 0)
    if dense is not None:
        axes.axhline(dense.mean, color="#7f7f7f", ls=":", label="dense")
    for place, name in enumerate(contestants):
        known = [
            (outcomes.density(round), found)
            for round in outcomes.rounds
            if (found := outcomes.accuracy(name, round)) is not None
        ]
        ratios, points = [x for x, _ in known], [found for _, found in known]
        colour, mark = _LOOKS[name]
        label = CONTESTANTS[name].label
        if len(known) == 1:
            # Next to the lines, not on them.
            ratios = [ratios[0] * 0.98**place]
            look: Any = {"color": colour, "marker": mark, "ls": "", "capsize": 2.5}
            (point,) = points
            axes.errorbar(ratios, point.mean, yerr=point.std or 0.0, label=label, **look)
        else:
            _band(axes, ratios, points, name, label)
    axes.set_xscale("log")
    axes.invert_xaxis()
    ticks(axes, [outcomes.density(k) for k in outcomes.rounds], "{:.2g}".format)
    axes.set_xlabel("remaining parameter ratio")
    axes.set_ylabel("test accuracy (%)")
    axes.set_title("(a) after training" if lettered else "after training", loc="left")


def _path_panel(axes: Axes, outcomes: Outcomes, title: str, pairs: Sequence[str]) -> None:
    for pair in pairs:
        found = outcomes.curve(pair)
        if found is None:
            continue
        alphas, points = found
        name = pair.split(":", 1)[1]
        known = name if name in _LOOKS else f"init+{name}"
        _band(axes, alphas, points, known, pair_label(pair))
    axes.axhline(0, color="#333333", lw=0.6)
    axes.set_xlabel("interpolation factor α")
    axes.set_ylabel("test error above the ends' mean")
    axes.set_title(title, loc="left")


def _band(
    axes: Axes, xs: Sequence[float], points: Sequence[Estimate], name: str, label: str
) -> None:
    """Draw means as a line and one standard deviation on both sides as a band."""
    colour, mark = _LOOKS[name]
    means = np.array([point.mean for point in points])
    spreads = np.array([point.std or 0.0 for point in points])
    axes.plot(xs, means, color=colour, marker=mark, label=label)
    axes.fill_between(xs, means - spreads, means + spreads, color=colour, alpha=0.15, lw=0)


def _small(outcomes: Outcomes) -> str:
    """Describe the scale in a title: the caption says that it is not the paper's."""
    data, recipe = outcomes.results[0]["dataset"], outcomes.config["recipe"]
    seeds = len(outcomes.seeds)
    return (
        f"smaller scale than the paper's: {outcomes.arch}, {data['train']} images of "
        f"{outcomes.dataset}, {recipe['final']['epochs']} epochs, "
        f"{seeds} seed{'s' if seeds > 1 else ''}"
    )
