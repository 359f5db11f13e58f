"""The claims of section 5 and appendix E, each judged by counting runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ...pages.claims import Case, Claim
from ...pages.counted import Counted, as_printed
from ...pages.published import transcript
from ...pages.verdicts import FAILS, HOLDS, PARTLY, UNTESTABLE
from .neuron import CASE_NAMES, CASES
from .page_formats import PLAIN
from .records import Record, interval

_SHARE = "share of runs that reach the teacher"
Records = Mapping[str, Record]


def claims(records: Records) -> list[Claim]:
    """Judge every claim."""
    return [
        *_theorems(records["portrait"]),
        _table2(records["table2"]),
        _table8(records["table8"]),
        _equation4(records["equation4"]),
        _obstruction(records["obstruction"]),
        _failure(records["failure"]),
        _neurons(records["students"]),
    ]


def table8_cells(record: Record) -> dict[tuple[str, str], Record]:
    """Return the cells of Table 8 at the paper's number of steps, by method and sign case.

    The paper does not say how many samples there are; the first number is the page's default.
    """
    samples, steps = record["settings"]["samples"][0], max(record["settings"]["steps"])
    return {
        (cell["method"], cell["case"]): cell
        for cell in record["cells"]
        if (cell["samples"], cell["steps"]) == (samples, steps)
    }


def counted(found: Record) -> Counted:
    """Return a count of a record."""
    low, high = found["interval"]
    return Counted(found["successes"], found["runs"], low, high)


def _theorems(record: Record) -> Iterable[Claim]:
    told = {
        "gradient flow": (
            "Theorem 5.1",
            "With one input gradient flow reaches the teacher from a > 0, w > 0 and no other signs",
            ("++",),
        ),
        "sign_in, 2 and 1": (
            "Theorem 5.2",
            "With a larger scaling for a than for w Sign-In reaches it from a < 0, w > 0 too",
            ("++", "-+"),
        ),
    }
    cells = {(cell["flow"], cell["case"]): cell for cell in record["cells"]}
    for flow, (source, text, solved) in told.items():
        cases = (
            _case(CASE_NAMES[case], counted(cells[flow, case]), float(case in solved))
            for case in CASES
        )
        yield Claim(source, text, _SHARE, tuple(cases))


def _table2(record: Record) -> Claim:
    printed = transcript("sign_in_to_the_lottery")["table2_sign_recovery_percent_a_negative_d5"]
    cases = (
        _case(
            f"{PLAIN[cell['method']]}, η = {cell['lr']:g}",
            counted(cell["sign_a"]),
            printed[f"lr{cell['lr']:g}"][cell["method"]] / 100,
        )
        for cell in record["cells"]
    )
    text = "With five inputs and one scaling Sign-In recovers the sign of a, gradient descent never"
    return Claim("Table 2", text, "share of runs that end with a > 0", tuple(cases))


def _table8(record: Record) -> Claim:
    printed = transcript("sign_in_to_the_lottery")["table8_success_fraction"]
    cases = (
        _case(f"{method}, {CASE_NAMES[case]}", counted(cell["loss"]), float(printed[method][case]))
        for (method, case), cell in table8_cells(record).items()
        if method in printed
    )
    text = "Sign-In and overparameterisation solve different sign cases, together all four"
    return Claim("Table 8", text, _SHARE, tuple(cases))


def _equation4(record: Record) -> Claim:
    cases = (
        _case(f"β = {row['beta']:g}, {row['dim']} inputs", counted(row["holds"]), 1.0)
        for row in record["starts"]
        if row["factor"] == "printed"
    )
    text = "At a balanced start the factor of a is at least the mean of those of w"
    return Claim("Eq. (4)", text, "share of starts at which it is so", tuple(cases))


def _obstruction(record: Record) -> Claim:
    cases = (
        _case(f"{row['name']}, {row['start']}", counted(row["crossed"]), 0.0)
        for row in record["rows"]
    )
    text = "From w < 0 no reparameterisation reaches the teacher"
    return Claim("Theorem 5.4", text, "share of runs that reach w > 0", tuple(cases))


def _failure(record: Record) -> Claim:
    """Judge that more inputs help where a random teacher makes Sign-In fail."""
    longest: dict[tuple[str, int], Counted] = {}
    for cell in record["cells"]:
        if cell["method"] == "sign_in":
            # The last of a dimension has the most steps.
            longest[cell["reading"], cell["dim"]] = counted(cell["loss"])
    cases = []
    for reading, name in (("padded", "teacher of two inputs"), ("full", "teacher of all inputs")):
        of = {dim: found for (which, dim), found in longest.items() if which == reading}
        if len(of) < 2:
            continue
        least = of[min(of)]
        most = max(of.values(), key=lambda found: found.share)
        verdict = HOLDS if least.share < 1 and most.low > least.high else UNTESTABLE
        cases.append(Case(f"{name} ({least} with two)", verdict, most, None))
    text = "With a random teacher it fails at times with two inputs, and more inputs help"
    return Claim("appendix E", text, f"{_SHARE}, with more than two inputs", tuple(cases))


def _neurons(record: Record) -> Claim:
    """Judge that Sign-In resolves most of the failures of bad signs."""
    readings = {"mean": "c = 1/k", "sum, small steps": "c = 1, small steps"}
    cases = []
    for pair in record["pairs"]:
        failed = pair["only_sign_in"] + pair["neither"]
        if pair["reading"] not in readings or pair["setup"] != "bad signs + sign_in" or not failed:
            continue
        low, high = interval(pair["only_sign_in"], failed)
        found = Counted(pair["only_sign_in"], failed, low, high)
        verdict = HOLDS if low > 0.5 else FAILS if high < 0.5 else PARTLY
        cases.append(Case(readings[pair["reading"]], verdict, found, None))
    return Claim(
        "Figure 4",
        "With several neurons and bad signs Sign-In usually resolves the failures",
        "share of the failures that Sign-In resolves, above a half",
        tuple(cases),
    )


def _case(name: str, found: Counted, printed: float) -> Case:
    return Case(name, as_printed(found, printed), found, printed)
