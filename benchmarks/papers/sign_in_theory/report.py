"""The page of the theory section, made from its result files alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ...harness.results import read_result
from ...pages.claims import case_table, claim_table, tally
from ...pages.section import folded
from . import page_more as more
from . import page_tables as tables
from .claims import claims
from .config import PARTS
from .records import Record
from .run import SCHEMA

_STEM = "sign_in_theory"


def write_pages(results: Path, out: Path) -> list[Path]:
    """Write the page and the pictures it shows.

    Args:
        results: folder with one result file for every part of the section.
        out: folder of the page.

    Returns:
        The files written, the page first.
    """
    from . import plots
    from .equation4_page import plot_equation4
    from .student_plots import plot_students

    records = read_records(results)
    out.mkdir(parents=True, exist_ok=True)
    drawing: dict[str, Callable[[Record, Path], Path]] = {
        "portrait": plots.plot_portrait,
        "dependence": plots.plot_dependence,
        "students": plot_students,
        "figure7": plots.plot_figure7,
        "failure": plots.plot_failure,
        "obstruction": plots.plot_obstruction,
        "equation4": plot_equation4,
    }
    drawn = [draw(records[part], out / f"{_STEM}-{part}.png") for part, draw in drawing.items()]
    page = out / f"{_STEM}.md"
    page.write_text(_text(records), encoding="utf-8")
    return [page, *drawn]


def read_records(results: Path) -> dict[str, Record]:
    """Read the result file of every part of the section.

    Raises:
        ValueError: a file is no result of the section.
    """
    records: dict[str, Record] = {}
    for part in PARTS:
        record = read_result(results / f"{part}.json")
        if record.get("schema") != SCHEMA:
            raise ValueError(f"{results / part}.json is not a result of the theory section")
        records[part] = record
    return records


def _text(records: dict[str, Record]) -> str:
    judged = claims(records)
    sections = [
        _INTRODUCTION,
        "## Verdicts",
        tally(judged),
        claim_table(judged),
        _RULE,
        *folded("Every case of every claim", case_table(judged)),
        "## Theorems 5.1 and 5.2: phase portraits (Figure 3)",
        _picture("portrait"),
        tables.portrait(records["portrait"]),
        "## Table 2: a < 0, five inputs",
        tables.table2(records["table2"]),
        "## Table 8: four sign cases, four methods",
        tables.table8(records["table8"]),
        "## Figure 7: paths and losses with five inputs",
        _picture("figure7"),
        tables.figure7(records["figure7"]),
        "## Eq. (4): why one scaling is enough with several inputs",
        _picture("equation4"),
        _equation4(records["equation4"]),
        "## What Tables 2 and 8 depend on",
        _picture("dependence"),
        tables.dependence(records["dependence"]),
        tables.step_size(records["step_size"]),
        "## The failure case after Figure 7: a random teacher",
        _picture("failure"),
        tables.failure(records["failure"]),
        "## Theorem 5.4: no reparameterisation crosses w = 0",
        _picture("obstruction"),
        more.obstruction(records["obstruction"]),
        "## Figures 4 and 6: several neurons",
        _picture("students"),
        more.students(records["students"]),
        "## Speed of the batch",
        more.speed(records["speed"]),
        "## Provenance",
        more.provenance(records),
    ]
    return "\n\n".join(sections) + "\n"


def _equation4(record: Record) -> str:
    # Its page draws, and matplotlib is slow to import.
    from .equation4_page import equation4

    return equation4(record)


def _picture(part: str) -> str:
    return f"![{part}]({_STEM}-{part}.png)"


_RULE = """\
Where the paper prints that all runs or none do something, or proves it, a claim *holds* if all of
ours or none do, *holds partly* if most do, and *does not hold* otherwise; the detectable effect is
the probability of an exception that this many runs would have shown with 80 % power. That Sign-In
usually resolves failures holds where the interval of the share lies above a half, and does not hold
where it lies below. That more inputs help holds where the intervals do not meet."""
_INTRODUCTION = """\
# Sign-In to the Lottery: the theory section

One neuron f(z) = a·relu(wᵀz) learns from another one with ã = 1 and w̃ = (1, 0, …, 0). A sparse
student has only the one input that matters (d = 1), an overparameterised one has five. Sign-In
descends on m and v, where a or w is m·v and m² − v² = β at the start; it is never rescaled.

Everything below is float64, full batch, plain gradient descent on half the mean squared error, and
comes from the JSON files in `benchmarks/results/theory`:

```bash
python -m benchmarks sign_in theory
```

The paper does not give the number of samples, the scale of the initialisation, or what counts as a
success. Unless a caption says otherwise, all runs share n = 256 samples z ~ N(0, I), w ~ N(0, I)
with the signs of the case, a = ±‖w‖, and a run succeeds with a final loss below 1e-4. Brackets are
exact (Clopper and Pearson) 95 % intervals over the initialisations; they do not cover other data
sets, which the section on dependence varies. A run ends early only if its state is a fixed point of
the step to the last bit, or no longer finite."""
