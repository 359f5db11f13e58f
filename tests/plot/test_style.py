"""Looks by role, the style's context, and legends outside of panels."""

import matplotlib
import pytest
from matplotlib.figure import Figure

from polarity import plot
from tests.plot.reading import legend_of


def test_a_role_looks_the_same_in_every_figure_whatever_its_case_and_punctuation():
    one = plot.looks(["AC/DC", "dense"])["AC/DC"]
    other = plot.looks(["something", "acdc"])["acdc"]
    assert {**one, "label": ""} == {**other, "label": ""}
    assert one["color"] == plot.PALETTE["green"]


def test_labels_without_a_role_take_the_colours_that_are_left():
    found = plot.looks(["RigL", "one", "STR", "two"])
    colours = [look["color"] for look in found.values()]
    assert len(set(colours)) == 4
    assert found["RigL"]["color"] == plot.PALETTE["blue"]


def test_many_labels_differ_in_colour_or_mark():
    found = plot.looks([f"method {place}" for place in range(8)])
    assert len({(look["color"], look["marker"]) for look in found.values()}) == 8


def test_given_looks_come_first_under_long_and_short_names():
    given = {"ours": {"c": "black", "ls": "--"}, "not drawn": {"color": "red"}}
    found = plot.looks(["ours"], given)
    assert found.keys() == {"ours"}
    assert found["ours"]["color"] == "black"
    assert found["ours"]["linestyle"] == "--"
    assert "ls" not in found["ours"]


def test_the_style_holds_inside_its_context_alone():
    before = dict(matplotlib.rcParams)
    with plot.style():
        assert matplotlib.rcParams["axes.spines.top"] is False
        assert matplotlib.rcParams["legend.frameon"] is False
    assert dict(matplotlib.rcParams) == before


def test_an_error_inside_the_style_leaves_no_settings_changed():
    before = dict(matplotlib.rcParams)
    with pytest.raises(RuntimeError), plot.style():
        raise RuntimeError
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("where", ["above", "below", "right"])
def test_a_legend_stands_outside_of_all_panels(where):
    figure = Figure(figsize=(6, 4))
    for axes in figure.subplots(1, 2):
        axes.plot([1, 2], label="ours")
        axes.set_xlabel("x")
    plot.legend(figure, where=where)
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert legend_of(figure.axes[0]) == ["ours"]
    for axes in figure.axes:
        assert not box.overlaps(axes.get_tightbbox())


def test_a_figure_without_labels_gets_no_legend():
    figure = Figure()
    figure.subplots().plot([1, 2])
    plot.legend(figure)
    assert figure.legends == []


def test_a_legend_elsewhere_is_an_error():
    with pytest.raises(ValueError, match="where='left', expected 'above', 'below' or 'right'"):
        plot.legend(Figure(), where="left")
    with pytest.raises(
        TypeError, match=r"figure is an Axes, expected a matplotlib Figure: ax\.fig"
    ):
        plot.legend(Figure().subplots())


def test_looks_that_are_no_mapping_are_an_error_that_names_the_label():
    with pytest.raises(TypeError, match=r"looks\['a'\] is a str, expected arguments of plot"):
        plot.accuracy({"a": {0.5: 1.0}}, looks={"a": "red"})
    with pytest.raises(TypeError, match=r"looks is a str, expected {label: arguments of plot}"):
        plot.flips([0.1, 0.2], looks="red")
