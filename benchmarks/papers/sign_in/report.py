"""Tables of Sign-In results in the layout of Tables 3, 9 and 11, with the paper's numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...harness.results import Result, load_results
from ...pages.estimates import cell, estimate, percent
from ...pages.markdown import NONE, markdown
from ...pages.published import transcript
from ...pages.section import (
    Section,
    figure_stem,
    provenance,
    runs_and_seeds,
    subset,
    write_page,
)
from .. import sign_in
from .config import EXPERIMENT
from .layerwise import report as layerwise
from .summary import Arm, Comparison, comparisons, label, published

_STAND_INS = {
    "digits": "scikit-learn's 8x8 digits, which the paper does not use",
    "mnist": "MNIST, which the paper does not use",
    "fashion_mnist": "Fashion-MNIST, which the paper does not use",
}


def write_pages(folder: Path, out: Path) -> list[Path]:
    """Write `sign_in.md` and its figures where there are results, Figure 9's among them."""
    results, layers = load_results(folder, [EXPERIMENT]), layerwise.section(folder, out)
    parts = [describe(results, out, details=True).text] if results else []
    parts += [layers.text] if layers is not None else []
    if not parts:
        return []
    return [write_page(out / f"{EXPERIMENT}.md", sign_in.__doc__, Section("\n\n".join(parts)))]


def describe(results: Sequence[Result], plots: Path | None, *, details: bool = False) -> Section:
    """Make a section per group of runs with the same settings.

    Args:
        results: contents of result files.
        plots: folder to draw into; None draws nothing.
        details: show figures and provenance too: for files, not for terminals.

    Returns:
        The Markdown and the figures drawn.
    """
    parts: list[str] = []
    drawn: list[Path] = []
    for group in comparisons(results):
        config = group.config
        parts.append(f"## {config['dataset']}, {config['arch']}")
        parts.append(_scale(group))
        if details:
            parts.append(_provenance(group))
        figures = _draw(group, plots) if plots is not None else []
        drawn += [path for path, _ in figures]
        parts += ["### Test accuracy (%) after the last epoch", accuracy_table(group)]
        parts += [
            "Difference to plain training with the same seed (same initialisation, mask and order "
            "of images), mean ± std, and in how many seeds it is positive:",
            gain_table(group),
            "### Signs, curvature and inner scaling at the end",
            sign_table(group),
            _SIGN_NOTE,
        ]
        for method, density in group.swept():
            parts.append(f"### Rescale period p: {label((method, None))} at density {density:g}")
            parts.append(period_table(group, method, density))
        if details:
            parts += [f"![{caption}]({path.name})\n\n{caption}" for path, caption in figures]
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
    rows = []
    for arm in group.main_arms:
        if "+" not in arm[0]:
            continue
        row = [label(arm, period=True)]
        for density in group.densities:
            gain = group.gain(arm, density)
            row.append(NONE if gain is None else f"{gain[0]} ({gain[1]}/{gain[0].count})")
        rows.append(row)
    return markdown(["method", *(f"{density:g}" for density in group.densities)], rows)


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


_SIGN_NOTE = (
    "Flips are fractions of the survivors whose sign differs between two moments; flips per "
    "survivor count every change from one epoch to the next. The warm-up ends after a fifth of the "
    "epochs. Sharpness is the largest eigenvalue of the Hessian of the mean training loss in the "
    "surviving weights θ, biases and norms, in evaluation mode. β̂ is the mean of (m − v)(m + v) "
    "over the survivors."
)


def _scale(group: Comparison) -> str:
    """Say what was run, and how much smaller than the paper's it is."""
    config, dataset = group.config, group.results[0]["dataset"]
    setup = transcript("sign_in_to_the_lottery")["setup"]
    paper = setup.get(config["dataset"], setup["cifar10"])
    notes = [_STAND_INS[config["dataset"]]] if config["dataset"] in _STAND_INS else []
    network = config["arch"]
    if config["width"] is not None:
        network += f" of width {config['width']}"
    if config["stem_stride"] not in (None, 1):
        network += f" with a stem of stride {config['stem_stride']}"
    if network != paper["arch"]:
        notes.append(f"{network}, the paper's {paper['arch']}")
    notes += subset(dataset["train"], dataset["train_available"], "training images")
    notes += subset(dataset["test"], dataset["test_available"], "test images")
    for key, name in (("epochs", "epochs"), ("batch_size", "images per batch"), ("lr", "peak lr")):
        wanted = paper["batch" if key == "batch_size" else key]
        if config[key] != wanted:
            notes.append(f"{config[key]:g} {name}, the paper's {wanted:g}")
    scale = "; ".join(notes) or "the paper's"
    return (
        f"{runs_and_seeds(group.results)}. Scale: {scale}. "
        "± is the standard deviation over seeds; where seeds are missing, their number stands in "
        "brackets. Columns are densities."
    )


def _provenance(group: Comparison) -> str:
    config, results = group.config, group.results
    keys = ("epochs", "batch_size", "optimizer", "lr", "momentum", "schedule", "label_smoothing")
    keys += ("augment", "device", "bf16", "channels_last", "sharpness_images")
    settings = [f"{key.replace('_', ' ')} {config[key]}" for key in keys]
    own = ("weight_decay", "beta", "rescale_until", "rescale_momentum", "frobenius_decay")
    for arm in group.main_arms:
        mine = group.of(arm)[0]["config"]
        used = ", ".join(
            f"{key.replace('_', ' ')} {mine[key]}" for key in own if mine[key] is not None
        )
        settings.append(f"{label(arm)}: {used}")
    return "\n".join([f"- Settings: {'; '.join(settings)}", *provenance(results)])


def _draw(group: Comparison, folder: Path) -> list[tuple[Path, str]]:
    # matplotlib is slow to import and only needed here.
    from .plots import draw

    folder.mkdir(parents=True, exist_ok=True)
    names = (EXPERIMENT, group.config["dataset"], group.config["arch"])
    return draw(group, folder, figure_stem(names, group.shared))
