"""The page from synthetic records: every table and figure, missing cells, and the same twice."""

import json
import re

import pytest

from benchmarks.__main__ import main
from benchmarks.harness.json_lines import write_lines
from benchmarks.harness.results import write_result
from benchmarks.papers.sign_in.dense_to_sparse import tables
from benchmarks.papers.sign_in.dense_to_sparse.report import describe, write_pages
from tests.benchmarks.papers.sign_in.dense_to_sparse.synthetic import (
    cells,
    config,
    frame,
    group_of,
    record,
    search,
    sweep,
)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A full sweep, packed, and the folder that its page is written to."""
    folder = tmp_path_factory.mktemp("results")
    write_lines(folder / "dense_to_sparse.jsonl", sweep())
    written, *first_page = write_pages(folder, folder / "page")
    assert [path.name for path in first_page] == ["first_page.png", "first_page-dark.png"]
    return written


def test_the_page_shows_verdicts_and_a_figure_before_the_tables(page):
    text = page.read_text()
    order = [
        '# Dense-to-sparse training and its signs: Tables 1, 5 and 10 of "Sign-In to the Lotte',
        "AC/DC, RigL and STR learn their signs early",
        "## CIFAR-10 at 16×16",
        "### Verdicts",
        "-table1.png)",
        "-figure1.png)",
        "<summary>Every case of every claim</summary>",
        "### Table 1",
        "### Table 5",
        "### Table 10",
        "### Signs and curvature",
        "-figure5.png)",
        "-figure8.png)",
        "### Layerwise densities",
        "-figure9.png)",
        "### The search for STR's decay",
        "### Settings and provenance",
        "## The experiment",
        "Where ours differ",
    ]
    places = [text.index(each) for each in order]
    assert places == sorted(places)
    assert text.count("<details>") == text.count("</details>") == 3
    assert text.splitlines()[0].endswith('"')
    assert not re.search(r"\b(None|nan|inf)\b", text)


def test_every_figure_that_the_page_shows_is_there(page):
    shown = re.findall(r"\]\((.*\.png)\)", page.read_text())
    assert len(shown) == len(set(shown)) == 5
    there = {path.name for path in page.parent.glob("*.png")}
    assert there == {*shown, "first_page.png", "first_page-dark.png"}  # the last two: of docs/index
    assert all((page.parent / name).stat().st_size > 20_000 for name in shown)


def test_the_committed_file_gives_the_same_page_as_the_files_of_the_runs_and_again(page, tmp_path):
    for result in sweep():
        write_result(tmp_path / "runs" / f"{result['run_id']}.json", result)
    arguments = ["report", "--results", str(tmp_path / "runs"), "--out", str(tmp_path / "page")]
    for _ in range(2):
        assert main(arguments) == 0
        for path in page.parent.iterdir():
            assert (tmp_path / "page" / path.name).read_bytes() == path.read_bytes(), path.name
    out = tmp_path / "packed" / "dense_to_sparse.jsonl"
    assert main(["pack", "--results", str(tmp_path / "runs"), "--out", str(out)]) == 0
    assert out.read_bytes() == (page.parent.parent / "dense_to_sparse.jsonl").read_bytes()


def test_the_report_refuses_a_damaged_or_dirty_committed_file_in_one_line(tmp_path, capsys):
    path = tmp_path / "dense_to_sparse.jsonl"
    lines = [record("acdc"), {**record("rigl"), "git_commit": "abc-dirty"}]
    write_lines(path, lines)
    arguments = ["report", "--results", str(tmp_path), "--out", str(tmp_path / "page")]
    assert main(arguments) == 1
    told = capsys.readouterr().err
    assert f"{lines[1]['run_id']} (abc-dirty)" in told
    path.write_text(json.dumps(lines[0]) + "\n{\n")
    assert main(arguments) == 1
    told += capsys.readouterr().err
    assert f"{path}, line 2, is not a result" in told
    assert told.count("\n") == told.count("error: ") == 2
    assert not (tmp_path / "page").exists()


def test_the_search_names_its_seed_every_trial_and_the_chosen_one():
    text = describe([search(), record("str")], None).text
    assert "full runs of seed 0, for a density of 0.1 ± 0.005, and is 0.002 for all seeds." in text
    rows = cells(tables.search_table(search()))
    assert [row["decay of s"] for row in rows] == ["0.001", "0.004", "0.002"]
    assert [row[""] for row in rows] == ["", "", "chosen"]
    text = describe([{**search(), "found": False}], None).text
    assert "the nearest that was found: none was near enough" in text
    assert "search" not in describe([record("str")], None).text


def test_a_part_of_the_sweep_makes_a_page_with_its_gaps_shown(tmp_path):
    arms = [("acdc", 0.1), ("acdc/random", 0.1), ("random", 0.1)]
    write_lines(tmp_path / "dense_to_sparse.jsonl", sweep((0,), arms))
    (written,) = write_pages(tmp_path, tmp_path / "page")
    text = written.read_text()
    assert "seeds 0." in text
    assert "not run" in text
    assert "too few seeds to compare" in text
    assert not re.search(r"\b(None|nan|inf)\b", text)
    assert len(list(written.parent.glob("*.png"))) == 5
    # Only what ran has a number.
    assert set(re.findall(r"\d\d\.\d\d \(n = (\d)\)", text)) == {"1"}
    assert "±" not in text.split("### Table 1")[1].split("### Table 5")[0]


@pytest.mark.parametrize("arm", ["rigl/sign10", "snip+sign_in", "str"])
def test_a_single_run_makes_a_page(arm, tmp_path):
    write_lines(tmp_path / "dense_to_sparse.jsonl", [record(arm)])
    (written,) = write_pages(tmp_path, tmp_path / "page")
    assert "1 runs, seeds 0." in written.read_text()
    assert write_pages(tmp_path / "nothing", tmp_path) == []


def test_of_an_arm_with_two_settings_the_one_with_more_runs_is_shown_and_the_other_named():
    runs = [record("rigl", seed=seed, accuracy=50.0) for seed in range(3)]
    other = record("rigl", accuracy=90.0)
    other["config"]["rigl_fraction"] = 0.5
    for results in ([other, *runs], [*runs, other]):
        assert group_of(results).accuracy("rigl") == {0: 50.0, 1: 50.0, 2: 50.0}
        text = describe(results, None).text
        assert "Not shown: 1 of `rigl` with other settings." in text
        assert "90.00" not in text


def test_the_same_page_whatever_the_order_of_the_results(tmp_path):
    results = sweep((0, 1, 2), [("acdc", 0.1), ("acdc/random", 0.1)])
    assert (
        describe(results[::-1], None).text.split("\n\n", 1)[0]
        == (describe(results, None).text.split("\n\n", 1)[0])
    )
    rows = [cells(tables.method_table(group_of(each), "acdc")) for each in (results, results[::-1])]
    assert rows[0] == rows[1]


def test_provenance_names_command_capability_and_draws(page):
    text = page.read_text()
    assert "- Command: `python -m benchmarks dense-to-sparse --out runs/dense_to_sparse`" in text
    assert "abacus (AVX9), 2 cores" in text
    assert "draws 2" in text
    assert f"commit {'c' * 40}" in text
    assert "- Schedule of RigL: every 15; end 900" in text


def test_the_terminal_gets_tables_without_figures_and_settings():
    section = describe(sweep((0,)), None)
    assert section.plots == []
    assert "### Verdicts" in section.text
    assert "![" not in section.text
    assert "<details>" not in section.text


def test_a_frame_holds_what_new_result_writes():
    from benchmarks.harness.results import new_result, now

    settled = config("acdc")
    written = new_result(settled, {}, {"final": {}}, started=now(), seconds=1.0)
    assert written.keys() == frame(settled, final={}).keys()
