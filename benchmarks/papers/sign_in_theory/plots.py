"""Pictures of the theory section, drawn from its result files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from polarity import plot

from ...pages.style import BLACK, BLUE, GREEN, GREY, ORANGE, RED, SKY, save, title
from .line import pull
from .neuron import CASE_NAMES, CASES
from .records import Record

_CASE_COLOURS = dict(zip(CASES, (GREEN, BLUE, ORANGE, RED), strict=True))
_METHODS = {
    "overparam": "Overparam (gradient descent)",
    "overparam+sign_in": "Overparam + Sign-In, β = 1",
}


def plot_portrait(record: Record, path: Path) -> Path:
    """Draw Figure 3: vector fields and trajectories of d = 1, gradient flow and Sign-In."""
    names = {
        "gradient flow": ("gradient flow", (0.0, 0.0)),
        "sign_in, 2 and 1": ("Sign-In, β₁ = 2, β₂ = 1", (2.0, 1.0)),
    }
    with plot.style():
        figure = Figure(figsize=(7.6, 4.8), layout="constrained")
        panels = figure.subplots(1, 2, sharex=True, sharey=True)
        for axes, (flow, (name, beta)) in zip(panels, names.items(), strict=True):
            _field(axes, beta if any(beta) else None)
            lines = zip(record["paths"][flow]["a"], record["paths"][flow]["w"], strict=True)
            for a, w in lines:
                solved = abs(a[-1] * w[-1] - 1) < 1e-2 and w[-1] > 0
                colour = BLUE if solved else RED
                axes.plot(a, w, color=colour, lw=1.3, zorder=3)
                axes.plot(a[0], w[0], "o", ms=3.5, mfc="white", mec=colour, zorder=4)
                axes.plot(a[-1], w[-1], "o" if solved else "X", ms=5, color=colour, zorder=5)
            axes.set_title(name)
            axes.set_xlabel("a")
            axes.set_aspect("equal")
        panels[0].set_ylabel("w")
        keys = [
            Line2D([], [], color="black", ls="--", label="a·w = 1, the solutions"),
            Line2D([], [], color=GREY, marker="o", mfc="white", ls="", ms=4, label="start"),
            Line2D([], [], color=BLUE, marker="o", ms=5, label="recovered"),
            Line2D([], [], color=RED, marker="X", ms=5, label="stuck"),
        ]
        settings = record["settings"]
        scale = f"One input; {settings['steps']:,} steps of {settings['lr']:g}, from chosen starts"
        title(figure, "One neuron: vector fields and paths, as Figure 3", scale)
        figure.legend(handles=keys, loc="outside lower center", ncols=4)
        return save(figure, path)


def _field(axes: Axes, beta: tuple[float, float] | None) -> None:
    axes.grid(visible=False)
    ticks = np.linspace(-1.9, 1.9, 24)
    a, w = np.meshgrid(ticks, ticks)
    g = pull(a, w)
    # The exact flow of m·v: dθ = −(m² + v²)·∂L dt with m² + v² = √(4θ² + β²).
    fast = (1.0, 1.0) if beta is None else (np.hypot(2 * a, beta[0]), np.hypot(2 * w, beta[1]))
    da, dw = -fast[0] * w * g, -fast[1] * a * g
    length = np.hypot(da, dw)
    length[length == 0] = 1.0
    axes.quiver(a, w, da / length, dw / length, color="#bbbbbb", width=0.0028, scale=38, zorder=1)
    side = np.linspace(0.5, 2.0, 100)
    axes.plot(side, 1 / side, "--", color="black", lw=1.2, zorder=2)
    axes.axhline(0, color="#666666", lw=0.6, zorder=1)
    axes.axvline(0, color="#666666", lw=0.6, zorder=1)
    axes.set_xlim(-2, 2)
    axes.set_ylim(-2, 2)
    axes.set_xticks([-2, -1, 0, 1, 2])
    axes.set_yticks([-2, -1, 0, 1, 2])


def plot_dependence(record: Record, path: Path) -> Path:
    """Draw recoveries from a < 0 against scale, samples and β, a line per method and step count."""
    axis = {"scale": "scale σ of w ~ N(0, σ²·I)", "samples": "samples n", "beta": "β of Sign-In"}
    short = record["settings"]["short"]
    time = short * record["settings"]["lr"]
    looks = {
        ("gf", short): (RED, "s", f"gradient descent, T = {time:g}"),
        ("sign_in", short // 10): (SKY, "v", f"Sign-In, T = {time / 10:g}"),
        ("sign_in", short): (BLUE, "o", f"Sign-In, T = {time:g}"),
        ("sign_in", 10 * short): (BLACK, "^", f"Sign-In, T = {10 * time:g}"),
    }
    with plot.style():
        figure = Figure(figsize=(8.4, 3.9), layout="constrained")
        panels = figure.subplots(1, 3, sharey=True)
        for axes, (kind, label) in zip(panels, axis.items(), strict=True):
            _recoveries(axes, [c for c in record["cells"] if c["kind"] == kind], "value", looks)
            axes.set_xscale("log")
            if kind == "samples":
                axes.set_xscale("log", base=2)
            axes.set_xlabel(label)
        _label_recoveries(panels[0])
        settings = record["settings"]
        data = len(settings["data_seeds"])
        title(
            figure,
            "Recoveries from a < 0, with 95 % intervals",
            f"One neuron, {settings['dim']} inputs; per mark {settings['runs']} starts on each of "
            f"{data} data sets",
        )
        plot.legend(figure, where="below")
        return save(figure, path)


def _recoveries(
    axes: Axes, cells: list[Record], quantity: str, looks: dict[tuple[str, int], tuple[str, ...]]
) -> None:
    """Draw shares of recoveries with their intervals, a line per method and step count."""
    for key, (colour, mark, label) in looks.items():
        mine = [cell for cell in cells if (cell["method"], cell["steps"]) == key]
        if not mine:
            continue
        found = [
            plot.Estimate(
                100 * loss["successes"] / loss["runs"], *(100 * e for e in loss["interval"])
            )
            for loss in (cell["loss"] for cell in mine)
        ]
        look: Any = {"color": colour, "marker": mark, "label": label}
        plot.points(axes, [cell[quantity] for cell in mine], found, **look)


def _label_recoveries(axes: Axes) -> None:
    """Label the axis of shares of recoveries."""
    axes.set_ylabel("runs with loss < 1e-4 (%)")
    axes.set_ylim(-4, 104)


def plot_figure7(record: Record, path: Path) -> Path:
    """Draw Figure 7: (a, w₁) and the loss for d = 5, overparameterised with and without Sign-In."""
    steps = np.array(record["settings"]["steps"])
    with plot.style():
        figure = Figure(figsize=(7.8, 6.6), layout="constrained")
        grid = figure.subplots(2, 2, sharex="row", sharey="row", height_ratios=[1.25, 1])
        for column, (method, name) in enumerate(_METHODS.items()):
            plane, curves = grid[:, column]
            for case, paths in record["methods"][method].items():
                colour = _CASE_COLOURS[case]
                for a, w1, loss in zip(paths["a"], paths["w1"], paths["loss"], strict=True):
                    plane.plot(a, w1, color=colour, lw=1, alpha=0.85)
                    plane.plot(a[0], w1[0], "o", ms=3.5, mfc="white", mec=colour, zorder=4)
                    solved = loss[-1] < 1e-4
                    plane.plot(a[-1], w1[-1], "o" if solved else "X", ms=5, color=colour, zorder=5)
                    curves.plot(steps[1:], np.maximum(loss[1:], 1e-12), color=colour, lw=1)
            side = np.geomspace(0.25, 4.0, 100)
            plane.plot(side, 1 / side, "--", color="black", lw=1)
            plane.axhline(0, color="#999999", lw=0.6)
            plane.axvline(0, color="#999999", lw=0.6)
            plane.set_xlim(-3.8, 3.8)
            plane.set_ylim(-2.6, 2.6)
            plane.set_title(name)
            plane.set_xlabel("a")
            curves.set_xscale("log")
            curves.set_yscale("log")
            curves.set_ylim(5e-13, 30)
            curves.set_xlabel("steps")
        grid[0, 0].set_ylabel("w₁")
        grid[1, 0].set_ylabel("loss (cut at 1e-12)")
        keys = [Line2D([], [], color=_CASE_COLOURS[case], label=CASE_NAMES[case]) for case in CASES]
        keys.append(Line2D([], [], color="black", ls="--", lw=1, label="a·w₁ = 1"))
        settings = record["settings"]
        scale = (
            f"One neuron, {settings['dim']} inputs, {settings['samples']} samples; "
            f"{settings['runs']} starts per sign case, {int(steps[-1]):,} steps"
        )
        title(figure, "Paths and losses, as Figure 7", scale)
        figure.legend(handles=keys, loc="outside lower center", ncols=5)
        return save(figure, path)


def plot_failure(record: Record, path: Path) -> Path:
    """Draw recoveries from a < 0 of a random teacher against the number of inputs."""
    titles = {
        "padded": "teacher uses 2 of the d inputs",
        "full": "teacher uses all d inputs",
    }
    first, last = sorted({cell["steps"] for cell in record["cells"]})
    looks = {
        ("gf", first): (RED, "s", f"gradient descent, {first} steps"),
        ("sign_in", first): (SKY, "v", f"Sign-In, {first} steps"),
        ("sign_in", last): (BLUE, "o", f"Sign-In, {last} steps"),
    }
    with plot.style():
        figure = Figure(figsize=(7.2, 3.9), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for axes, (reading, name) in zip(panels, titles.items(), strict=True):
            _recoveries(axes, [c for c in record["cells"] if c["reading"] == reading], "dim", looks)
            axes.set_xscale("log")
            axes.set_xticks([2, 3, 5, 10, 20], ["2", "3", "5", "10", "20"])
            axes.minorticks_off()
            axes.set_xlabel("inputs d of the student")
            axes.set_title(name)
        _label_recoveries(panels[0])
        settings = record["settings"]
        scale = f"{settings['samples']} samples, {settings['runs']} starts per mark"
        title(figure, "Recoveries from a < 0 of a random teacher, with 95 % intervals", scale)
        plot.legend(figure, where="below")
        return save(figure, path)


def plot_obstruction(record: Record, path: Path) -> Path:
    """Draw Theorem 5.4: |w| on the way from w = −1 for every reparameterisation."""
    colours = dict(
        zip(
            dict.fromkeys(row["name"] for row in record["rows"]),
            (GREY, BLUE, SKY, GREEN, ORANGE, RED),
            strict=True,
        )
    )
    times = np.array(record["settings"]["record"]) * record["settings"]["lr"]
    with plot.style():
        figure = Figure(figsize=(7.6, 3.9), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True, sharex=True)
        for axes, start in zip(panels, ("a = abs(w)", "a = 2·abs(w)"), strict=True):
            for row in (row for row in record["rows"] if row["start"] == start):
                colour = colours[row["name"]]
                axes.plot(times[1:], row["path"][1:], color=colour, label=row["formula"])
            axes.axhline(0, color="black", lw=0.8, ls="--")
            axes.set_xscale("log")
            axes.set_xlabel("time")
            axes.set_ylim(-1.05, 0.08)
            axes.set_title(f"start: {start}, w = −1")
        panels[0].set_ylabel("w")
        settings = record["settings"]
        scale = f"One input; {settings['steps']:,} steps of {settings['lr']:g}, one start each"
        title(figure, "No reparameterisation crosses w = 0 (Theorem 5.4)", scale)
        plot.legend(figure, where="right", title="a and w =")
        return save(figure, path)
