"""The front page: all printed cells and claims, with statuses that come from configurations."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.pages.cells import (
    PAPER_SCALE,
    PROXY,
    Measured,
    Printed,
    cell_table,
    nearest,
    printed,
    status,
)
from benchmarks.pages.front import front_page
from benchmarks.pages.published import transcript
from benchmarks.pages.verdicts import MISSING, WORDS
from benchmarks.report import papers, write_front_page, write_pages

COMMITTED = Path(__file__).parents[2] / "benchmarks" / "results"
KEYS = (
    "fragility_of_polarity",
    "beyond_zero_crossing",
    "find_a_winning_sign",
    "sign_in_to_the_lottery",
)


@pytest.fixture(scope="module")
def committed():
    return papers(COMMITTED)


@pytest.fixture(scope="module")
def page(committed):
    return front_page(committed)


def rows_of(page, first):
    """The cells of every table that begins with a column, without its head and rule."""
    found, inside = [], False
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        inside = line.startswith("|") and (inside or cells[0] == first)
        if inside and cells[0] != first and set(cells[0]) != {"-"}:
            found.append(cells)
    return found


def test_the_page_has_every_printed_cell_once_with_a_status(page, committed):
    rows = rows_of(page, "cell")
    assert len(rows) == 241 == sum(len(printed(key)) for key in KEYS)
    assert {row[2] for row in rows} == {PAPER_SCALE, PROXY, MISSING}
    of_papers = [(paper, cell) for paper in committed for cell in printed(paper.key)]
    for row, (paper, cell) in zip(rows, of_papers, strict=True):
        assert row[0] == ", ".join(cell.path)
        assert row[2] == status(paper.found.get(cell))
        # A cell without a result says so and shows no number of ours.
        assert (row[2] == MISSING) == (cell not in paper.found) == (row[3] == "—")
        assert row[1].startswith(f"{cell.value:g}")
    assert "## The 241 printed cells" in page


def test_no_cell_is_at_the_papers_scale_that_departs_in_any_given_setting(committed):
    found = [each for paper in committed for each in paper.found.values()]
    assert {status(each) for each in found} == {PAPER_SCALE, PROXY}
    for each in found:
        assert (status(each) == PAPER_SCALE) == (each.departs == ())


def test_every_claim_of_the_transcripts_is_on_the_page_with_a_verdict(page, committed):
    listed = [text for key in KEYS for text in transcript(key).get("claims", [])]
    listed.append(transcript("sign_in_to_the_lottery")["cost_claim"])
    assert len(listed) == 8
    rows = rows_of(page, "claim")
    for text in listed:
        row = next(row for row in rows if row[0].endswith(f": {text}"))
        assert row[2].startswith("**")
    for row in rows:
        assert row[2].removeprefix("**").startswith(WORDS), row
        assert (row[2] == f"**{MISSING}**") == (row[3] == "—") == (row[5] == "—"), row
    stated = {each.text for paper in committed for each in paper.stated}
    assert stated == {row[0].split(": ", 1)[1] for row in rows if row[0]}


def test_counts_add_up(page, committed):
    *of_papers, together = rows_of(page, "paper")
    assert [row[0] for row in of_papers] == [paper.name for paper in committed]
    for row in (*of_papers, together):
        cells, scale, proxy, missing, claims, *verdicts = map(int, row[1:])
        assert scale + proxy + missing == cells
        assert sum(verdicts) == claims
    assert [sum(int(row[k]) for row in of_papers) for k in range(1, 11)] == [
        int(number) for number in together[1:]
    ]


def test_claims_stand_before_cells_and_cells_are_folded(page):
    assert page.index("## The papers' claims") < page.index("## The 241 printed cells")
    cells = page[page.index("## The 241 printed cells") :]
    assert cells.count("<details>") == cells.count("</details>") == 16
    for part in page.split("<details>")[1:]:
        assert part.count("| cell") == 1
    assert "make results" in page
    assert "{toctree}" in page


def test_without_results_nothing_was_run(tmp_path):
    text = write_front_page(tmp_path, tmp_path).read_text(encoding="utf-8")
    rows = rows_of(text, "cell")
    assert len(rows) == 241
    assert {row[2] for row in rows} == {MISSING}
    assert {row[2] for row in rows_of(text, "claim")} == {f"**{MISSING}**"}
    # The command that writes pages still says that there is nothing to write them from.
    assert write_pages(tmp_path, tmp_path / "pages") == []


def test_links_lead_to_pages_that_are_written(page):
    out = Path(__file__).parents[2] / "docs" / "results"
    for part in page.split("](")[1:]:
        assert (out / part.split(")")[0]).is_file()


CELL = Printed("beyond_zero_crossing", "table1_mnist_best", ("mask1",), 97.5, -5e-5)
OURS = Measured("97.10 ± 0.20", "3 seeds", "digits, fc", ("digits",), "page.md", "at φ = 0")


def test_one_departing_setting_makes_a_proxy():
    assert status(None) == MISSING
    assert status(OURS) == PROXY
    assert status(replace(OURS, departs=())) == PAPER_SCALE
    row = cell_table([CELL], {CELL: OURS}).splitlines()[2]
    assert [cell.strip() for cell in row.strip("|").split("|")] == [
        *("mask1", "97.5 (φ = -5e-05)", "proxy", "97.10 ± 0.20", "3 seeds"),
        "[digits, fc](page.md): at φ = 0",
    ]


def test_of_several_runs_the_one_nearest_to_the_paper_is_shown():
    whole, far = replace(OURS, departs=()), replace(OURS, departs=("a", "b"))
    assert nearest([far, OURS, whole]) is whole
    assert nearest([far, OURS]) is OURS
    assert nearest([]) is None
