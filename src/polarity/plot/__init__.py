"""Figures of what the library reports: flips, densities, signs, barriers, and accuracies.

It needs matplotlib (``pip install "torch-polarity[plot]"``), so ``import polarity`` does not import
it: write ``from polarity import plot``. Every function draws into ``ax=`` and returns it; without
one it makes a figure of its own, ``returned.figure``. Nothing of pyplot is used, and matplotlib's
settings are as before when a call returns.
"""

try:
    import matplotlib as _matplotlib  # noqa: F401
except ImportError as _error:
    raise ImportError(
        f'polarity.plot needs matplotlib ({_error}): pip install "torch-polarity[plot]"'
    ) from _error

from polarity.plot.accuracies import accuracy
from polarity.plot.estimates import Estimate, bars, estimate, points
from polarity.plot.flip_curves import flip_stages, flips, layer_flips
from polarity.plot.layers import densities, sign_balance
from polarity.plot.paths import barriers
from polarity.plot.scales import density_axis, layer_axis, percent_axis, widen
from polarity.plot.style import PALETTE, legend, looks, style

__all__ = [
    "PALETTE",
    "Estimate",
    "accuracy",
    "barriers",
    "bars",
    "densities",
    "density_axis",
    "estimate",
    "flip_stages",
    "flips",
    "layer_axis",
    "layer_flips",
    "legend",
    "looks",
    "percent_axis",
    "points",
    "sign_balance",
    "style",
    "widen",
]
