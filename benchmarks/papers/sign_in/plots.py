"""Figures 1, 5, 8 and 9 of the paper from our runs, and accuracy against density and p."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from polarity import plot

from ...harness.results import Result
from ...pages.claims import Claim
from ...pages.differences import draw_differences
from ...pages.estimates import Estimate, estimate
from ...pages.section import images, seeds, seeds_text, spread_text
from ...pages.style import (
    BLUE,
    GREEN,
    GREY,
    LEAST,
    ORANGE,
    STAGES,
    drawn,
    save,
    ticks,
    title,
)
from .claims import claims
from .summary import Arm, Comparison, label

_COLOURS = {"": GREY, "matched": GREEN, "mv": ORANGE, "sign_in": BLUE}
_MARKERS = {"random": "o", "snip": "s", "grasp": "^", "synflow": "D"}
_LINES = {"random": "-", "snip": "--", "grasp": ":", "synflow": "-."}


def draw(group: Comparison, folder: Path, stem: str) -> dict[str, tuple[Path, str]]:
    """Draw what the results of a group allow.

    Args:
        group: runs with the same settings.
        folder: where the PNGs go.
        stem: how their names begin.

    Returns:
        Each picture with its caption, by name.
    """
    density = _middle(group.densities)
    at = f"density {density:g}, mean over seeds"
    pictures = {}
    for name, (painter, size, what, told) in _FIGURES.items():
        if name == "period" and not group.swept():
            continue
        with plot.style():
            figure = Figure(figsize=size, layout="constrained")
            painter(figure, group, density)
            title(figure, what.format(density=f"density {density:g}"), _scale(group))
            plot.legend(figure, where="below", columns=3)
            path = save(figure, folder / f"{stem}-{name}.png")
        pictures[name] = path, told.format(at=at)
    judged = {claim.key: claim for claim in claims(group)}
    panels = [(name, judged[key]) for key, name in _PANELS.items() if _ran(judged[key])]
    if panels:
        what = "What Sign-In gains, by density"
        path = folder / f"{stem}-differences.png"
        of_seeds = _scale(group, seeds_text(len(seeds(group.results))))
        draw_differences(panels, path, what, of_seeds, "difference in test accuracy (points)")
        told = "Differences in test accuracy, paired by seed, with 95 % intervals, and the paper's."
        pictures["differences"] = path, told
    return pictures


def _ran(claim: Claim) -> bool:
    return any(case.gain is not None for case in claim.cases)


# The claims that are drawn, with their titles.
_PANELS = {
    "table3": "Sign-In − plain",
    "table11": "Sign-In − m⊙v",
    "table9": "Sign-In − plain",
    "rate": "Sign-In − rate of m⊙v",
}
_Painter = Callable[[Figure, Comparison, float], None]


def _scale(group: Comparison, spread: str | None = None) -> str:
    width = f" of width {group.config['width']}" if group.config["width"] else ""
    return (
        f"{images(group.results[0]['dataset'])}\n{group.config['arch']}{width}, "
        f"{group.config['epochs']} epochs; {spread or spread_text(len(seeds(group.results)))}"
    )


def _accuracy(figure: Figure, group: Comparison, density: float) -> None:
    results = {
        label(arm): {
            each: found.values
            for each in group.densities
            if (found := group.final(arm, each, _ACCURACY)) is not None
        }
        for arm in group.main_arms
    }
    plot.accuracy(results, looks=_looks(group), ax=figure.subplots())


def _stages(figure: Figure, group: Comparison, density: float) -> None:
    stages = {
        # Long names stand in two lines.
        label(arm).replace(" + ", "\n+ "): {
            name: found.values
            for stage, name in STAGES.items()
            if (found := group.final(arm, density, stage)) is not None
        }
        for arm in group.main_arms
        if group.of(arm, density)
    }
    plot.flip_stages(stages, ax=figure.subplots())


def _epochs(figure: Figure, group: Comparison, density: float) -> None:
    left, right = figure.subplots(1, 2)
    arms = [arm for arm in group.main_arms if group.of(arm, density)]
    runs = {label(arm): [result["epochs"] for result in group.of(arm, density)] for arm in arms}
    flips = {
        name: [[epoch["flips_cumulative"] for epoch in run] for run in found]
        for name, found in runs.items()
    }
    plot.flips(flips, looks=_looks(group), ax=left)
    warmup = max(1, round(0.2 * group.config["epochs"]))
    left.axvline(warmup, color=GREY, lw=0.8, ls=":")
    left.set_title("(a) flips; dotted: end of the warm-up", loc="left")
    right.set_title("(b) sharpness", loc="left")
    right.set_ylabel("largest Hessian eigenvalue")
    _sharpness(right, runs, _looks(group))
    right.set_ylim(bottom=0)


def _sharpness(
    axes: Axes, runs: Mapping[str, Sequence[list[dict[str, Any]]]], looks: dict[str, dict[str, Any]]
) -> None:
    """Draw sharpness by epoch; where only one epoch has it, methods stand next to each other."""
    known: dict[str, dict[int, Estimate]] = {}
    for name, found in runs.items():
        epochs = [epoch["epoch"] for epoch in found[0] if epoch.get("sharpness") is not None]
        means = {x: estimate(run[x - 1].get("sharpness") for run in found) for x in epochs}
        known[name] = {x: each for x, each in means.items() if each is not None}
    measured = sorted({x for found in known.values() for x in found})
    single = len(measured) == 1
    for place, (name, by_epoch) in enumerate(known.items()):
        if by_epoch:
            xs = [place] if single else list(by_epoch)
            plot.points(axes, xs, drawn([*by_epoch.values()]), band=not single, **looks[name])
    if single:
        axes.set_xticks([])
        axes.set_xlim(-0.5, len(known) - 0.5)
        axes.set_xlabel(f"after epoch {measured[0]}")
    else:
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _layer_flips(figure: Figure, group: Comparison, density: float) -> None:
    arms = [arm for arm in group.main_arms if group.of(arm, density)]
    panels = figure.subplots(1, len(arms), sharey=True, squeeze=False)[0]
    for axes, arm in zip(panels, arms, strict=True):
        runs = group.of(arm, density)
        stages = {name: _by_layer(runs, stage) for stage, name in STAGES.items()}
        plot.layer_flips(stages, numbered=True, ax=axes)
        axes.set_title(label(arm), loc="left")
        axes.label_outer()


def _layer_densities(figure: Figure, group: Comparison, density: float) -> None:
    found: dict[str, list[dict[str, float]]] = {}
    looks = {}
    for arm in group.main_arms:
        mask = arm[0].split("+")[0]
        name = label((mask, None))
        # Methods with the same kind of mask have the same layerwise densities.
        if name not in found and (runs := group.of(arm, density)):
            looks[name] = {"marker": _MARKERS[mask]}
            found[name] = [
                {layer["name"]: layer["survivors"] / layer["total"] for layer in run["layers"]}
                for run in runs
            ]
    plot.densities(found, looks=looks, ax=figure.subplots())


def _period(figure: Figure, group: Comparison, density: float) -> None:
    swept = group.swept()
    panels = figure.subplots(1, len(swept), squeeze=False)[0]
    for axes, (method, at) in zip(panels, swept, strict=True):
        arms = [arm for arm in group.arms if arm[0] == method and group.of(arm, at)]
        known = [(arm[1] or 0, found) for arm in arms if (found := group.final(arm, at, _ACCURACY))]
        periods = [period for period, _ in known]
        plot.points(axes, periods, drawn([found for _, found in known]), **_look((method, None)))
        for other in (f"{method.split('+')[0]}+mv", method.split("+")[0]):
            if found := group.final((other, None), at, _ACCURACY):
                look = _look((other, None))
                name = f"{look['label']} (never)" if "+" in other else look["label"]
                axes.axhline(found.mean, color=look["color"], ls="--", label=name)
                if found.std is not None:
                    low, high = found.mean - found.std, found.mean + found.std
                    axes.axhspan(low, high, color=look["color"], alpha=0.12, lw=0)
        axes.set_title(f"density {at:g}", loc="left")
        axes.set_xlabel("rescale period p (epochs)")
        axes.set_xscale("log")
        ticks(axes, periods, "{:g}".format)
        plot.widen(axes, LEAST, within=(0, 100))
    panels[0].set_ylabel("test accuracy (%)")


_ACCURACY = "test_accuracy"


def _by_layer(runs: Sequence[Result], number: str) -> list[dict[str, float]]:
    """Return a number of every layer, seed by seed."""
    return [{layer["name"]: layer[number] for layer in run["layers"]} for run in runs]


def _middle(densities: Sequence[float]) -> float:
    # The paper's figures are at sparsity 0.9.
    return 0.1 if 0.1 in densities else densities[len(densities) // 2]


def _looks(group: Comparison) -> dict[str, dict[str, Any]]:
    return {label(arm): _look(arm) for arm in group.main_arms}


def _look(arm: Arm) -> dict[str, Any]:
    mask, _, way = arm[0].partition("+")
    return {
        "color": _COLOURS[way],
        "marker": _MARKERS[mask],
        "linestyle": _LINES[mask],
        "label": label(arm),
    }


# Each figure with its size, its title and its caption.
_FIGURES: dict[str, tuple[_Painter, tuple[float, float], str, str]] = {
    "accuracy": (
        _accuracy,
        (5.6, 3.8),
        "Test accuracy against density",
        "Test accuracy against density, mean ± std.",
    ),
    "stages": (
        _stages,
        (6.4, 3.6),
        "Sign flips by stage, {density}",
        "Sign flips by stage ({at} ± std), after Figure 1.",
    ),
    "epochs": (
        _epochs,
        (7.2, 3.6),
        "Sign flips and sharpness, {density}",
        "Sign flips and sharpness by epoch ({at}, bands or whiskers of one std), as Figure 5.",
    ),
    "layers": (
        _layer_flips,
        (7.6, 3.6),
        "Layerwise sign flips, {density}",
        "Layerwise sign flips ({at}, bands of one std), after Figure 8.",
    ),
    "densities": (
        _layer_densities,
        (5.6, 4.2),
        "Layerwise densities, {density}",
        "Layerwise densities ({at}), as Figure 9.",
    ),
    "period": (
        _period,
        (5.6, 3.8),
        "Test accuracy against the rescale period p",
        "Test accuracy against the rescale period p, mean ± std.",
    ),
}
