"""Accuracies that are drawn are those that were given, with their spread."""

import pytest

from polarity import plot
from tests.plot.reading import bands, drawn, legend_of, near, whiskers

FOUND = {
    "SNIP": {0.1: [91.0, 93.0], 0.05: [88.0, 90.0], 0.2: [94.0, 94.0]},
    "random": {0.2: 90.0, 0.05: 80.0},
}


def test_means_stand_at_their_densities_from_dense_to_sparse():
    axes = plot.accuracy(FOUND)
    assert [y for _, y in drawn(axes, "SNIP")] == near([94.0, 92.0, 89.0])
    assert [y for _, y in drawn(axes, "random")] == near([90.0, 80.0])
    places = [x for x, _ in drawn(axes, "SNIP")]
    assert places == pytest.approx([0.2, 0.1, 0.05], rel=0.02)
    assert axes.get_xscale() == "log"
    assert axes.xaxis_inverted()
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("density (%)", "test accuracy (%)")
    assert legend_of(axes) == ["SNIP", "random"]


def test_a_single_method_stands_exactly_at_its_densities():
    axes = plot.accuracy({"a": FOUND["SNIP"]})
    assert [x for x, _ in drawn(axes, "a")] == near([0.2, 0.1, 0.05])


def test_methods_stand_apart_by_little():
    axes = plot.accuracy({"a": {0.2: 1.0, 0.1: 2.0}, "b": {0.2: 1.0, 0.1: 2.0}})
    (one, _), (other, _) = drawn(axes, "a")[0], drawn(axes, "b")[0]
    assert 0 < abs(one - other) < 0.01


def test_whiskers_are_one_standard_deviation_or_the_interval_and_one_seed_has_none():
    (std,) = whiskers(plot.accuracy({"a": {0.2: [91.0, 93.0], 0.1: 90.0}}))
    assert std == near((92 - 2**0.5, 92 + 2**0.5))
    (interval,) = whiskers(plot.accuracy({"a": {0.2: [91.0, 93.0], 0.1: 9.0}}, spread="interval"))
    assert interval == pytest.approx((92 - 12.7062, 92 + 12.7062))


def test_the_methods_of_one_density_stand_side_by_side_under_their_names():
    axes = plot.accuracy({"a": {0.1: [91.0, 93.0]}, "b": {0.1: 90.0}})
    assert drawn(axes, "a") == [(0, 92.0)]
    assert drawn(axes, "b") == [(1, 90.0)]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b"]
    assert axes.get_xlabel() == "method, at density 10 %"


def test_a_method_with_one_density_stands_with_the_others_not_over_the_whole_axis():
    axes = plot.accuracy({"a": {0.2: 1.0, 0.1: 2.0}, "b": {0.1: 3.0}})
    ((place, height),) = drawn(axes, "b")
    assert place == pytest.approx(0.1, rel=0.02)
    assert height == 3.0


def test_the_dense_network_is_a_line_over_the_whole_width_with_its_spread():
    axes = plot.accuracy({"a": {0.2: 90.0, 0.1: 89.0}}, dense=[93.0, 95.0])
    assert [y for _, y in drawn(axes, "dense")] == [94.0, 94.0]
    (span,) = axes.patches
    assert span.get_y() == near(94 - 2**0.5)
    assert span.get_height() == near(2 * 2**0.5)
    assert "dense" in legend_of(axes)
    assert bands(axes) == []


def test_the_axis_is_at_least_four_points_long():
    low, high = plot.accuracy({"a": {0.2: 98.1, 0.1: 98.2}}).get_ylim()
    assert high - low == near(4.0)
    assert high <= 100.2


def test_other_results_are_errors():
    with pytest.raises(TypeError, match=r"results is a list, expected {method: {density"):
        plot.accuracy([1.0])
    with pytest.raises(TypeError, match=r"results\['a'\] is a float, expected {density"):
        plot.accuracy({"a": 1.0})
    with pytest.raises(ValueError, match=r"results\['a'\]=1.5 is out of range"):
        plot.accuracy({"a": {1.5: 90.0}})
    with pytest.raises(TypeError, match=r"results\['a'\]\[0.5\]='high', expected an accuracy"):
        plot.accuracy({"a": {0.5: "high"}})
    with pytest.raises(ValueError, match="results is empty"):
        plot.accuracy({})
