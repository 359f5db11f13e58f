"""The page from synthetic records: every table and figure, missing cells, and the same twice."""

import json
import re

import pytest

from benchmarks.__main__ import main
from benchmarks.harness.json_lines import write_lines
from benchmarks.harness.results import write_result
from benchmarks.papers.sign_in.dense_to_sparse import tables
from benchmarks.papers.sign_in.dense_to_sparse.captions import (
    differences,
    scale,
    settings,
    settings_table,
)
from benchmarks.papers.sign_in.dense_to_sparse.config import METHODS
from benchmarks.papers.sign_in.dense_to_sparse.plots import draw
from benchmarks.papers.sign_in.dense_to_sparse.report import describe, write_pages
from benchmarks.papers.sign_in.dense_to_sparse.summary import VARIED, comparisons
from tests.benchmarks.papers.sign_in.dense_to_sparse.synthetic import (
    config,
    frame,
    record,
    search,
    sweep,
)

PAGE = "dense_to_sparse.md"


def group_of(results):
    (group,) = comparisons(results)
    return group


def cells(table):
    """The rows of a Markdown table below its head, each by the name of the column."""
    head, _, *rows = (
        [each.strip() for each in line.strip("|").split("|")] for line in table.split("\n")
    )
    return [dict(zip(head, row, strict=True)) for row in rows]


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


def test_table_1_has_our_number_with_its_count_and_the_papers():
    rows = cells(tables.table1(group_of(sweep((0, 1)))))
    assert [row["start"] for row in rows] == [
        "Baseline",
        "Epoch 3 sign (k10)",
        "Epoch 9 sign (k30)",
        "Final sign",
        "Epoch 3 magnitude (k10)",
        "Final magnitude",
        "Random init",
    ]
    runs = [record("acdc", seed=seed, accuracy=50.0 + seed) for seed in range(3)]
    (baseline, *rest) = cells(tables.table1(group_of(runs)))
    assert baseline["AC/DC"] == "51.00 ± 1.00 (n = 3)"
    assert baseline["RigL"] == baseline["STR"] == "—"
    assert {row["AC/DC"] for row in rest} == {"—"}
    (alone, *_) = cells(tables.table1(group_of(runs[:1])))
    assert alone["AC/DC"] == "50.00 (n = 1)"


def test_rows_of_a_method_state_differences_verdicts_and_what_ran():
    runs = [
        record(arm, seed=seed, accuracy=level + seed + shake)
        for arm, level in (("rigl", 60.0), ("rigl/sign10", 59.0), ("rigl/random", 52.0))
        for seed, shake in ((0, 0.0), (1, 0.1 if arm == "rigl/sign10" else 0.0), (2, 0.0))
    ]
    rows = {row["start"]: row for row in cells(tables.method_table(group_of(runs), "rigl"))}
    assert rows["Baseline"]["mask updates"] == "61"
    assert rows["Baseline"]["over the baseline [95 %]"] == rows["Baseline"]["verdict"] == "—"
    signs = rows["Epoch 3 sign (k10)"]
    assert signs["over the baseline [95 %]"].startswith("-0.97 [")
    assert signs["decides [95 %]"].startswith("+7.03 [")  # over the random start
    assert (signs["paper's"], signs["mask updates"], signs["steps"]) == ("+1.43", "0", "1,200")
    assert (signs["density"], signs["no value given"]) == ("0.1000", "5.0 %")
    assert signs["verdict"] == "holds"
    missing = rows["Epoch 9 sign (k30)"]
    assert (missing["verdict"], missing["accuracy (%)"], missing["steps"]) == ("not run", "—", "—")


def test_no_row_with_a_verdict_has_a_detectable_effect_above_the_papers():
    group = group_of(sweep(range(3)))
    texts = [tables.method_table(group, method) for method in METHODS]
    rows = [row for text in texts for row in cells(text)]
    rows += cells(tables.table5(group)) + cells(tables.table10(group))
    judged = [row for row in rows if row["verdict"] not in ("—", "not testable at this size")]
    assert judged
    for row in judged:
        assert float(row["detectable"]) <= abs(float(row["paper's"])), row


def test_the_growth_of_rigl_is_told_for_other_layers_too():
    runs = [record("rigl", seed=seed, accuracy=50.0 + seed) for seed in range(3)]
    others = [record("rigl", seed=seed, accuracy=51.0 + seed) for seed in range(3)]
    for each in others:
        each["config"]["densities"] = "erk"
        each["final"]["ever_grown"] = 1234
        each["command"] = "python -m benchmarks dense-to-sparse --layers erk"
    for results in (others + runs, runs + others):  # of equally many the paper's are shown
        balanced, erk = cells(tables.growth_table(group_of(results)))
        assert (balanced["layers"], erk["layers"]) == ("balanced", "ERK")
        assert balanced["over balanced [95 %]"] == "—"
        assert erk["over balanced [95 %]"].startswith("+1.00 [")
        assert (erk["mask updates"], erk["steps"], erk["density"]) == ("61", "1,200", "0.1000")
        assert erk["entries that ever grew"] == "1,234"
        layers = others[0]["layers"]
        pruned = sum(layer["total"] - layer["survivors"] for layer in layers)
        assert erk["of those pruned at first"] == f"{100 * 1234 / pruned:.1f} %"
        text = describe(results, None, details=True).text
        assert "### What RigL's updates grew" in text
        assert "Not shown" not in text
        assert "dense-to-sparse --layers erk`" in text
    assert tables.growth_table(group_of([record("acdc")])) is None


def test_tables_5_and_10_state_differences_with_sign_in_minus_without():
    group = group_of(sweep(range(3)))
    rows = cells(tables.table5(group))
    assert [row["target"] for row in rows] == ["0.2", "0.2", "0.1", "0.1", "0.05", "0.05"]
    assert [row["paper"] for row in rows[4:]] == ["72.59 ± 0.11", "72.88 ± 0.13"]
    assert [row["paper's"] for row in rows] == ["—", "+0.07", "—", "-0.01", "—", "+0.29"]
    rows = cells(tables.table10(group))
    assert [row["mask"] for row in rows[::2]] == [
        "AC/DC",
        "RigL",
        "STR",
        "SNIP",
        "SynFlow",
        "Random",
    ]
    for row, plain in zip(rows[1::2], rows[::2], strict=True):
        ours = float(row["accuracy (%)"].split()[0]) - float(plain["accuracy (%)"].split()[0])
        assert float(row["difference [95 %]"].split()[0]) == pytest.approx(ours, abs=0.011)
        printed = float(row["paper"].split()[0]) - float(plain["paper"].split()[0])
        assert float(row["paper's"]) == pytest.approx(printed, abs=0.011)


def test_the_layer_table_has_every_mask_and_the_whole_network():
    rows = cells(tables.layer_table(group_of(sweep((0, 1)))))
    assert [row["layer"] for row in rows] == ["conv1", "block1.conv1", "block2.conv1", "fc", "all"]
    assert list(rows[0])[2:] == ["AC/DC", "RigL", "STR", "SNIP", "SynFlow", "Random"]
    assert rows[1]["AC/DC"] == f"{round(2304 * 0.1 * 1.2) / 2304:.4f}"
    assert tables.layer_table(group_of([search()])) is None


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


def test_captions_are_made_of_every_field_of_the_configuration():
    group = group_of(sweep((0,)))
    assert scale(group) == (
        "CIFAR-10 at 16×16 (averaged), 5,000 training images, resnet8 of width 16, 30 epochs"
    )
    named = {name for name, _, _ in settings(group)}
    fields = {field.replace("_", " ") for field in group.config}
    assert fields - named == {"arm", "seed", "density", "experiment"}
    rows = {row["setting"]: row for row in cells(settings_table(group))}
    assert rows["lr"] == {"setting": "lr", "ours": "0.2", "paper": "0.25"}
    assert rows["momentum"]["paper"] == "not given"
    assert rows["train size"]["ours"] == "5,000 of 50,000"
    assert rows["test size"]["ours"] == "all"
    both = "0.0001 (without Sign-In) or 0 (with Sign-In)"
    assert rows["weight decay"]["ours"] == both
    assert rows["rigl updates"]["ours"] == "60 (RigL)"
    assert rows["densities"]["ours"] == "balanced (RigL, Random)"


def test_a_figure_says_how_many_seeds_its_arms_have(tmp_path):
    runs = sweep(range(3)) + sweep((3, 4), [("acdc", 0.1), ("acdc/random", 0.1)])
    figures = draw(group_of(runs), tmp_path, "drawn")
    assert all("density 0.1; 3 or 5 seeds." in each.caption for each in figures.values())
    (alone, *_) = draw(group_of(sweep((0,), [("rigl", 0.1)])), tmp_path, "alone").values()
    assert "density 0.1; 1 seed." in alone.caption


def test_what_differs_from_the_paper_is_named_and_what_does_not_is_not():
    told = differences(group_of(sweep((0,))))
    assert "lr 0.2, the paper's 0.25" in told
    assert "dataset cifar10, the paper's ImageNet" in told
    assert "train size 5,000 of 50,000, the paper's all" in told
    # β = 1 in both, and of momentum the paper says nothing.
    assert "beta" not in told
    assert "momentum" not in told
    settled = config("acdc", lr=0.25)
    (group,) = comparisons([{**record("acdc"), "config": {**record("acdc")["config"], "lr": 0.25}}])
    assert settled.lr == 0.25
    assert "lr 0.25" not in differences(group)


def test_a_field_that_this_page_does_not_know_is_shown_and_parts_the_groups():
    first, second = record("acdc"), record("acdc", seed=1)
    second["config"]["dropout"] = first["config"]["dropout"] = 0.5
    assert ("dropout", "0.5", "not given") in settings(group_of([first, second]))
    second["config"]["dropout"] = 0.1
    assert len(comparisons([first, second])) == 2
    text = describe([first, second], None).text
    assert text.count("### Verdicts") == 2


def test_varied_fields_are_fields_of_the_configuration():
    assert set(VARIED) <= record("acdc")["config"].keys()


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
