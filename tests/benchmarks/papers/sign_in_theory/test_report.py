"""The theory section from command line to page, and how its counts are made."""

import json

import numpy as np
import pytest
from PIL import Image

from benchmarks.pages.cells import PAPER_SCALE, PROXY, status
from benchmarks.pages.counted import Counted
from benchmarks.pages.verdicts import FAILS, HOLDS, PARTLY
from benchmarks.papers.sign_in_theory.cells import found_cells
from benchmarks.papers.sign_in_theory.claims import claims
from benchmarks.papers.sign_in_theory.command import COMMITTED, TheoryOptions, main
from benchmarks.papers.sign_in_theory.config import PARTS
from benchmarks.papers.sign_in_theory.neuron import gaussian_task
from benchmarks.papers.sign_in_theory.page_more import provenance
from benchmarks.papers.sign_in_theory.records import count, interval, outcome
from benchmarks.papers.sign_in_theory.report import read_records, write_pages

PICTURES = ("portrait", "dependence", "students", "figure7", "failure", "obstruction", "equation4")


def test_intervals_are_exact():
    # No success in n: the upper end p solves (1 − p)^n = 0.025.
    assert interval(0, 100) == [0.0, round(1 - 0.025**0.01, 4)]
    assert interval(100, 100) == [round(0.025**0.01, 4), 1.0]
    found = count(np.array([True, False, True]))
    assert (found["successes"], found["runs"]) == (2, 3)


def test_each_criterion_counts_what_it_says():
    task = gaussian_task(200, 2, seed=0)
    solved, right_signs, flipped = [1.0, 1.0, 0.0], [0.1, 0.1, 0.0], [1.0, -1.0, 0.1]
    wrong, diverged = [-1.0, 1.0, 0.0], [np.inf, 1.0, 0.0]
    found = outcome(np.array([solved, right_signs, flipped, wrong, diverged]).T, task)
    successes = {key: found[key]["successes"] for key in ("loss", "signs", "sign_a")}
    assert successes == {"loss": 1, "signs": 2, "sign_a": 3}
    assert found["diverged"] == 1
    assert found["loss"]["runs"] == 5


def test_quick_run_writes_results_page_and_pictures(tmp_path, capsys):
    results, out = tmp_path / "results", tmp_path / "page"
    assert main(TheoryOptions(quick=True, results=results, out=out)) == 0
    for part in PARTS:
        record = json.loads((results / f"{part}.json").read_text(encoding="utf-8"))
        assert record["settings"]
        assert record["versions"]["numpy"] == np.__version__
    text = (out / "sign_in_theory.md").read_text(encoding="utf-8")
    for part in PICTURES:
        assert f"](sign_in_theory-{part}.png)" in text
        with Image.open(out / f"sign_in_theory-{part}.png") as picture:
            assert picture.width > 600
    for heading in (
        "Eq. (4)",
        "Table 2",
        "Table 8",
        "Figure 3",
        "Figure 7",
        "Theorem 5.4",
        "Figures 4 and 6",
    ):
        assert heading in text
    assert text.index("## Verdicts") < text.index("## Theorems")
    # The same page comes from the files alone.
    before = text
    assert main(TheoryOptions(quick=True, results=results, out=out, report_only=True)) == 0
    assert (out / "sign_in_theory.md").read_text(encoding="utf-8") == before
    assert str(out / "sign_in_theory.md") in capsys.readouterr().out


def test_missing_results_are_named(tmp_path, capsys):
    options = TheoryOptions(report_only=True, results=tmp_path, out=tmp_path)
    assert main(options) == 1
    assert "table8" in capsys.readouterr().err


def test_a_file_of_something_else_is_refused(tmp_path):
    for part in PARTS:
        (tmp_path / f"{part}.json").write_text('{"schema": 1}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"portrait\.json is not a result of the theory section"):
        write_pages(tmp_path, tmp_path)


@pytest.fixture(scope="module")
def committed():
    return read_records(COMMITTED)


def test_claims_are_judged_by_counting(committed):
    found = {claim.source: claim for claim in claims(committed)}
    assert {source: claim.verdict for source, claim in found.items()} == {
        **dict.fromkeys(("Theorem 5.1", "Theorem 5.2", "Table 2", "Table 8"), HOLDS),
        **dict.fromkeys(("Eq. (4)", "Theorem 5.4", "appendix E"), HOLDS),
        "Figure 4": FAILS,
    }
    assert len(found["Table 8"].cases) == 16


@pytest.mark.parametrize(("successes", "verdict"), [(100, HOLDS), (99, PARTLY), (2, FAILS)])
def test_a_share_that_is_not_the_printed_one_shows(committed, successes, verdict):
    record = json.loads(json.dumps(committed))
    for cell in record["table8"]["cells"]:
        if (cell["method"], cell["case"]) == ("sparse", "++"):
            cell["loss"] |= {"successes": successes}
    claim = next(each for each in claims(record) if each.source == "Table 8")
    assert claim.cases[0].verdict == verdict


def test_what_a_hundred_runs_would_have_shown():
    # An exception of probability p is missed by all of n runs with probability (1 − p)^n = 0.2.
    assert (1 - Counted(100, 100, 0.96, 1.0).detectable) ** 100 == pytest.approx(0.2)


def test_twenty_cells_are_at_the_papers_scale_and_quick_runs_are_not(committed):
    found = found_cells(committed)
    assert len(found) == 20
    assert {status(each) for each in found.values()} == {PAPER_SCALE}
    quick = json.loads(json.dumps(committed))
    quick["table8"]["settings"]["runs"] = 8
    by_table = {cell.table: status(each) for cell, each in found_cells(quick).items()}
    assert sorted(by_table.values()) == [PAPER_SCALE, PROXY]


def test_the_page_says_which_parts_were_computed_by_uncommitted_code(committed):
    records = {part: record | {"git_commit": "a" * 40} for part, record in committed.items()}
    records["table8"]["git_commit"] += "-dirty"
    text = provenance(records)
    assert text.count("(computed by code that was not committed)") == 1
    line = next(line for line in text.splitlines() if line.startswith("| table8"))
    assert f"{'a' * 12} (computed" in line
    marked = {cell.table for cell, each in found_cells(records).items() if "not comm" in each.note}
    assert marked == {"table8_success_fraction"}


def test_committed_results_are_of_the_whole_section():
    settings = {
        part: json.loads((COMMITTED / f"{part}.json").read_text(encoding="utf-8"))["settings"]
        for part in PARTS
    }
    assert settings["table8"]["runs"] == settings["table2"]["runs"] == 100
    assert settings["table8"]["steps"][-1] == 200_000
    assert settings["table2"]["horizon"] == 200.0
