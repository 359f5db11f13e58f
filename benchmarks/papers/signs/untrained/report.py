"""The table of fresh networks' smallest survivors, for the page on thresholds of polarity."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ....harness.results import Result, load_results
from ....pages.estimates import same_settings
from ....pages.markdown import NONE, markdown
from ....pages.repeat import unrepeatable
from ....pages.section import Section, provenance, runs_and_seeds
from ..zero_crossing import SMALL_PHI
from .config import EXPERIMENT

_TITLE = "## Fresh networks: what a small threshold could act on"
_TEXT = f"""\
The first pruning of the papers' networks as they are initialised, before any training: the smallest
20 % of the weights go, of the network or of each layer. `mask0` and `standard` give the survivors
the signs of these weights. Where the smallest survivor is larger than {SMALL_PHI:g}, no threshold
between −{SMALL_PHI:g} and {SMALL_PHI:g} can change a sign, whichever data follows. The last column
counts the weights that differ from those at φ = 0, over both strategies, all such φ of the paper's
grid, and all seeds. Training moves survivors; the tables of trained networks, above, say which
thresholds could act on those."""


def section(folder: Path) -> list[str]:
    """Make the section of the page, where there are results; folders below it are read too."""
    results = load_results(folder, [EXPERIMENT])
    return [describe(results, None, details=True).text] if results else []


def describe(results: Sequence[Result], plots: Path | None, *, details: bool = False) -> Section:
    """Tabulate the networks.

    Args:
        results: contents of result files.
        plots: takes a folder for figures, and there are none.
        details: show the title, the reasoning and provenance too: for files, not for terminals.
    """
    table = smallest_table(results)
    if not details:
        return Section(table)
    runs = f"{runs_and_seeds(results)}."
    parts = [_TITLE, _TEXT, runs, *unrepeatable(results), table, "\n".join(provenance(results))]
    return Section("\n\n".join(parts))


def smallest_table(results: Sequence[Result]) -> str:
    """Tabulate for every network the least survivor of all layers and seeds."""
    rows = []
    for group in same_settings(results, ("seed",)):
        config = group[0]["config"]
        least = [
            each
            for result in group
            for layer in result["layers"]
            if (each := layer["smallest"]) is not None
        ]
        small = [
            count
            for result in group
            for changed in result["changed"].values()
            for phi, count in changed.items()
            if abs(float(phi)) <= SMALL_PHI
        ]
        rows.append(
            [
                f"{config['arch']}, {config['dataset']}",
                f"{config['init']}, {config['prune_scope']} scope",
                f"{sum(layer['total'] for layer in group[0]['layers']):,}",
                f"{min(least):.2e}" if least else NONE,
                f"{sum(small)} in {len(small)} networks",
            ]
        )
    head = ("network", "initialisation, pruning", "weights", "smallest survivor")
    return markdown((*head, f"changed by 0 < abs(φ) ≤ {SMALL_PHI:g}"), rows)
