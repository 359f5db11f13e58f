"""Read back from axes what was drawn in them."""

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import FillBetweenPolyCollection, LineCollection


def drawn(axes: Axes, label: str) -> list[tuple[float, float]]:
    """Return the points of the line with this label."""
    (line,) = (line for line in axes.lines if line.get_label() == label)
    return [(float(x), float(y)) for x, y in line.get_xydata()]


def heights(axes: Axes, label: str) -> list[float]:
    """Return the heights of the bars with this label."""
    (bars,) = (bars for bars in axes.containers if bars.get_label() == label)
    return [float(bar.get_height()) for bar in bars]


def whiskers(axes: Axes) -> list[tuple[float, float]]:
    """Return the lower and upper end of every whisker, in the order of drawing."""
    found = []
    for lines in axes.collections:
        if isinstance(lines, LineCollection):
            found += [(float(ends[0, 1]), float(ends[1, 1])) for ends in lines.get_segments()]
    return found


def bands(axes: Axes) -> list[set[float]]:
    """Return the heights at which the corners of every band are."""
    return [
        {round(float(y), 9) for _, y in area.get_paths()[0].vertices}
        for area in axes.collections
        if isinstance(area, FillBetweenPolyCollection)
    ]


def legend_of(axes: Axes) -> list[str]:
    """Return the entries of the legend of a figure."""
    return [text.get_text() for each in axes.figure.legends for text in each.get_texts()]


def near(values: object) -> object:
    """Compare with numbers, or with lists of numbers or of pairs, up to rounding."""
    return pytest.approx(np.array(values), rel=1e-9)
