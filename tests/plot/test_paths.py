"""Barriers that are drawn are those of the paths, with their ends marked as ends."""

import pytest

import polarity as pol
from polarity import plot
from tests.plot.reading import bands, drawn, legend_of, near

PATH = pol.ErrorBarrier((0.0, 0.25, 0.5, 1.0), (0.25, 0.5, 0.75, 0.5))
OTHER = pol.ErrorBarrier((0.0, 0.25, 0.5, 1.0), (0.5, 0.5, 0.5, 0.5))


def test_what_is_drawn_is_the_excess_and_its_highest_point_the_barrier():
    axes = plot.barriers({"LRR": PATH})
    assert drawn(axes, "LRR") == near(list(zip(PATH.alphas, PATH.excess, strict=True)))
    assert max(y for _, y in drawn(axes, "LRR")) == near(PATH.barrier)
    assert axes.get_ylabel() == "error above the mean of the ends"
    assert legend_of(axes) == ["LRR"]


def test_the_error_itself_is_drawn_without_relative():
    axes = plot.barriers({"LRR": PATH}, relative=False)
    assert [y for _, y in drawn(axes, "LRR")] == near(list(PATH.curve))
    assert axes.get_ylabel() == "error"


def test_ends_have_open_marks_and_the_axis_says_so():
    axes = plot.barriers(PATH)
    (ends,) = (line for line in axes.lines if line.get_markerfacecolor() == "white")
    assert list(ends.get_xdata()) == [0.0, 1.0]
    assert [float(y) for y in ends.get_ydata()] == near([PATH.excess[0], PATH.excess[-1]])
    assert "open marks: the two networks" in axes.get_xlabel()


def test_seeds_are_drawn_as_their_mean_and_a_band():
    axes = plot.barriers({"LRR": [PATH, OTHER]}, spread="range", relative=False)
    assert [y for _, y in drawn(axes, "LRR")] == near([0.375, 0.5, 0.625, 0.5])
    assert bands(axes) == [{0.25, 0.5, 0.75}]
    assert bands(plot.barriers(PATH)) == []


def test_seeds_with_different_points_are_an_error():
    short = pol.ErrorBarrier((0.0, 1.0), (0.25, 0.5))
    with pytest.raises(ValueError, match=r"paths\['a'\] has seeds with different alphas"):
        plot.barriers({"a": [PATH, short]})


@pytest.mark.parametrize("wrong", [0.3, {}, [], {"a": [0.1, 0.2]}, [PATH, None]])
def test_other_paths_are_an_error_that_says_what_is_expected(wrong):
    with pytest.raises(TypeError, match=r"paths.* expected an ErrorBarrier, one per seed"):
        plot.barriers(wrong)
