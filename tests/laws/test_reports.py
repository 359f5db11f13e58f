"""Laws for every report: text, HTML, plain data and a data frame, by one implementation."""

import importlib
import json
import pkgutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from fractions import Fraction
from html.parser import HTMLParser
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import polarity as pol
from polarity._reports import Tabular, plain_data
from polarity._tables import Table
from tests.forms import half_masked
from tests.helpers import sparse_wins
from tests.models import mlp

X = torch.ones(4, 6)
# They print as a line of a report, or are what a report prints; and a ticket is no report.
OTHERS = {"Reach", "LeftOut", "Table", "SignedMask"}


def model() -> nn.Module:
    return mlp(6, 5, 3)


def masked() -> nn.Module:
    return half_masked(model())


def pruned() -> pol.PruneReport:
    return pol.imp_prune(model(), density=0.5)


def signs() -> pol.SignReport:
    start = pol.RewindPoint.capture(network := model())
    pol.imp_prune(network, density=0.5)
    return pol.reinit_signs(network, init=start)


def tracker() -> pol.SignTracker:
    tracker = pol.SignTracker(network := masked(), keep_steps=True)
    for _ in range(2):
        for target in pol.find_targets(network).values():
            target.write(-target.weight)
        tracker.step()
    return tracker


def compacted() -> pol.CompactReport:
    return pol.compact(masked(), X, measure=sparse_wins, break_even=1.0)


def compressed() -> pol.deploy.CompressReport:
    network = pol.merge(masked())
    return pol.deploy.compress(network, X, measure=sparse_wins, break_even=1.0)


def updated() -> Any:
    network = masked()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    schedule = pol.dense_to_sparse.GradualMagnitude(
        network, optimizer, density=0.2, begin=0, end=1, every=1
    )
    network(X).sum().backward()
    optimizer.step()
    return schedule.step()


def thresholds() -> Any:
    network = masked()
    pol.dense_to_sparse.threshold_weights(network, None, decay=0.1)
    return pol.dense_to_sparse.threshold_report(network)


def barrier() -> pol.ErrorBarrier:
    def error(network: nn.Module) -> np.float32:
        return np.float32(network(X).detach().abs().mean())

    one = model()
    return pol.error_barrier(one, one, mlp(6, 5, 3, seed=4), error, points=3)


def search() -> Any:
    def run(decay: float) -> Any:
        return Fraction(1, 4)

    wanted: Any = Fraction(1, 4)
    return pol.dense_to_sparse.find_decay(run, density=wanted)


def found() -> Any:
    return pol.find_targets(nn.Sequential(nn.Linear(6, 5), nn.Embedding(3, 2)))


# A report of each class, made by the call that returns it, and how many rows it has.
MADE: dict[str, tuple[Callable[[], Any], int]] = {
    "PruneReport": (pruned, 2),
    "SignReport": (signs, 2),
    "FlipReport": (lambda: tracker().flips(), 2),
    "FlipSeries": (lambda: tracker().cumulative(), 2),
    "CompactReport": (compacted, 2),
    "CompressReport": (compressed, 2),
    "UpdateReport": (updated, 2),
    "ThresholdReport": (thresholds, 2),
    "StartReport": (lambda: pol.start_from_mask(n := model(), pol.masks(half_masked(n))), 2),
    "ErrorBarrier": (barrier, 3),
    "DecaySearch": (search, 1),
    "Targets": (found, 2),
    "Summary": (lambda: pol.summary(masked(), X), 2),
}
EVERY = pytest.mark.parametrize("name", MADE)


def classes() -> Iterator[type]:
    """Yield every class of the library that is a dataclass and prints as something of its own."""
    for each in pkgutil.walk_packages(pol.__path__, "polarity."):
        try:
            module = importlib.import_module(each.name)
        except ImportError:  # of another package's integration
            assert each.name.startswith("polarity.integrations.")
            continue
        for thing in vars(module).values():
            own = isinstance(thing, type) and thing.__module__ == module.__name__
            if own and is_dataclass(thing) and thing.__str__ is not object.__str__:
                yield thing


def test_every_class_that_prints_a_table_is_made_here() -> None:
    names = {each.__name__ for each in classes()}
    assert names - OTHERS == {*MADE}
    assert all(issubclass(each, Tabular) for each in classes() if each.__name__ not in OTHERS)


@EVERY
def test_a_report_is_of_its_class_and_leaves_the_forms_to_the_common_one(name: str) -> None:
    kind = type(MADE[name][0]())
    assert kind.__name__ == name
    assert kind.__str__ is Tabular.__str__
    assert kind._repr_html_ is Tabular._repr_html_
    assert kind.to_pandas is Tabular.to_pandas


@EVERY
def test_plain_data_survives_json_and_has_an_entry_for_every_row(name: str) -> None:
    make, count = MADE[name]
    report = make()
    data = report.to_dict()
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    rows = {"ErrorBarrier": "curve", "FlipSeries": "steps", "DecaySearch": "runs"}
    assert len(data[rows.get(name, "layers")]) == count


class Cells(HTMLParser):
    """Reads a table back: the text of its cells by rows, and of the lines around it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.lines: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag == "p":
            self.lines.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, text: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += text
        elif self.open and self.open[-1] == "p":
            self.lines[-1] += text


@EVERY
def test_html_holds_the_cells_and_lines_of_the_text(name: str) -> None:
    report = MADE[name][0]()
    read, text = Cells(report._repr_html_()), str(report).splitlines()
    rule = next(at for at, line in enumerate(text) if set(line) == {"-"})
    inside = text[rule - 1 : rule] + text[rule + 1 : rule + len(read.rows)]
    assert [" ".join(filter(None, row)).split() for row in read.rows] == [
        line.split() for line in inside
    ]
    assert read.lines == text[: rule - 1] + text[rule + len(read.rows) :]
    assert len({len(row) for row in read.rows}) == 1


def test_html_is_escaped() -> None:
    table = Table(("<b>", "a & b"), [("<script>", '"x"')], ("<i>",), ("1 < 2",))
    read = Cells(table.html())
    assert read.rows == [["<b>", "a & b"], ["<script>", '"x"']]
    assert read.lines == ["<i>", "1 < 2"]
    assert "<script>" not in table.html()


class Frame:
    """Stands for ``pandas.DataFrame``: remembers what it is made of."""

    def __init__(self, records: list[dict[str, Any]]) -> None:
        self.records = records


@EVERY
def test_a_data_frame_has_a_row_for_every_row_but_the_total(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("pandas")
    module.DataFrame = Frame  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pandas", module)
    make, count = MADE[name]
    report = make()
    records = report.to_pandas().records
    assert len(records) == count
    assert {tuple(each) for each in records} == {tuple(records[0])}
    assert [hash(value) for each in records for value in each.values()]
    if hasattr(report, "layers"):
        assert [each["name"] for each in records] == [row.name for row in report.layers]
        data = [plain_data(row) for row in report.layers]
        assert [{k: list(v) if isinstance(v, tuple) else v for k, v in each.items()}
                for each in records] == data  # fmt: skip


def test_data_frames_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("pandas")
    module.DataFrame = Frame  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pandas", module)
    path = pol.ErrorBarrier((0.0, 0.5, 1.0), (0.25, 0.75, 0.5))
    assert path.to_pandas().records == [
        {"alpha": 0.0, "error": 0.25, "excess": -0.125},
        {"alpha": 0.5, "error": 0.75, "excess": 0.375},
        {"alpha": 1.0, "error": 0.5, "excess": 0.125},
    ]
    one, two = pol.analysis.LayerFlips("a", 5, 30, 30), pol.analysis.LayerFlips("a", 10, 30, 30)
    series = pol.analysis.FlipSeries((pol.FlipReport((one,)), pol.FlipReport((two,))))
    assert series.to_pandas().records == [
        {"step": 1, "survivors": 30, "flipped": 5, "cumulative": 5, "per_survivor": 5 / 30},
        {"step": 2, "survivors": 30, "flipped": 10, "cumulative": 15, "per_survivor": 0.5},
    ]
    runs = pol.dense_to_sparse.DecaySearch(0.1, 0.5, 0.5, 0.01, ((0.1, 0.5),))
    assert runs.to_pandas().records == [{"decay": 0.1, "density": 0.5}]
    assert found().to_pandas().records == [
        {"name": "0.weight", "shape": (5, 6), "used_by": "Linear", "skipped": None},
        {
            "name": "1.weight",
            "shape": None,
            "used_by": None,
            "skipped": "an embedding: targets='1.weight' takes it",
        },
    ]


@EVERY
def test_pandas_itself_makes_the_frame(name: str) -> None:
    pandas = pytest.importorskip("pandas")
    make, count = MADE[name]
    frame = make().to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert len(frame) == count


@EVERY
def test_without_pandas_the_error_says_what_to_install(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    report = MADE[name][0]()
    with pytest.raises(ImportError, match=r'to_pandas needs pandas.*"torch-polarity\[pandas\]"'):
        report.to_pandas()


def test_numbers_of_other_libraries_become_plain_ones() -> None:
    assert json.dumps(search().to_dict()["wanted"]) == "0.25"
    counts: Any = (np.int64(5), np.int32(30), 30)
    row = pol.FlipReport((pol.analysis.LayerFlips("a", *counts),))
    assert json.dumps(row.to_dict()["layers"][0]["flipped"]) == "5"
    curve: Any = (np.float32(0.5), Fraction(1, 4), 1)
    path = pol.ErrorBarrier((0.0, 0.5, 1.0), curve).to_dict()
    assert json.dumps(path["curve"]) == "[0.5, 0.25, 1]"
    assert json.dumps(path["barrier"]) == "0.25"
