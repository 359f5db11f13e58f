"""The table of fresh networks' smallest survivors, for the page on thresholds of polarity."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ....harness.names import Arch
from ....harness.results import Result, load_results
from ....pages.cells import printed
from ....pages.estimates import same_settings
from ....pages.markdown import NONE, markdown
from ....pages.published import PAPERS
from ....pages.repeat import unrepeatable
from ....pages.section import Section, provenance, runs_and_seeds
from ..thresholds import BY_TRAINED_WEIGHTS
from ..zero_crossing import EXPERIMENT as ZERO_CROSSING
from ..zero_crossing import SMALL_PHI
from .config import EXPERIMENT, NETWORKS

_INITS, _SCOPES = ("our init", "PyTorch's init"), ("global scope", "layer scope")
_WAYS = [(init, scope) for init in _INITS for scope in _SCOPES]
_TITLE = "## Fresh networks: what a small threshold could act on"
_PAPERS_BASE = 0.8
_TEXT = f"""\
The first pruning of the papers' networks as they are initialised, before any training: the smallest
{{pruned}} % of the weights go, of the network or of each layer. The table has the smallest survivor
of all layers and seeds; our init is the experiments' default. `mask0` and `standard` give survivors
the signs of these weights: where all are larger than {SMALL_PHI:g}, no threshold between
−{SMALL_PHI:g} and {SMALL_PHI:g} can change a sign, whichever data follows. The last column counts
the weights that differ from those at φ = 0, over both strategies, all such φ of the paper's grid,
and all seeds. Training moves survivors; the tables of trained networks, above, say which thresholds
could act on those."""


def section(folder: Path) -> list[str]:
    """Make the section of the page, where there are results; folders below it are read too."""
    results = load_results(folder, [EXPERIMENT])
    return [describe(results, None, details=True).text] if results else []


def describe(results: Sequence[Result], plots: Path | None, *, details: bool = False) -> Section:
    """Tabulate the networks, a table for each density after pruning and each device.

    Args:
        results: contents of result files.
        plots: takes a folder for figures, and there are none.
        details: show the title, the reasoning and provenance too: for files, not for terminals.
    """
    parts = [_TITLE, best_that_cannot_act()] if details else []
    for group in same_settings(results, ("dataset", "arch", "init", "prune_scope", "seed")):
        base = group[0]["config"]["prune_base"]
        if details:
            text = _TEXT.format(pruned=f"{100 * (1 - base):g}")
            runs = f"{runs_and_seeds(group)}. Scale: {_scale(base)}."
            parts += [text, runs, *unrepeatable(group)]
        parts.append(smallest_table(group))
        if details:
            parts.append("\n".join(provenance(group)))
    return Section("\n\n".join(parts))


def best_that_cannot_act() -> str:
    """Say how many printed cells name a threshold as the best that fresh survivors rule out."""
    cells = [cell for cell in printed(PAPERS[ZERO_CROSSING]) if cell.path[-1] in BY_TRAINED_WEIGHTS]
    small = [cell for cell in cells if cell.second and abs(cell.second) <= SMALL_PHI]
    return (
        f"{len(small)} of the {len(cells)} cells that the paper prints for `mask0` and `standard` "
        f"name a best threshold that is not zero and no larger than {SMALL_PHI:g}. Unless training "
        "makes survivors smaller than that, such a threshold changes no sign."
    )


def _scale(base: float) -> str:
    departs = f"density {base:g} after the first round, the papers' {_PAPERS_BASE:g}"
    return "as the papers give it" if base == _PAPERS_BASE else departs


def smallest_table(results: Sequence[Result]) -> str:
    """Tabulate the least survivor of all layers and seeds, a row per network."""
    groups = {_place(group[0]): group for group in same_settings(results, ("seed",))}
    ways = sorted({way for _, way in groups}, key=_WAYS.index)
    rows = []
    for network in sorted({network for network, _ in groups}, key=NETWORKS.index):
        mine = {way: groups[network, way] for way in ways if (network, way) in groups}
        first = next(iter(mine.values()))[0]
        least = [f"{_least(mine[way]):.2e}" if way in mine else NONE for way in ways]
        small = [count for group in mine.values() for count in _changed(group)]
        rows.append(
            [
                f"{network[1]}, {network[0]}",
                f"{sum(layer['total'] for layer in first['layers']):,}",
                *least,
                f"{sum(small)} weights in {len(small)} networks",
            ]
        )
    head = ("network", "weights", *(f"{init}, {scope}" for init, scope in ways))
    return markdown((*head, f"changed by 0 < abs(φ) ≤ {SMALL_PHI:g}"), rows)


def _place(result: Result) -> tuple[tuple[str, Arch], tuple[str, str]]:
    """Return the network of a result, and its initialisation and scope."""
    config = result["config"]
    init = "PyTorch's init" if config["init"] == "torch" else "our init"
    return (config["dataset"], config["arch"]), (init, f"{config['prune_scope']} scope")


def _least(group: Sequence[Result]) -> float:
    return min(
        layer["smallest"]
        for result in group
        for layer in result["layers"]
        if layer["smallest"] is not None
    )


def _changed(group: Sequence[Result]) -> list[int]:
    """Return how many weights each small threshold changes, for each strategy and seed."""
    return [
        count
        for result in group
        for changed in result["changed"].values()
        for phi, count in changed.items()
        if abs(float(phi)) <= SMALL_PHI
    ]
