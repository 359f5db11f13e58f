"""What a pruning call says it did."""

import pytest
import torch
from torch import nn

import polarity as pol
from polarity.pruning.report import LayerReport

TABLE = """\
weight      shape  before  after  density
-----------------------------------------
0.weight  2x1x3x3      18      5   0.2778
2.weight      3x2       6      1   0.1667
total          24      24      6   0.2500
in reach: 24 of 24 matrix entries"""


@pytest.fixture
def net() -> nn.Sequential:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Linear(2, 3))
    with torch.no_grad():
        net[0].weight.copy_(torch.arange(18.0).view(2, 1, 3, 3))
        net[2].weight.copy_(torch.tensor([[0.5, 1.5], [2.5, 3.5], [4.5, 16.5]]))
    return net


def test_a_report_counts_every_layer_before_and_after(net):
    report = pol.imp_prune(net, density=0.25)
    assert list(report) == list(report.layers)
    assert len(report) == 2
    assert [(each.name, each.shape, each.before, each.after, each.total) for each in report] == [
        ("0.weight", (2, 1, 3, 3), 18, 5, 18),
        ("2.weight", (3, 2), 6, 1, 6),
    ]
    assert [each.density for each in report] == [5 / 18, 1 / 6]
    assert (report.before, report.survivors, report.total, report.density) == (24, 6, 24, 0.25)


def test_the_next_report_begins_where_the_last_one_ended(net):
    pol.imp_prune(net, density=0.25)
    report = pol.imp_prune(net, 0.5, scope="layer")
    assert [(each.before, each.after) for each in report] == [(5, 3), (1, 1)]
    assert [each.density for each in report] == [3 / 18, 1 / 6]
    assert (report.before, report.survivors, report.density) == (6, 4, 4 / 24)


def test_a_report_agrees_with_the_masks(net):
    report = pol.imp_prune(net, 0.3)
    masks = pol.masks(net)
    assert {each.name: each.after for each in report} == {
        name: int(mask.sum()) for name, mask in masks.items()
    }
    assert report.density == pol.density(net)


def test_a_report_prints_as_a_table(net):
    assert str(pol.imp_prune(net, density=0.25)) == TABLE


def test_notes_are_printed_under_the_table(net):
    start = pol.RewindPoint.capture(net)
    report = pol.imp_prune(net, density=0.25, rewind=start)
    assert report.notes
    *table, reach = TABLE.splitlines()
    assert str(report).splitlines() == [*table, *report.notes, reach]


def test_the_notes_say_what_was_rewound_and_what_was_not(net):
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.StepLR(sgd, 1)
    whole = pol.RewindPoint.capture(net, sgd, schedule)
    notes = pol.imp_prune(net, 0.2, rewind=whole, optimizer=sgd).notes
    said = ("rewound: every parameter", "rewound: optimizer", "not rewound: scheduler")
    assert [note.startswith(start) for note, start in zip(notes, said, strict=True)] == [True] * 3
    notes = pol.lrr_step(net, 0.2, rewind=whole, scheduler=schedule).notes
    said = ("not rewound: optimizer", "rewound: scheduler")
    assert [note.startswith(start) for note, start in zip(notes, said, strict=True)] == [True] * 2


def test_without_rewinding_there_is_nothing_to_note(net):
    assert pol.imp_prune(net, 0.2).notes == ()


def test_an_empty_weight_counts_as_dense():
    empty = LayerReport("w", (0, 3), 0, 0)
    assert (empty.total, empty.density) == (0, 1)
    assert pol.PruneReport((empty,)).density == 1
    assert pol.PruneReport(()).density == 1


def test_a_weight_of_no_axes_prints_as_a_scalar():
    assert "scalar" in str(pol.PruneReport((LayerReport("scale", (), 1, 0),)))


def test_a_report_cannot_be_changed(net):
    report = pol.imp_prune(net, 0.2)
    with pytest.raises(AttributeError):
        report.layers = ()
    with pytest.raises(AttributeError):
        report.layers[0].after = 3
