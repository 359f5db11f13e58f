"""Flips that are drawn are the flips that the library reports."""

import pytest
import torch
from torch import nn

import polarity as pol
from polarity import plot
from polarity.analysis import FlipReport, FlipSeries, LayerFlips
from tests.plot.reading import bands, drawn, heights, legend_of, near


def series(*counts):
    return FlipSeries(tuple(FlipReport((LayerFlips("w", n, 10, 10),)) for n in counts))


@pytest.fixture
def tracker():
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4))
    tracker = pol.SignTracker(model)
    for _ in range(3):
        with torch.no_grad():
            for layer in model:
                layer.weight.copy_(torch.randn_like(layer.weight))
        tracker.step()
    return tracker


def test_flips_of_a_tracker_are_those_of_its_series_by_epoch(tracker):
    axes = plot.flips({"ours": tracker})
    expected = tracker.cumulative().per_survivor
    assert drawn(axes, "ours") == near(list(enumerate(expected, 1)))
    assert legend_of(axes) == ["ours"]
    assert axes.get_xlabel() == "epoch"
    assert axes.get_ylabel() == "sign flips so far per survivor"
    assert axes.get_ylim()[0] == 0


def test_the_same_is_drawn_from_the_series_and_from_its_numbers(tracker):
    found = tracker.cumulative()
    axes = plot.flips({"a": tracker, "b": found, "c": list(found.per_survivor)})
    assert drawn(axes, "a") == drawn(axes, "b") == drawn(axes, "c")


def test_seeds_are_drawn_as_their_mean_and_a_band():
    axes = plot.flips({"ours": [series(4, 2), series(2, 0)]}, spread="range")
    assert drawn(axes, "ours") == near([(1, 0.3), (2, 0.4)])
    assert bands(axes) == [{0.2, 0.4, 0.6}]


def test_one_series_without_a_label_has_no_legend():
    axes = plot.flips(series(1, 2))
    assert len(axes.lines) == 1
    assert legend_of(axes) == []


def test_seeds_of_different_lengths_are_an_error():
    with pytest.raises(ValueError, match=r"series\['a'\] has seeds of 2, 1 steps, expected equal"):
        plot.flips({"a": [series(1, 2), series(1)]})


@pytest.mark.parametrize("wrong", [3, "flips", [], {}, {"a": 3}, {"a": []}, [series(1), "x"]])
def test_other_series_are_an_error_that_says_what_is_expected(wrong):
    with pytest.raises(
        TypeError, match=r"series.* expected a SignTracker, a FlipSeries or numbers"
    ):
        plot.flips(wrong)


def test_stages_are_bars_of_the_reports_fractions(tracker):
    report = tracker.flips("init")
    stages = {"ours": {"initialisation → end": report}, "other": {"initialisation → end": 0.25}}
    axes = plot.flip_stages(stages)
    assert heights(axes, "initialisation → end") == near([report.fraction, 0.25])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["ours", "other"]
    assert axes.get_ylabel() == "survivors whose sign differs (%)"


def test_a_stage_that_a_method_has_not_leaves_its_place_empty():
    axes = plot.flip_stages({"one": {"a": 0.1, "b": 0.2}, "two": {"b": 0.4}, "three": {}})
    assert heights(axes, "a") == [0.1]
    assert heights(axes, "b") == [0.2, 0.4]


def test_stages_of_another_type_are_errors():
    with pytest.raises(TypeError, match=r"stages\['one'\] is a float"):
        plot.flip_stages({"one": 0.3})
    with pytest.raises(TypeError, match=r"stages\['one'\]\['a'\] is a str, expected a FlipReport"):
        plot.flip_stages({"one": {"a": "many"}})


def test_flips_of_layers_are_those_of_the_report(tracker):
    report = tracker.flips("init")
    axes = plot.layer_flips({"ours": report})
    assert drawn(axes, "ours") == near([(n, row.fraction) for n, row in enumerate(report, 1)])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "1"]
    assert axes.get_ylim()[0] == 0
