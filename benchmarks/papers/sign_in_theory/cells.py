"""Tables 2 and 8: our number for every printed cell, and the claims of the theory section."""

from __future__ import annotations

from typing import Any

from ...pages.captions import NOT_GIVEN, Row, departures
from ...pages.cells import Found, Measured, cells_of
from ...pages.section import uncommitted
from ...pages.stated import Judged, Stated
from .claims import Records, claims, counted, table8_cells
from .page_formats import percent, share
from .records import Record

PAPER = "sign_in_to_the_lottery"
PAGE = "sign_in_theory.md"
_TABLES = ("table2_sign_recovery_percent_a_negative_d5", "table8_success_fraction")
# What section 5 and appendix E give of the runs of each table.
_PAPER = {
    "table2": {"runs": "100", "inputs": "5", "training time T": "200", "scaling β": "1"},
    "table8": {"runs": "100", "steps": "200000", "learning rate": "0.01"},
}


def found_cells(records: Records) -> Found:
    """Return our numbers for both tables."""
    found = {}
    two, eight = (departs(records, table) for table in _PAPER)
    ours = {(f"lr{cell['lr']:g}", cell["method"]): cell for cell in records["table2"]["cells"]}
    for printed in cells_of(PAPER, _TABLES[0]):
        if cell := ours.get((printed.path[0], printed.path[1])):
            note = f"a > 0; loss below 1e-4 in {percent(cell['loss'])}"
            value = f"{percent(cell['sign_a'])}"
            found[printed] = _measured(records["table2"], value, cell["sign_a"], two, note)
    last = table8_cells(records["table8"])
    for printed in cells_of(PAPER, _TABLES[1]):
        if cell := last.get((printed.path[0], printed.path[1])):
            note = f"loss below 1e-4, n = {cell['samples']}"
            value = share(cell["loss"])
            found[printed] = _measured(records["table8"], value, cell["loss"], eight, note)
    return found


def stated(records: Records) -> list[Stated]:
    """Return every claim of the theory section."""
    everything = tuple(each for table in _PAPER for each in departs(records, table))
    return [
        Stated(
            claim.source,
            claim.text,
            "a single neuron" if claim.source != "Figure 4" else "three neurons",
            (Judged(claim, "float64, full batch", everything, PAGE),),
        )
        for claim in claims(records)
    ]


def departs(records: Records, table: str) -> tuple[str, ...]:
    """Return every setting of a table that the paper gives otherwise."""
    return tuple(departures(settings(records[table])))


def settings(record: Record) -> list[Row]:
    """Return the settings of Table 2's or Table 8's runs: names, ours, and the paper's."""
    ours: dict[str, Any] = dict(record["settings"])
    paper = _PAPER[record["part"]]
    if record["part"] == "table2":
        named = {
            "runs": f"{ours.pop('runs')}",
            "inputs": f"{ours.pop('dim')}",
            "training time T": f"{ours.pop('horizon'):g}",
            "scaling β": f"{ours.pop('beta'):g}",
        }
    else:
        named = {
            "runs": f"{ours.pop('runs')}",
            "steps": f"{max(ours.pop('steps'))}",
            "learning rate": f"{ours.pop('lr'):g}",
        }
    rows = [Row(name, value, paper.get(name, NOT_GIVEN)) for name, value in named.items()]
    return [*rows, *(Row(name, f"{value}", NOT_GIVEN) for name, value in ours.items())]


def _measured(
    record: Record, value: str, count: Record, departs: tuple[str, ...], note: str
) -> Measured:
    return Measured(
        value=value,
        seeds=f"{counted(count).count} runs",
        scale="float64, full batch",
        departs=departs,
        page=PAGE,
        note="; ".join(filter(None, (note, uncommitted([record])))),
    )
