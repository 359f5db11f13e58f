"""Means and spreads against independent references, and how they are drawn."""

import statistics

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy import stats

from polarity import plot
from polarity.plot.estimates import dodged
from tests.plot.reading import bands, drawn, heights, near, whiskers

VALUES = [91.0, 93.5, 92.0, 90.0]


@pytest.fixture
def axes():
    return Figure().subplots()


def test_std_is_the_sample_standard_deviation_on_both_sides():
    found = plot.estimate(VALUES)
    std = statistics.stdev(VALUES)
    assert found.mean == near(statistics.fmean(VALUES))
    assert (found.low, found.high) == near((found.mean - std, found.mean + std))


@pytest.mark.parametrize("count", [2, 3, 5, 10, 11, 12, 30, 200])
def test_interval_is_the_95_percent_interval_of_the_mean_as_scipy_gives_it(count):
    values = np.random.default_rng(count).normal(50, 3, count).tolist()
    found = plot.estimate(values, "interval")
    low, high = stats.t.interval(0.95, count - 1, loc=np.mean(values), scale=stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-5)


def test_range_is_from_the_least_to_the_largest():
    found = plot.estimate(VALUES, "range")
    assert (found.low, found.high) == (90.0, 93.5)


@pytest.mark.parametrize("spread", ["std", "interval", "range"])
def test_one_seed_has_no_spread(spread):
    assert plot.estimate([5.0], spread) == plot.Estimate(5.0, None, None)


def test_values_that_are_none_are_errors():
    with pytest.raises(ValueError, match="values is empty, expected at least one number"):
        plot.estimate([])
    with pytest.raises(ValueError, match="values=nan, expected a finite number"):
        plot.estimate([1.0, float("nan")])
    with pytest.raises(TypeError, match="values='a' is a str, expected a number"):
        plot.estimate(["a"])
    with pytest.raises(ValueError, match="spread='sem', expected 'std', 'interval' or 'range'"):
        plot.estimate([1.0], "sem")


def test_points_are_means_and_whiskers_their_spread(axes):
    estimates = [plot.Estimate(2.0, 1.0, 4.0), plot.Estimate(3.0), plot.Estimate(5.0, 4.5, 5.5)]
    plot.points(axes, [1, 2, 3], estimates, label="ours", marker="o")
    assert drawn(axes, "ours") == [(1, 2), (2, 3), (3, 5)]
    assert whiskers(axes) == [(1.0, 4.0), (4.5, 5.5)]


def test_one_seed_has_no_glyph_of_an_error_bar(axes):
    plot.points(axes, [1, 2], [plot.Estimate(2.0), plot.Estimate(3.0)], marker="o")
    assert len(axes.lines) == 1
    assert len(axes.collections) == 0
    assert axes.containers == []


def test_a_band_has_the_ends_of_the_spread(axes):
    estimates = [plot.Estimate(2.0, 1.0, 4.0), plot.Estimate(3.0, 2.5, 3.25)]
    plot.points(axes, [1, 2], estimates, band=True)
    assert bands(axes) == [{1.0, 4.0, 2.5, 3.25}]


def test_points_of_another_number_than_places_are_an_error(axes):
    with pytest.raises(ValueError, match="estimates has 1 entries, expected 2, one per x"):
        plot.points(axes, [1, 2], [plot.Estimate(1.0)])


def test_bars_have_the_means_as_heights_and_stand_in_groups(axes):
    columns = {
        "one": [plot.Estimate(1.0, 0.5, 1.5), plot.Estimate(2.0)],
        "other": [None, plot.Estimate(4.0)],
    }
    plot.bars(axes, ["left", "right"], columns)
    assert heights(axes, "one") == [1.0, 2.0]
    assert heights(axes, "other") == [4.0]
    assert whiskers(axes) == [(0.5, 1.5)]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["left", "right"]
    edges = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in axes.patches]
    (_, _), (_, end), (begin, _) = edges
    assert end <= begin


def test_bars_of_another_number_than_groups_are_an_error(axes):
    with pytest.raises(
        ValueError, match=r"heights\['a'\] has 1 entries, expected 2, one per group"
    ):
        plot.bars(axes, ["left", "right"], {"a": [plot.Estimate(1.0)]})


def test_places_move_by_a_fraction_of_the_axis_in_its_own_scale(axes):
    axes.set_xscale("log")
    assert dodged(axes, [0.1, 1.0], 0.5, [0.01, 1.0]) == near([1.0, 10.0])
    axes.set_xscale("linear")
    assert dodged(axes, [0.0, 1.0], 0.5, [0.0, 10.0]) == near([5.0, 6.0])
