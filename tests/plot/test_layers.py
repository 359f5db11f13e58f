"""Densities and balances that are drawn are those of the reports, masks and signs."""

import pytest
import torch
from torch import nn

import polarity as pol
from polarity import plot
from polarity.signs.report import LayerSigns, SignReport
from tests.plot.reading import bands, drawn, legend_of, near


@pytest.fixture
def model():
    return nn.Sequential(nn.Linear(20, 10), nn.Linear(10, 10), nn.Linear(10, 2))


def test_densities_of_a_report_of_masks_and_as_numbers_are_the_same_line(model):
    report = pol.imp_prune(model, 0.6)
    numbers = {row.name: row.density for row in report}
    axes = plot.densities({"report": report, "masks": pol.masks(model), "numbers": numbers})
    expected = [(place, row.density) for place, row in enumerate(report, 1)]
    assert drawn(axes, "report") == drawn(axes, "masks") == drawn(axes, "numbers") == near(expected)
    assert legend_of(axes) == ["report", "masks", "numbers"]
    assert axes.get_ylabel() == "density (%)"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "1", "2"]


def test_densities_that_the_library_computes_are_drawn_as_they_are(model):
    wanted = pol.densities.erk(model, 0.3)
    axes = plot.densities({"random": wanted})
    assert [y for _, y in drawn(axes, "random")] == near(list(wanted.values()))


def test_one_method_needs_no_label():
    axes = plot.densities({"0.weight": 0.5, "1.weight": 0.25})
    assert [float(y) for y in axes.lines[0].get_ydata()] == [0.5, 0.25]
    assert legend_of(axes) == []


def test_densities_of_seeds_are_their_mean_and_a_band():
    axes = plot.densities({"ours": [{"a": 0.2, "b": 0.4}, {"a": 0.4, "b": 0.4}]}, spread="range")
    assert drawn(axes, "ours") == near([(1, 0.3), (2, 0.4)])
    assert bands(axes) == [{0.2, 0.4}]


def test_a_layer_that_a_method_has_not_is_left_out_of_its_line():
    axes = plot.densities({"one": {"a": 0.1, "b": 0.2}, "two": {"b": 0.3, "c": 0.4}})
    assert drawn(axes, "two") == [(2, 0.3), (3, 0.4)]


def test_a_logarithmic_axis_is_in_percent_too():
    axes = plot.densities({"a": 0.5, "b": 0.001}, log=True)
    assert axes.get_yscale() == "log"
    assert axes.yaxis.get_major_formatter()(0.001) == "0.1"


@pytest.mark.parametrize("wrong", [0.3, "dense", {}, [], {"a": {"b": "c"}}, {"a": [0.5]}])
def test_other_densities_are_an_error_that_says_what_is_expected(wrong):
    with pytest.raises(TypeError, match=r"reports.* expected a report with densities"):
        plot.densities(wrong)


def test_a_report_without_densities_is_an_error():
    report = SignReport((LayerSigns("w", 30, 0.1, 0.4, 1.0, 1.0, 0),), "mask1")
    with pytest.raises(TypeError, match="reports is a SignReport, whose layers have no density"):
        plot.densities(report)


def test_the_balance_is_that_of_the_report_of_the_signs_and_of_the_numbers(model):
    start = pol.RewindPoint.capture(model)
    pol.imp_prune(model, 0.5)
    report = pol.reinit_signs(model, init=start)
    signs = {f"{place}.weight": layer.weight.detach().sign() for place, layer in enumerate(model)}
    numbers = {row.name: row.positive for row in report}
    axes = plot.sign_balance({"report": report, "signs": signs, "numbers": numbers})
    expected = [(place, row.positive) for place, row in enumerate(report, 1)]
    assert drawn(axes, "report") == drawn(axes, "signs") == drawn(axes, "numbers") == near(expected)
    assert axes.get_ylabel() == "survivors with sign + (%)"


def test_zeros_have_no_sign():
    axes = plot.sign_balance({"w": torch.tensor([1, 0, 0, -1, 1, 1])})
    assert [float(y) for y in axes.lines[0].get_ydata()] == [0.75]


def test_the_grey_band_is_what_fair_coins_would_give():
    signs = {"w": torch.ones(100, dtype=torch.int8)}
    axes = plot.sign_balance(signs)
    assert bands(axes) == [{0.402, 0.598}]
    assert legend_of(axes) == ["95 % of fair coins"]
    throws = torch.randint(0, 2, (20_000, 100)).float().mean(1)
    inside = ((throws - 0.5).abs() <= 0.098).float().mean()
    assert 0.93 < inside < 0.97


def test_an_axis_of_balances_shows_at_least_40_to_60_percent_and_the_half():
    axes = plot.sign_balance({"w": 0.501})
    low, high = axes.get_ylim()
    assert low <= 0.4
    assert high >= 0.6
    assert [float(line.get_ydata()[0]) for line in axes.lines if line.get_linestyle() == "--"] == [
        0.5
    ]
    low, _ = plot.sign_balance({"w": 0.0}).get_ylim()
    assert low < 0


def test_a_layer_without_a_sign_is_left_out():
    axes = plot.sign_balance({"none": torch.zeros(3), "w": torch.ones(4)})
    assert [float(y) for y in axes.lines[0].get_ydata()] == [1.0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["w"]
    assert len(bands(axes)) == 1


def test_a_summary_of_the_model_has_its_densities_and_its_balance(model):
    report = pol.imp_prune(model, 0.5)
    summary = pol.summary(model)
    densities = plot.densities({"ours": summary})
    assert drawn(densities, "ours") == near([(n, row.density) for n, row in enumerate(report, 1)])
    balance = plot.sign_balance({"ours": summary})
    expected = [(place, row.positive) for place, row in enumerate(summary, 1)]
    assert drawn(balance, "ours") == near(expected)
    assert len(bands(plot.sign_balance(summary))) == 3
