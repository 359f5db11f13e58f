"""The cells of the papers' tables, and what our runs say of each: its status and our number.

Nothing here says which cell was run at which scale: a paper's own `cells` module compares the
configuration of every run with what its paper gives, and hands over the settings that depart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from .markdown import NONE, markdown
from .published import transcript
from .verdicts import MISSING

Group = TypeVar("Group")

PAPER_SCALE = "paper's scale"
PROXY = "proxy"
STATUSES = (PAPER_SCALE, PROXY, MISSING)


@dataclass(frozen=True)
class Printed:
    """A cell of a table as a paper prints it.

    Attributes:
        paper: the paper's key in `published_values.json`.
        table: the table's key there.
        path: the keys that lead to the cell within the table.
        value: the number.
        second: what is printed with it: the deviation, or the threshold that gave the best.
    """

    paper: str
    table: str
    path: tuple[str, ...]
    value: float
    second: float | None = None


@dataclass(frozen=True)
class Measured:
    """Our number for a printed cell.

    Attributes:
        value: the number with its spread, as the page shows it.
        seeds: how many seeds or repetitions it comes from, in words.
        scale: what was run, in a few words.
        departs: every setting that the paper gives otherwise; none at the paper's scale.
        page: the page that shows it.
        note: what else must be said of it.
    """

    value: str
    seeds: str
    scale: str
    departs: tuple[str, ...]
    page: str
    note: str = ""


Found = Mapping[Printed, Measured]


def printed(paper: str) -> list[Printed]:
    """Return every printed cell of a paper, in the order of its tables."""
    return [
        cell
        for table, content in transcript(paper).items()
        if table.startswith("table")
        for cell in _cells(paper, table, content, ())
    ]


def cells_of(paper: str, table: str) -> list[Printed]:
    """Return the printed cells of a table."""
    return [cell for cell in printed(paper) if cell.table == table]


def _cells(paper: str, table: str, entry: Any, path: tuple[str, ...]) -> Iterable[Printed]:
    if isinstance(entry, dict):
        for key, inner in entry.items():
            if not key.startswith("_"):
                yield from _cells(paper, table, inner, (*path, key))
    else:
        value, second = entry if isinstance(entry, list) else (entry, None)
        yield Printed(paper, table, path, float(value), second)


def status(measured: Measured | None) -> str:
    """Return the status of a cell; a run with one departing setting is a proxy."""
    if measured is None:
        return MISSING
    return PROXY if measured.departs else PAPER_SCALE


def nearest(candidates: Iterable[Measured]) -> Measured | None:
    """Return the one with fewest departures from the paper, the first of equals."""
    return min(candidates, key=lambda each: len(each.departs), default=None)


def nearest_found(
    cells: Iterable[Printed],
    groups: Sequence[Group],
    measured: Callable[[Group, Printed], Measured | None],
) -> Found:
    """Return for each cell the nearest of our numbers, where a group has any.

    Args:
        cells: the cells.
        groups: of runs.
        measured: returns the number of a group for a cell; None where it has no run of it.
    """
    found = {}
    for cell in cells:
        best = nearest(each for group in groups if (each := measured(group, cell)) is not None)
        if best is not None:
            found[cell] = best
    return found


def status_counts(cells: Sequence[Printed], found: Found) -> Counter[str]:
    """Count the cells of each status."""
    return Counter(status(found.get(cell)) for cell in cells)


def cell_table(cells: Sequence[Printed], found: Found) -> str:
    """Tabulate cells with their status, the paper's number and ours."""
    rows = []
    for cell in cells:
        ours = found.get(cell)
        row = [", ".join(cell.path), _published(cell), status(ours)]
        if ours is None:
            row += [NONE, NONE, NONE]
        else:
            where = f"[{ours.scale}]({ours.page})"
            row += [ours.value, ours.seeds, f"{where}: {ours.note}" if ours.note else where]
        rows.append(row)
    return markdown(("cell", "paper", "status", "ours", "from", "measured on"), rows)


def _published(cell: Printed) -> str:
    if cell.second is None:
        return f"{cell.value:g}"
    if cell.paper == "beyond_zero_crossing":
        return f"{cell.value:g} (φ = {cell.second:g})"
    return f"{cell.value:g} ± {cell.second:g}"
