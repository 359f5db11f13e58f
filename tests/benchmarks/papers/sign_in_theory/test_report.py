"""The theory section from command line to page, and how its counts are made."""

import json

import numpy as np
import pytest
from PIL import Image

from benchmarks.papers.sign_in_theory.command import COMMITTED, TheoryOptions, main
from benchmarks.papers.sign_in_theory.config import PARTS
from benchmarks.papers.sign_in_theory.neuron import gaussian_task
from benchmarks.papers.sign_in_theory.records import count, interval, outcome
from benchmarks.papers.sign_in_theory.report import write_pages

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


def test_committed_results_are_of_the_whole_section():
    settings = {
        part: json.loads((COMMITTED / f"{part}.json").read_text(encoding="utf-8"))["settings"]
        for part in PARTS
    }
    assert settings["table8"]["runs"] == settings["table2"]["runs"] == 100
    assert settings["table8"]["steps"][-1] == 200_000
    assert settings["table2"]["horizon"] == 200.0
