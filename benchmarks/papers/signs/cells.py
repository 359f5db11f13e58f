"""The tables of the two sign papers: our number for every printed cell that runs stand for."""

from __future__ import annotations

from collections.abc import Sequence

from ...harness.results import Result
from ...pages.cells import Found, Measured, Printed, nearest_found, printed
from ...pages.published import PAPERS, setup
from ...pages.section import images, seeds_text, uncommitted
from .captions import STAND_INS, departs_from_paper
from .config import RunConfig
from .summary import Sweep, groups_of, sweeps
from .tables import SYMBOLS, point_label

# The perturbation whose best is printed, by the paper and its table.
_KINDS = {"table1_mnist_epsilon_best": "epsilon"}
_DEFAULT = {"fragility": "delta", "zero_crossing": "phi"}


def found_cells(results: Sequence[Result], experiment: str) -> Found:
    """Return our numbers, of several groups of runs those nearest to the paper's."""
    mine = [result for result in results if result["experiment"] == experiment]
    groups = groups_of(mine)
    # Of two groups that depart in as many settings the one with more runs stands first.
    groups.sort(key=len, reverse=True)
    return nearest_found(printed(PAPERS[experiment]), groups, _measured)


def scale(group: Sequence[Result]) -> str:
    """Say in a few words what was run."""
    config = group[0]["config"]
    width = f" of width {config['width']}" if config.get("width") else ""
    return (
        f"{images(group[0]['dataset'])}, {config['arch']}{width}, {config['rounds'] + 1} trainings "
        f"of {config['epochs']} epochs"
    )


def departs(group: Sequence[Result]) -> tuple[str, ...]:
    """Return everything that the paper has otherwise; nothing at the paper's scale."""
    return departs_from_paper(RunConfig.from_json(group[0]["config"]), group[0]["dataset"])


def _measured(group: Sequence[Result], cell: Printed) -> Measured | None:
    """Return the number of a group for a cell; None where it has no run of it."""
    config = group[0]["config"]
    experiment = config["experiment"]
    strategy, kind = cell.path[-1], _KINDS.get(cell.table, _DEFAULT[experiment])
    sweep = next((each for each in sweeps(group) if each.kind == kind), None)
    if sweep is None or not _stands_for(config, cell):
        return None
    point = sweep.best(strategy, "test_accuracy")
    best = None if point is None else sweep.final(strategy, point, "test_accuracy")
    if point is None or best is None:
        return None
    runs = sweep.results(strategy, point)
    at = (
        f"at {SYMBOLS[kind]} = {point_label(kind, point)}, {_coverage(sweep, strategy, experiment)}"
    )
    return Measured(
        value=str(best),
        seeds=seeds_text(len(runs)),
        scale=scale(group),
        departs=departs(group),
        page=f"{experiment}.md",
        note="; ".join(filter(None, (at, uncommitted(runs)))),
    )


def _stands_for(config: dict[str, str], cell: Printed) -> bool:
    """Whether runs of a data set and network can be compared with a cell."""
    dataset = "mnist" if config["dataset"] in STAND_INS else config["dataset"]
    if f"_{dataset}_" not in cell.table:
        return False
    network = cell.path[0] if len(cell.path) > 1 else "fc"
    arch = config["arch"]
    return arch == network or (network.startswith("vgg") and arch.startswith("vgg"))


def _coverage(sweep: Sweep, strategy: str, experiment: str) -> str:
    """Say of how many values the best was taken, and how many the paper's grid has if it is given.

    Values with fewer seeds than others are not among them.
    """
    done = {sweep.value(point) for point in sweep.comparable(strategy, "test_accuracy")}
    grid = set(setup(experiment).get("phi_center", ())) if sweep.kind == "phi" else set()
    return (
        f"best of {len(done & grid)} of {len(grid)} values"
        if grid
        else f"best of {len(done)} values"
    )
