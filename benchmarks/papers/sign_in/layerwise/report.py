"""The section on Figure 9: verdicts, figure, a table of the sparsest layers, and all layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ....harness.results import Result, load_results
from ....pages.captions import caption
from ....pages.claims import claim_table, tally
from ....pages.estimates import estimate, same_settings, shared_settings
from ....pages.markdown import NONE, markdown
from ....pages.repeat import unrepeatable
from ....pages.section import Section, distinct, figure_stem, folded, provenance, seeds, seeds_text
from .. import layerwise
from .claims import claims, least_densities
from .config import EXPERIMENT, MASKS, NAMES
from .stated import settings

_PANELS = {
    "random, by layer": ("balanced", "erk", "uniform"),
    "by a score": ("synflow", "synflow_once", "snip", "magnitude"),
}
# What differs between the masks of one comparison.
_VARIED = ("mask", "seed", "score_images")
_NETWORKS = {"resnet50": "torchvision's ResNet-50"}


def section(folder: Path, out: Path) -> Section | None:
    """Make the section for the page on Sign-In, and its figures; None where nothing was computed.

    Args:
        folder: folder of result files; folders below it are read too.
        out: folder of the figures.
    """
    results = load_results(folder, [EXPERIMENT])
    return describe(results, out, details=True) if results else None


def describe(results: Sequence[Result], plots: Path | None, *, details: bool = False) -> Section:
    """Make a part per group of masks that differ in mask and seed alone.

    Args:
        results: contents of result files.
        plots: folder to draw into; None draws nothing.
        details: show the figure, the experiment, every layer and provenance too: for files.
    """
    title, claim, *rest = (layerwise.__doc__ or "").strip().split("\n\n")
    parts = [f"## {title.rstrip('.')}", claim] if details else []
    drawn: list[Path] = []
    for group in same_settings(results, _VARIED):
        judged = claims(group)
        parts += [_scale(group), *unrepeatable(group), tally(judged), claim_table(judged)]
        if plots is not None:
            drawn.append(_draw(group, plots))
            if details:
                parts.append(f"![{drawn[-1].stem}]({drawn[-1].name})")
        parts += [sparsest_table(group), _SPARSEST]
        if details:
            parts += folded("The densities of Figure 9, layer by layer", layer_table(group))
            parts.append("\n".join(provenance(group)))
    return Section("\n\n".join([*parts, *(rest if details else [])]), drawn)


def sparsest_table(group: Sequence[Result]) -> str:
    """Tabulate what the claims are about: the sparsest layers, and those without a survivor."""
    initial, later = least_densities(group, initial=True), least_densities(group, initial=False)
    rows = []
    for mask, results in _by_mask(group).items():
        layers = [layer for result in results for layer in result["layers"]]
        sparse = sum(100 * layer["survivors"] < layer["total"] for layer in layers) / len(results)
        empty = distinct(layer["name"] for layer in layers if not layer["survivors"])
        least = (initial.get(mask, {}), later.get(mask, {}))
        rows.append(
            [
                NAMES[mask],
                *(f"{estimate(row.values())}" if row else NONE for row in least),
                f"{sparse:.3g}",
                _listed(empty),
                f"{100 * results[0]['final']['density']:.3f}",
            ]
        )
    head = ("mask", "sparsest initial layer, %", "sparsest later layer, %")
    return markdown((*head, "layers below 1 %", "without any survivor", "all layers, %"), rows)


def layer_table(group: Sequence[Result]) -> str:
    """Tabulate the density of every layer, means over seeds."""
    by_mask = _by_mask(group)
    columns = {mask: _densities(results) for mask, results in by_mask.items()}
    rows = []
    for place, layer in enumerate(group[0]["layers"]):
        found = (
            100 * sum(list(each.values())[place] for each in column) / len(column)
            for column in columns.values()
        )
        rows.append([layer["name"], f"{layer['total']:,}", *(f"{each:.3g}" for each in found)])
    return markdown(("layer", "weights", *(f"{NAMES[mask]}, %" for mask in columns)), rows)


def _listed(names: Sequence[str]) -> str:
    """Name layers; the projections of shortcuts are counted where there are several."""
    shortcuts = [name for name in names if "downsample" in name]
    others = [name.removesuffix(".weight") for name in names if name not in shortcuts]
    counted = [f"projections of {len(shortcuts)} shortcuts"] if shortcuts else []
    return ", ".join([*counted, *others]) or "no layer"


def _by_mask(group: Sequence[Result]) -> dict[str, list[Result]]:
    found = {
        mask: [result for result in group if result["config"]["mask"] == mask] for mask in MASKS
    }
    return {mask: results for mask, results in found.items() if results}


def _densities(results: Sequence[Result]) -> list[Mapping[str, float]]:
    return [
        {layer["name"]: layer["survivors"] / layer["total"] for layer in result["layers"]}
        for result in results
    ]


def _scale(group: Sequence[Result]) -> str:
    config = group[0]["config"]
    weights = sum(layer["total"] for layer in group[0]["layers"])
    return (
        f"{_network(config['arch'])}, untrained, {config['classes']} classes; {weights:,} weights "
        f"in {len(group[0]['layers'])} layers; scores with images of "
        f"{config['image_size']}×{config['image_size']}; density {config['density']:g}; "
        f"{seeds_text(len(seeds(group)))}. Scale: {caption(settings(group))}."
    )


def _network(arch: str) -> str:
    return _NETWORKS.get(arch, f"{arch} (the paper: ResNet-50)")


def _draw(group: Sequence[Result], folder: Path) -> Path:
    # matplotlib is slow to import and only needed here.
    from .plots import plot_layers

    config = group[0]["config"]
    stem = figure_stem(
        (EXPERIMENT, config["arch"]), repr(sorted(shared_settings(config, _VARIED).items()))
    )
    folder.mkdir(parents=True, exist_ok=True)
    found = {NAMES[mask]: _densities(results) for mask, results in _by_mask(group).items()}
    scale = (
        f"{_network(config['arch'])}, density {config['density']:g}; "
        f"{seeds_text(len(seeds(group)))}, bands from the least to the largest; "
        "crosses: no survivor"
    )
    panels = {what: [NAMES[mask] for mask in masks] for what, masks in _PANELS.items()}
    return plot_layers(found, panels, folder / f"{stem}.png", scale)


_SPARSEST = """\
The initial layers are the stem and the first stage; ± is the standard deviation over seeds.
*Without any survivor* are layers that a mask of at least one seed leaves empty: crosses below the
figure's lines. Signals still pass a block whose projection is empty, and no classifier that is."""
