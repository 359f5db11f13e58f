"""Table 2: our number for every printed cell that a run of ours stands for."""

from __future__ import annotations

from collections.abc import Sequence

from ...harness.results import Result
from ...pages.cells import Found, Measured, Printed, cells_of, nearest_found
from ...pages.estimates import cell
from ...pages.section import images, seeds_text, uncommitted
from .captions import departs_from_paper
from .config import EXPERIMENT
from .summary import Outcomes, settings

PAPER = "find_a_winning_sign"
PAGE = f"{EXPERIMENT}.md"
# The networks that may stand for each of the table's, with the setting they are compared with.
_NETWORKS = {
    "resnet50": ("imagenet-resnet50", ("resnet50", "small_resnet", "resnet20")),
    "mobilenet_v2": ("imagenet-mobilenet_v2", ("mobilenet_v2",)),
    "mlp_mixer": ("imagenet-mixer_s16", ("mixer_s16", "mixer")),
}


def found_cells(results: Sequence[Result]) -> Found:
    """Return our numbers, of several groups of runs those nearest to the paper's."""
    return nearest_found(cells_of(PAPER, "table2_imagenet_top1"), settings(results), _measured)


def scale(outcomes: Outcomes) -> str:
    """Say in a few words what was run."""
    data, recipe = images(outcomes.results[0]["dataset"]), outcomes.config["recipe"]
    return f"{data}, {outcomes.arch}, {recipe['final']['epochs']} epochs"


def _measured(outcomes: Outcomes, printed: Printed) -> Measured | None:
    """Return the number of a group for a cell; None where it has no run of it."""
    network, *ratio, name = printed.path
    setting, archs = _NETWORKS[network]
    round = 0 if not ratio else _round(outcomes, float(ratio[0]))
    if outcomes.arch not in archs or round is None:
        return None
    runs = outcomes.runs("final", name, round)
    found = outcomes.accuracy(name, round)
    if found is None:
        return None
    at = f"remaining ratio {outcomes.density(round):.3f}" if ratio else ""
    return Measured(
        value=cell(found),
        seeds=seeds_text(len(runs)),
        scale=scale(outcomes),
        departs=departs_from_paper(outcomes, setting),
        page=PAGE,
        note="; ".join(filter(None, (at, uncommitted(runs.values())))),
    )


def _round(outcomes: Outcomes, ratio: float) -> int | None:
    """Return the round whose remaining ratio is printed with two digits."""
    found = (
        round for round in outcomes.rounds if f"{outcomes.density(round):.2f}" == f"{ratio:.2f}"
    )
    return next(found, None)
