"""The paper's figures in form: accuracy against remaining ratio, and error along linear paths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from polarity import plot

from ...pages.differences import draw_differences
from ...pages.section import figure_stem, images, seeds_text, spread_text
from ...pages.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    LEAST,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    save,
    title,
)
from .claims import claims
from .config import EXPERIMENT
from .contestants import CONTESTANTS, pair_label
from .summary import Outcomes

_LOOKS = {
    "lrr": (BLUE, "o"),
    "aws": (GREEN, "s"),
    "init+lrr_sign": (ORANGE, "^"),
    "init+aws_sign": (RED, "D"),
    "init+lrr_mask": (PURPLE, "v"),
    "init+lrr_sign+norms": (BLACK, "P"),
    "init+lrr_sign+norm_signs": (SKY, "X"),
    "init+lrr_sign+norm_bias": (PURPLE, "<"),
    "gem_miner": (BLACK, "*"),
    "imp": (PURPLE, "h"),
    "wr": (GREY, "p"),
}
# The claims that are drawn first, with their titles.
_PANELS = {
    "aws_reaches": "(init + AWS sign)\n− (AWS) + 1",
    "lrr_lags": "(LRR)\n− (init + LRR sign)",
    "aws_over_lrr": "(init + AWS sign)\n− (init + LRR sign)",
    "norms_gain": "(trained norms)\n− (init + LRR sign)",
    "vgg": "(init + LRR sign)\n− (LRR) + 1",
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


def draw(outcomes: Outcomes, folder: Path) -> dict[str, tuple[Path, str]]:
    """Draw every figure that the results have something for.

    Args:
        outcomes: one setting.
        folder: where PNGs are written.

    Returns:
        Paths and captions, by name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stem = figure_stem((EXPERIMENT, outcomes.dataset, outcomes.arch), outcomes.shared)
    drawn = {}
    judged = {claim.key: claim for claim in claims(outcomes)}
    compared = [
        (name, judged[key])
        for key, name in _PANELS.items()
        if key in judged and any(case.gain is not None for case in judged[key].cases)
    ]
    if compared:
        what = "Differences that decide the claims, by remaining ratio"
        path = folder / f"{stem}-differences.png"
        told = _scale(outcomes, seeds_text(len(outcomes.seeds)))
        draw_differences(compared, path, what, told, "difference in test accuracy (points)")
        caption = (
            "Differences in test accuracy, paired by seed, with 95 % intervals, and those of the "
            "paper's Table 2 at the nearest ratio; “+ 1” is our bound for “about”."
        )
        drawn["differences"] = path, caption
    for name, (what, contestants, paths) in _FIGURES.items():
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
        _figure(outcomes, what, shown, panels, path)
        told = _scale(outcomes, _spread(outcomes, shown, panels))
        caption = f"{what}; {told}.".replace("\n", ", ")
        drawn[name] = path, caption
    return drawn


def _figure(
    outcomes: Outcomes,
    what: str,
    contestants: Sequence[str],
    panels: dict[str, list[str]],
    path: Path,
) -> None:
    count = bool(contestants) + len(panels)
    with plot.style():
        # A single panel is wide enough for its title and its legend.
        # Names stand below the only density, and take room from the panels.
        size = (3.1 * max(count, 1.8) + 0.4, 4.2 if len(outcomes.rounds) > 1 else 4.8)
        figure = Figure(figsize=size, layout="constrained")
        grid = list(figure.subplots(1, count, squeeze=False)[0])
        if contestants:
            _accuracy_panel(grid.pop(0), outcomes, contestants, lettered=bool(panels))
        for axes, (panel, pairs) in zip(grid, panels.items(), strict=True):
            _path_panel(axes, outcomes, panel, pairs)
        for axes in grid[1:]:
            # One scale for all paths: noise next to a barrier looks as small as it is.
            axes.sharey(grid[0])
            axes.set_ylabel("")
        if grid:
            _share_limits(grid)
        title(figure, what, _scale(outcomes, _spread(outcomes, contestants, panels)))
        plot.legend(figure, where="below", columns=3)
        save(figure, path)


def _share_limits(panels: Sequence[Axes]) -> None:
    """Show the curves of all panels on one axis."""
    ends = [axes.dataLim.intervaly for axes in panels]
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    margin = 0.05 * (high - low)
    panels[0].set_ylim(low - margin, high + margin)
    plot.widen(panels[0], LEAST)


def _accuracy_panel(
    axes: Axes, outcomes: Outcomes, contestants: Sequence[str], *, lettered: bool
) -> None:
    dense = outcomes.accuracy("dense", 0)
    results = {
        CONTESTANTS[name].label: {
            outcomes.density(round): found.values
            for round in outcomes.rounds
            if (found := outcomes.accuracy(name, round)) is not None
        }
        for name in contestants
    }
    looks = {CONTESTANTS[name].label: _look(name) for name in contestants}
    plot.accuracy(results, dense=dense and dense.values, looks=looks, ax=axes)
    axes.set_title("(a) after training" if lettered else "after training", loc="left")


def _path_panel(axes: Axes, outcomes: Outcomes, what: str, pairs: Sequence[str]) -> None:
    paths, looks = {}, {}
    for pair in pairs:
        if found := outcomes.paths(pair):
            name = pair.split(":", 1)[1]
            known = name if name in _LOOKS else f"init+{name}"
            paths[pair_label(pair)] = found
            looks[pair_label(pair)] = _look(known)
    plot.barriers(paths, looks=looks, ax=axes)
    axes.set_xlabel("α (open marks: the ends)")
    axes.set_ylabel("error above the ends' mean (points)")
    axes.set_title(what, loc="left")


def _look(name: str) -> dict[str, Any]:
    colour, mark = _LOOKS[name]
    return {"color": colour, "marker": mark, "ls": "-"}


def _spread(
    outcomes: Outcomes, contestants: Sequence[str], panels: Mapping[str, Sequence[str]]
) -> str:
    """Say how many seeds a figure's curves have, and what bands and whiskers are."""
    of_pairs = [len(outcomes.paths(pair)) for pairs in panels.values() for pair in pairs]
    counts = of_pairs + [
        found.count
        for name in contestants
        for round in outcomes.rounds
        if (found := outcomes.accuracy(name, round)) is not None
    ]
    return spread_text(max(counts), min(counts))


def _scale(outcomes: Outcomes, spread: str) -> str:
    """Describe the scale in a title."""
    data, recipe = outcomes.results[0]["dataset"], outcomes.config["recipe"]
    return f"{images(data)}\n{outcomes.arch}, {recipe['final']['epochs']} epochs; {spread}"
