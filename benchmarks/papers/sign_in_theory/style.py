"""Looks shared by the pictures of the theory section."""

from typing import Any

STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
}
DPI = 180
# Okabe and Ito's palette: told apart by colour-blind readers.
GREEN, BLUE, RED, GREY, ORANGE, SKY = (
    "#009E73",
    "#0072B2",
    "#D55E00",
    "#7F7F7F",
    "#E69F00",
    "#56B4E9",
)
