"""Tables of synthetic records: our numbers with the paper's, differences, verdicts and gaps."""

import pytest

from benchmarks.papers.sign_in.dense_to_sparse import tables
from benchmarks.papers.sign_in.dense_to_sparse.config import METHODS
from benchmarks.papers.sign_in.dense_to_sparse.report import describe
from tests.benchmarks.papers.sign_in.dense_to_sparse.synthetic import (
    cells,
    group_of,
    record,
    search,
    sweep,
)


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
