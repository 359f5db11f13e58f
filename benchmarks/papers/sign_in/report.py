"""The page of training from scratch: verdicts and figure first, then Tables 3, 9 and 11."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ...harness.results import Result, load_results
from ...pages.captions import settings_table
from ...pages.claims import case_table, claim_table, detectable, shown, tally
from ...pages.estimates import cell, estimate, percent
from ...pages.markdown import NONE, markdown
from ...pages.paired import compare
from ...pages.repeat import unrepeatable
from ...pages.section import (
    Section,
    figure_stem,
    folded,
    provenance,
    runs_and_seeds,
    write_page,
)
from ...pages.verdicts import RULE
from .. import sign_in
from .captions import arms_rows, caption
from .cells import scale
from .claims import Runs, claims
from .config import EXPERIMENT
from .layerwise import report as layerwise
from .summary import Arm, Comparison, comparisons, label, published

_RULE = f"""\
A difference is paired by seed, with its 95 % interval (Student) and the effect that this many seeds
detect with 80 % power; the spread is pooled over the methods of a mask and over the densities.
{RULE}
For flips and sharpness the paper prints no numbers for these networks, and the interval decides
alone. Sign-In is m⊙v with a rescale: where m⊙v kept more than 0.9 of its inner scaling to the end,
a rescale had next to nothing to restore, and no claim about Sign-In is tested."""
_FLIPS = """\
Flips are fractions of the survivors whose sign differs between two moments; flips per survivor
count every change from one epoch to the next. The warm-up ends after a fifth of the epochs.
Sharpness is the largest eigenvalue of the Hessian of the mean training loss in the surviving
weights θ, biases and norms, in evaluation mode. β̂ is the mean of (m − v)(m + v) over the
survivors."""


def write_pages(folder: Path, out: Path) -> list[Path]:
    """Write `sign_in.md` and its figures where there are results, Figure 9's among them."""
    results, layers = load_results(folder, [EXPERIMENT]), layerwise.section(folder, out)
    parts = [describe(results, out, details=True).text] if results else []
    parts += [layers.text] if layers is not None else []
    if not parts:
        return []
    title, claim, *rest = (sign_in.__doc__ or "").strip().split("\n\n")
    text = "\n\n".join([*parts, "## The experiment", *rest])
    return [write_page(out / f"{EXPERIMENT}.md", f"{title}\n\n{claim}", Section(text))]


def describe(results: Sequence[Result], plots: Path | None, *, details: bool = False) -> Section:
    """Make a section per group of runs with the same settings: verdicts first, then the tables.

    Args:
        results: contents of result files.
        plots: folder to draw into; None draws nothing.
        details: show figures, settings and provenance too: for files, not for terminals.

    Returns:
        The Markdown and the figures drawn.
    """
    parts: list[str] = []
    drawn: list[Path] = []
    for group in comparisons(results):
        figures = {} if plots is None else _draw(group, plots)
        drawn += [path for path, _ in figures.values()]
        pictures = figures if details else {}
        judged = claims(group)
        parts += [f"## {scale(group)}", _runs(group), *unrepeatable(group.results)]
        parts += ["### Verdicts", tally(judged), claim_table(judged)]
        parts += _figures(pictures, "differences")
        if details:
            parts += [_RULE, *folded("Every case of every claim", case_table(judged))]
        parts += ["### Test accuracy (%) after the last epoch", accuracy_table(group)]
        parts += _figures(pictures, "accuracy")
        parts += [
            "Difference to plain training with the same seed (same initialisation, mask and order "
            "of images), with its 95 % interval:",
            gain_table(group),
        ]
        for method, density in group.swept():
            parts.append(f"### Rescale period p: {label((method, None))} at density {density:g}")
            parts.append(period_table(group, method, density))
        parts += _figures(pictures, "period")
        parts += ["### Signs, curvature and inner scaling", *_figures(pictures, "stages", "epochs")]
        signs = [sign_table(group), _FLIPS]
        parts += (
            folded("Flips, sharpness and β̂ at the end", "\n\n".join(signs)) if details else signs
        )
        layers = _figures(pictures, "layers", "densities")
        parts += folded("Layer by layer", "\n\n".join(layers)) if layers else []
        if details:
            parts += ["### Settings and provenance", "\n".join(provenance(group.results))]
            table = settings_table(arms_rows(group.results))
            parts += folded("Every setting, with the paper's", table)
    return Section("\n\n".join(parts), drawn)


def accuracy_table(group: Comparison) -> str:
    """Tabulate methods by densities, each with the paper's number."""
    head, rows = ["method"], []
    full = max(len(group.of(arm, d)) for arm in group.main_arms for d in group.densities)
    with_paper = any(
        published(group.config["dataset"], arm[0], density)
        for arm in group.main_arms
        for density in group.densities
    )
    for density in group.densities:
        head += [f"{density:g}", "paper"] if with_paper else [f"{density:g}"]
    for arm in group.main_arms:
        row = [label(arm, period=True)]
        for density in group.densities:
            row.append(cell(group.final(arm, density, "test_accuracy"), full))
            if with_paper:
                row.append(published(group.config["dataset"], arm[0], density) or NONE)
        rows.append(row)
    return markdown(head, rows)


def gain_table(group: Comparison) -> str:
    """Tabulate what Sign-In and m⊙v add to the accuracy of the same mask, seed by seed."""
    runs, rows = Runs(group), []
    for arm in group.main_arms:
        if "+" not in arm[0]:
            continue
        row, plain = [label(arm, period=True)], (arm[0].split("+")[0], None)
        gains = [
            compare(runs.seeds(arm, density), runs.seeds(plain, density), runs.spread)
            for density in group.densities
        ]
        effects = dict.fromkeys(detectable(gain) for gain in gains if gain is not None)
        rows.append([*row, *map(shown, gains), "; ".join(effects)])
    head = ["method", *(f"{density:g}" for density in group.densities), "detectable"]
    return markdown(head, rows)


def sign_table(group: Comparison) -> str:
    """Tabulate flips, sharpness and β̂, a row per method and density."""
    head = ["density", "method", *_NUMBERS]
    rows = []
    for density in group.densities:
        for arm in group.main_arms:
            if group.of(arm, density):
                rows.append([f"{density:g}", label(arm), *_numbers(group, arm, density)])
    return markdown(head, rows)


def period_table(group: Comparison, method: str, density: float) -> str:
    """Tabulate rescale periods; m⊙v is the last row, in which nothing is ever rescaled."""
    mask = method.split("+")[0]
    arms = [arm for arm in group.arms if arm[0] == method] + [(f"{mask}+mv", None), (mask, None)]
    head = ["p", "test accuracy (%)", *_NUMBERS]
    rows = []
    for arm in arms:
        if not group.of(arm, density):
            continue
        name = {f"{mask}+mv": "never (m⊙v)", mask: "plain training"}.get(arm[0], str(arm[1]))
        accuracy = cell(group.final(arm, density, "test_accuracy"))
        rows.append([name, accuracy, *_numbers(group, arm, density)])
    return markdown(head, rows)


# What `_numbers` gives of a method and density.
_NUMBERS = ("init → warm-up", "warm-up → end", "init → end")
_NUMBERS += ("flips per survivor", "sharpness", "β̂ at the end")


def _numbers(group: Comparison, arm: Arm, density: float) -> list[str]:
    stages = ("init_to_warmup", "warmup_to_end", "init_to_end")
    row = [percent(group.final(arm, density, stage)) for stage in stages]
    row.append(cell(group.final(arm, density, "flips_cumulative")))
    row.append(cell(group.final(arm, density, "sharpness")))
    scaling = [result["final"]["inner_scaling"] for result in group.of(arm, density)]
    found = estimate(each["mean"] if each else None for each in scaling)
    return [*row, NONE if found is None else f"{found.mean:.4f}"]


def _runs(group: Comparison) -> str:
    """Say what was run, and all of it that the paper gives otherwise."""
    return (
        f"{runs_and_seeds(group.results)}. Scale: {caption(group.results)}. "
        "± is the standard deviation over seeds; where seeds are missing, their number stands in "
        "brackets. Columns are densities."
    )


def _figures(figures: Mapping[str, tuple[Path, str]], *names: str) -> list[str]:
    found = [figures[name] for name in names if name in figures]
    return [f"![{told}]({path.name})\n\n{told}" for path, told in found]


def _draw(group: Comparison, folder: Path) -> dict[str, tuple[Path, str]]:
    # matplotlib is slow to import and only needed here.
    from .plots import draw

    folder.mkdir(parents=True, exist_ok=True)
    names = (EXPERIMENT, group.config["dataset"], group.config["arch"])
    return draw(group, folder, figure_stem(names, group.shared))
