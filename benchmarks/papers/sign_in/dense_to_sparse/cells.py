"""Tables 1, 5 and 10: our number for every printed cell, and the claims around them."""

from __future__ import annotations

from collections.abc import Sequence

from ....harness.results import Result
from ....pages.cells import Found, Measured, Printed, cells_of, nearest_found
from ....pages.section import seeds_text, uncommitted
from ....pages.stated import Judged, Stated
from .captions import departs_from_paper, scale
from .claims import claims
from .config import EXPERIMENT
from .summary import DENSITY, TABLE1, Comparison, comparisons, table10_arms

PAPER = "sign_in_to_the_lottery"
PAGE = f"{EXPERIMENT}.md"
_TABLES = (
    "table1_imagenet_resnet50_s90",
    "table5_acdc_resnet50",
    "table10_masks_imagenet_resnet50_s90",
)
_STARTS = {row: start for start, row in TABLE1.items()}


def found_cells(results: Sequence[Result]) -> Found:
    """Return our numbers, of several groups of runs those nearest to the paper's."""
    groups = comparisons(result for result in results if result["experiment"] == EXPERIMENT)
    cells = [cell for table in _TABLES for cell in cells_of(PAPER, table)]
    return nearest_found(cells, groups, _measured)


def stated(results: Sequence[Result]) -> list[Stated]:
    """Return every claim, judged by the group of runs that is nearest to the paper's."""
    groups = comparisons(result for result in results if result["experiment"] == EXPERIMENT)
    judged: dict[tuple[str, str], list[Judged]] = {}
    for group in groups:
        for claim in claims(group):
            judged.setdefault((claim.source, claim.text), []).append(
                Judged(claim, scale(group), departs_from_paper(group), PAGE, len(group.shown))
            )
    return [Stated(*claim, "ImageNet, ResNet-50", tuple(found)) for claim, found in judged.items()]


def _measured(group: Comparison, printed: Printed) -> Measured | None:
    """Return the number of a group for a cell; None where it has no run of it."""
    arm, density = _run(printed)
    runs = group.of(arm, density)
    found = group.final(arm, "test_accuracy", density)
    if found is None:
        return None
    return Measured(
        value=str(found),
        seeds=seeds_text(len(runs)),
        scale=scale(group),
        departs=departs_from_paper(group),
        page=PAGE,
        note=uncommitted(runs),
    )


def _run(printed: Printed) -> tuple[str, float]:
    """Return the arm and the density of a cell."""
    if printed.table == _TABLES[0]:
        row, method = printed.path
        start = _STARTS[row]
        return (f"{method}/{start}" if start else method), DENSITY
    if printed.table == _TABLES[1]:
        sparsity, arm = printed.path
        return arm, round(1 - float(sparsity), 4)
    mask, start = printed.path
    plain, with_sign_in = table10_arms(mask)
    return (with_sign_in if start == "sign_in" else plain), DENSITY
