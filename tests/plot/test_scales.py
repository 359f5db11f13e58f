"""Axes of densities, layers and percentages, and axes that do not zoom in on noise."""

import pytest
from matplotlib.figure import Figure

from polarity import plot
from polarity.plot.scales import from_zero


def texts(axis):
    axis.axes.figure.draw_without_rendering()
    return [label.get_text() for label in axis.get_ticklabels()]


@pytest.fixture
def axes():
    return Figure(figsize=(5, 3)).subplots()


def test_densities_run_from_dense_to_sparse_on_a_logarithm_in_percent(axes):
    axes.plot([1.0, 0.1, 0.002], [1, 2, 3])
    plot.density_axis(axes, [1.0, 0.1, 0.002])
    assert texts(axes.xaxis) == ["0.2", "10", "100"]
    left, right = axes.get_xlim()
    assert left > right
    assert axes.get_xlabel() == "density (%)"


def test_of_marks_that_would_touch_the_sparser_stays(axes):
    densities = [0.8**k for k in range(31)]
    plot.density_axis(axes, densities)
    ticks = [float(tick) for tick in axes.get_xticks()]
    assert ticks[0] == min(densities)
    assert 8 < len(ticks) < 13
    assert set(ticks) <= set(densities)


@pytest.mark.parametrize("densities", [[0.0], [1.5], [-0.1]])
def test_a_density_that_is_none_is_an_error(axes, densities):
    with pytest.raises(ValueError, match=r"densities=.* expected a number in"):
        plot.density_axis(axes, densities)
    with pytest.raises(ValueError, match="densities is empty"):
        plot.density_axis(axes, [])


def test_few_layers_are_named_and_many_are_numbered(axes):
    plot.layer_axis(axes, ["0.weight", "1.weight"])
    assert texts(axes.xaxis) == ["0", "1"]
    assert axes.get_xlabel() == "layer"
    assert list(axes.get_xticks()) == [1, 2]
    plot.layer_axis(axes, [f"layer{n}.weight" for n in range(54)])
    assert axes.get_xlabel() == "layer, input to output"


def test_numbered_layers_are_numbered_however_few(axes):
    plot.layer_axis(axes, ["0.weight", "1.weight"], numbered=True)
    assert axes.get_xlabel() == "layer, input to output"


def test_names_that_would_touch_are_slanted(axes):
    plot.layer_axis(axes, ["a", "b"])
    assert axes.get_xticklabels()[0].get_rotation() == 0
    plot.layer_axis(axes, [f"layer1.{n}.downsample.conv.weight" for n in range(6)])
    assert axes.get_xticklabels()[0].get_rotation() == 40


def test_percentages_have_no_needless_digits_and_values_stay_fractions(axes):
    (line,) = axes.plot([0.1, 0.35])
    plot.percent_axis(axes, "density")
    axes.set_yticks([0.0, 0.1, 0.35, 0.005])
    assert texts(axes.yaxis) == ["0", "10", "35", "0.5"]
    assert list(line.get_ydata()) == [0.1, 0.35]


def test_a_short_axis_is_widened_around_its_middle_within_bounds(axes):
    axes.set_ylim(50.0, 51.0)
    assert plot.widen(axes, 4.0) == (48.5, 52.5) == axes.get_ylim()
    axes.set_ylim(99.0, 100.0)
    assert plot.widen(axes, 4.0, within=(0, 100)) == (96.0, 100.0)
    axes.set_ylim(0.0, 1.0)
    assert plot.widen(axes, 4.0, within=(0, 100)) == (0.0, 4.0)


def test_a_long_axis_stays_as_it_is(axes):
    axes.set_ylim(10.0, 90.0)
    assert plot.widen(axes, 4.0) == (10.0, 90.0) == axes.get_ylim()


def test_an_axis_from_zero_follows_what_is_drawn_later_in_axes_that_share_it():
    left, right = Figure().subplots(1, 2, sharey=True)
    left.plot([1, 2])
    from_zero(left)
    right.plot([1, 50])
    low, high = left.get_ylim()
    assert low == 0
    assert high > 50
