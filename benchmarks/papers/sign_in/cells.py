"""Tables 3, 9 and 11: our number for every printed cell that a run of ours stands for."""

from __future__ import annotations

from collections.abc import Sequence

from ...harness.results import Result
from ...pages.cells import Found, Measured, Printed, cells_of, nearest_found
from ...pages.estimates import cell
from ...pages.section import images, seeds_text, uncommitted
from .captions import departs_from_paper
from .config import EXPERIMENT
from .summary import Comparison, comparisons

PAPER = "sign_in_to_the_lottery"
PAGE = f"{EXPERIMENT}.md"
_TABLES = ("table3_random_mask", "table9_pai", "table11_rescaling")
# Where a table calls a method otherwise than the command line does.
_METHODS = {
    ("table3_random_mask", "sign_in"): "random+sign_in",
    ("table11_rescaling", "sign_in"): "random+sign_in",
    ("table11_rescaling", "no_rescale"): "random+mv",
}


def found_cells(results: Sequence[Result]) -> Found:
    """Return our numbers, of several groups of runs those nearest to the paper's."""
    groups = comparisons(results)
    cells = [cell for table in _TABLES for cell in cells_of(PAPER, table)]
    return nearest_found(cells, groups, _measured)


def scale(group: Comparison) -> str:
    """Say in a few words what was run."""
    width = f" of width {group.config['width']}" if group.config["width"] else ""
    data = images(group.results[0]["dataset"])
    return f"{data}, {group.config['arch']}{width}, {group.config['epochs']} epochs"


def _measured(group: Comparison, printed: Printed) -> Measured | None:
    """Return the number of a group for a cell; None where it has no run of it."""
    key = {"table3_random_mask": (0, 1, 2)}.get(printed.table, (0, 2, 1))
    network, sparsity, method = (printed.path[place] for place in key)
    if network.split("_")[0] != group.config["dataset"]:
        return None
    method = _METHODS.get((printed.table, method), method)
    arm = next((arm for arm in group.main_arms if arm[0] == method), None)
    density = round(1 - float(sparsity), 4)
    runs = [] if arm is None else group.of(arm, density)
    if arm is None or not runs:
        return None
    return Measured(
        value=cell(group.final(arm, density, "test_accuracy")),
        seeds=seeds_text(len(runs)),
        scale=scale(group),
        departs=departs_from_paper(runs[0]),
        page=PAGE,
        note="; ".join(
            filter(None, ("" if arm[1] is None else f"p = {arm[1]}", uncommitted(runs)))
        ),
    )
