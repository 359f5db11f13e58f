"""What the report of compact says."""

from typing import Any

import pytest

import polarity as pol
from tests.helpers import dense_wins, sparse_wins
from tests.models import mlp, x_of
from tests.survivors.test_compact import W0, W2, pruned


def test_a_report_has_a_row_for_every_weight_with_its_times() -> None:
    report = pol.compact(pruned(), x_of(2, 4, 6), measure=sparse_wins)
    assert [each.name for each in report] == [W0, W2]
    first = report[W0]
    assert (first.shape, first.rows, first.density) == ((8, 6), (8,), 10 / 48)
    assert (first.dense_seconds, first.sparse_seconds, first.speedup) == (2.0, 1.0, 2.0)
    assert (first.compact, first.swapped, first.form) == (True, True, "sparse")
    assert report.to_dict()["layers"][0]["form"] == "sparse"
    assert "cpu, " in report.machine


def test_its_text_has_times_forms_and_reasons() -> None:
    text = str(pol.compact(pruned(), x_of(4, 6), measure=sparse_wins))
    assert "masked ms  sparse ms  speed-up  decision" in text
    assert "2.00x  sparse: faster" in text
    assert text.splitlines()[-1].startswith("forward and backward, measured on cpu, ")
    assert "0.50x  masked: slower" in str(pol.compact(pruned(), x_of(4, 6), measure=dense_wins))
    named = pol.compact(pruned(), x_of(4, 6), targets=W0, measure=dense_wins)
    assert "0.50x  scattered: slower" in str(named)
    assert str(pol.compact(pruned())).splitlines()[-1] == "not measured: no example_inputs"


def test_it_is_printed_only_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    pol.compact(pruned(), x_of(4, 6), measure=sparse_wins)
    assert capsys.readouterr().out == ""
    report = pol.compact(pruned(), x_of(4, 6), measure=sparse_wins, verbose=True)
    assert capsys.readouterr().out == f"{report}\n"


def test_the_default_measure_times_both_forms() -> None:
    model = mlp(64, 512, 64)
    pol.imp_prune(model, density=0.01)
    report: Any = pol.compact(model, x_of(64, 64))
    assert all(each.dense_seconds > 0 and each.sparse_seconds > 0 for each in report)
    assert report.compact == tuple(each.name for each in report if each.speedup >= 1.1)
