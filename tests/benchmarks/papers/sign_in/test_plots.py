"""Sharpness over epochs: lines where several epochs have it, methods side by side where one has."""

import pytest
from matplotlib.figure import Figure

from benchmarks.papers.sign_in.plots import _sharpness

LOOKS = {name: {"label": name} for name in ("Random", "Random + Sign-In")}


def runs(*epochs, last=3):
    """Two runs of each method; the sharpness of epoch x is 10x or 10x + 2."""
    return {
        name: [
            [
                {"epoch": x, "sharpness": 10.0 * x + more} if x in epochs else {"epoch": x}
                for x in range(1, last + 1)
            ]
            for more in (0.0, 2.0)
        ]
        for name in LOOKS
    }


def drawn(found):
    axes = Figure().subplots()
    _sharpness(axes, found, LOOKS)
    # Whiskers have lines too, without a name.
    lines = [line for line in axes.lines if line.get_label() in LOOKS]
    return axes, [[list(map(float, line.get_data()[i])) for i in (0, 1)] for line in lines]


def test_sharpness_of_several_epochs_stands_over_them():
    axes, lines = drawn(runs(1, 3))
    assert lines == [[[1, 3], [11, 31]]] * 2
    assert axes.get_xlabel() == "epoch"


def test_sharpness_of_one_epoch_stands_method_by_method_with_whiskers():
    axes, lines = drawn(runs(3))
    assert lines == [[[0], [31]], [[1], [31]]]
    assert axes.get_xlabel() == "after epoch 3"
    assert axes.collections, "no whiskers"


@pytest.mark.parametrize("found", [runs(), {name: [[{"epoch": 1}]] for name in LOOKS}])
def test_without_sharpness_nothing_is_drawn(found):
    axes, _ = drawn(found)
    assert not axes.lines
