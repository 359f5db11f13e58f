"""What every report is: rows under names, a total, a table, and plain data."""

import json

import pytest

import polarity as pol
from polarity.analysis import FlipReport, FlipSeries, LayerFlips
from polarity.deploy import CompressReport, LayerDecision
from polarity.pruning.report import LayerReport
from polarity.signs.report import LayerSigns

FLIPS = FlipReport((LayerFlips("0.weight", 4, 10, 12), LayerFlips("2.weight", 0, 0, 3)))
REPORTS = [
    pol.PruneReport((LayerReport("0.weight", (5, 4), 20, 12), LayerReport("2", (), 1, 1)), ("n",)),
    pol.SignReport((LayerSigns("0.weight", 12, 0.25, 0.5, 1.0, 0.75, 3, 2),), "mask0"),
    FLIPS,
    CompressReport(
        (
            LayerDecision("0.weight", (5, 4), 0.1, (8, 8, 3), True, "faster", 4e-4, 1e-4),
            LayerDecision("2.weight", (3, 5), 1.0, (8,), False, "denser than break_even"),
        ),
        "cpu, 1 thread",
        1e-7,
    ),
]
EVERY = pytest.mark.parametrize("report", REPORTS, ids=lambda report: type(report).__name__)


@EVERY
def test_a_report_gives_its_rows_by_place_and_by_name(report):
    assert list(report) == list(report.layers)
    assert len(report) == len(report.layers)
    assert all(report[row.name] is row for row in report)
    with pytest.raises(KeyError, match="unknown"):
        report["unknown"]


@EVERY
def test_a_table_has_one_line_for_each_row_and_prints_what_was_counted(report):
    lines = str(report).splitlines()
    for row in report:
        assert [line for line in lines if line.startswith(f"{row.name} ")]
    rule = next(at for at, line in enumerate(lines) if set(line) == {"-"})
    assert len(lines[rule - 1].rstrip()) <= len(lines[rule])


@pytest.mark.parametrize("report", [*REPORTS, FlipSeries((FLIPS, FLIPS)),
                                    pol.ErrorBarrier((0.0, 0.5, 1.0), (0.0, 1.0, 0.5))],
                         ids=lambda report: type(report).__name__)  # fmt: skip
def test_plain_data_survives_json_and_holds_fields_and_computed_values(report):
    data = report.to_dict()
    assert json.loads(json.dumps(data)) == data
    assert list(report.__dataclass_fields__) == list(data)[: len(report.__dataclass_fields__)]
    for name in data:
        value = getattr(report, name)
        if isinstance(value, (int, float, str)):
            assert data[name] == value


def test_plain_data_by_hand():
    report = pol.PruneReport((LayerReport("w", (5, 2), before=10, after=4),), ("rewound",))
    assert report.to_dict() == {
        "layers": [
            {"name": "w", "shape": [5, 2], "before": 10, "after": 4, "total": 10, "density": 0.4}
        ],
        "notes": ["rewound"],
        "reach": None,
        "before": 10,
        "survivors": 4,
        "total": 10,
        "density": 0.4,
    }
