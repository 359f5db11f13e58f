"""Figures 4 and 6: teacher vectors and where the neurons of the students end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle

from polarity import plot

from ...pages.style import BLUE, GREY, RED, save, title
from .records import Record

_TITLES = {
    "dense": "dense, k = 20",
    "good signs": "sparse, good signs",
    "bad signs, balanced": "sparse, bad signs",
    "bad signs, balanced + sign_in": "sparse, bad signs, Sign-In, β = 2",
}


def plot_students(record: Record, path: Path) -> Path:
    """Draw |aᵢ|·wᵢ of the neurons of one seed in four setups, blue for aᵢ > 0, red for aᵢ < 0."""
    picture = record["picture"]
    with plot.style():
        figure = Figure(figsize=(7.0, 8.1), layout="constrained")
        panels = figure.subplots(2, 2)
        for axes, (setup, name) in zip(panels.flat, _TITLES.items(), strict=True):
            panel = picture["panels"][setup]
            axes.add_patch(Circle((0, 0), 1, fill=False, ec="#aaaaaa", lw=0.8))
            for a, (x, y) in zip(picture["teacher_a"], picture["teacher_w"], strict=True):
                arrow = {"arrowstyle": "-|>", "color": _colour(a), "lw": 1.6, "alpha": 0.55}
                axes.annotate("", (x, y), (0, 0), arrowprops=arrow, zorder=2)
            paths = np.array(panel["paths"])
            for neuron, a in enumerate(panel["a"]):
                axes.plot(*paths[:, neuron].T, color=GREY, lw=0.6, zorder=1)
                axes.plot(
                    *panel["vectors"][neuron],
                    "o" if a > 0 else "s",
                    ms=5.5,
                    mfc=_colour(a),
                    mec="white",
                    mew=0.6,
                    zorder=4,
                )
            axes.set_title(f"{name}\nloss {panel['relative_loss']:.1e} of that of answering 0")
            axes.set_aspect("equal")
            axes.grid(visible=False)
            # The many neurons of a dense student need more room.
            reach = 1.1 * max(1.3, np.abs(panel["vectors"]).max(), np.abs(paths).max())
            axes.set_xlim(-reach, reach)
            axes.set_ylim(-reach, reach)
        keys = [
            Line2D([], [], color=BLUE, lw=1.6, label="teacher, ã = 1"),
            Line2D([], [], color=RED, lw=1.6, label="teacher, ã = −1"),
            Line2D([], [], color=BLUE, marker="o", ls="", label="student, a > 0"),
            Line2D([], [], color=RED, marker="s", ls="", label="student, a < 0"),
            Line2D([], [], color=GREY, lw=0.8, label="its path"),
        ]
        settings = record["settings"]
        scale = (
            f"{settings['dim']} inputs, {settings['samples']} samples; "
            f"one of {settings['students']} students of each kind"
        )
        title(figure, "Where the neurons of students end, as Figures 4 and 6", scale)
        figure.legend(handles=keys, loc="outside lower center", ncols=5)
        return save(figure, path)


def _colour(a: float) -> str:
    return BLUE if a > 0 else RED
