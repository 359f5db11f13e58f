"""The section and the picture of Eq. (4)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from polarity import plot

from ...pages.markdown import markdown
from ...pages.style import BLACK, BLUE, GREY, ORANGE, SKY, save, ticks, title
from .page_formats import percent
from .records import Record


def equation4(record: Record) -> str:
    """Say what the inequality is worth, with the table of the starts."""
    settings = record["settings"]
    at_flip, norms = record["ratio_at_flip"], record["norm_at_flip"]
    least = min(row["least"] for row in record["starts"])
    text = (
        "The paper explains why one scaling is enough with several inputs: at a balanced start "
        "a² = ‖w‖² the factor of a is at least the mean of those of w, so that a moves faster and "
        "can cross 0. ρ is the ratio of the two; w ~ N(0, I), "
        f"{settings['starts']:,} starts with a < 0 per row. Closed forms are ratios of the two "
        "expectations. *a² faster* counts the starts at which a² changes faster than ‖w‖² in the "
        f"exact flow, by the data of n = {settings['samples']} samples."
    )
    held = sum(row["holds"]["successes"] for row in record["starts"])
    runs = sum(row["holds"]["runs"] for row in record["starts"])
    verdict = (
        f"The inequality holds at {held:,} of {runs:,} starts (least ρ {least:.4f}): it must, "
        "since |a| is at least every |wₖ|. With one input both sides are equal and nothing is "
        "gained; ρ grows with the number of inputs and shrinks as β grows."
    )
    if not at_flip:
        return "\n\n".join([text, starts_table(record), verdict])
    reversed_before = record["reversed_before"]
    way = (
        f"On the way it does not last. Of {settings['runs']} runs with d = {settings['dim']}, "
        f"β = {settings['beta']:g} and η = {settings['lr']:g}, {percent(record['flips'])} reach "
        f"a > 0 within {settings['steps']:,} steps; without Sign-In "
        f"{percent(record['flips_plain'])} do, whose a² − ‖w‖² stays below "
        f"{record['imbalance_plain']:.2g}. In {percent(reversed_before)} of those that do, ρ fell "
        f"below 1 before the flip, and at the last state before it ρ is {min(at_flip):.2f} to "
        f"{max(at_flip):.2f}: the factor of an a near 0 is the smallest there is. What Eq. (4) "
        "gives is the lead of the first part of the way: a reaches 0 while ‖w‖ is still "
        f"{min(norms):.2f} to {max(norms):.2f}."
    )
    return "\n\n".join([text, starts_table(record), verdict, way])


def starts_table(record: Record) -> str:
    """Tabulate ρ at balanced starts by β and the number of inputs."""
    found = {(row["factor"], row["beta"], row["dim"]): row for row in record["starts"]}
    rows = []
    for factor, beta, dim in found:
        if factor != "printed":
            continue
        printed, exact = found["printed", beta, dim], found["exact", beta, dim]
        numbers = (
            number
            for row in (printed, exact)
            for number in (
                row["expected_a"] / row["expected_w"],
                row["mean_a"] / row["mean_w"],
                row["least"],
            )
        )
        cells = [f"{number:.3f}" for number in numbers]
        rows.append([f"{beta:g}", str(dim), *cells, percent(exact["faster"])])
    printed_head = ("√(θ² + β): closed form", "measured", "least ρ")
    exact_head = ("√(4θ² + β²): closed form", "measured", "least ρ", "a² faster")
    return markdown(("β", "d", *printed_head, *exact_head), rows)


def plot_equation4(record: Record, path: Path) -> Path:
    """Draw ρ at the starts against the number of inputs, and along paths until a is positive."""
    with plot.style():
        figure = Figure(figsize=(8.0, 3.8), layout="constrained")
        left, right = figure.subplots(1, 2)
        rows = [row for row in record["starts"] if row["factor"] == "printed"]
        betas = dict.fromkeys(row["beta"] for row in rows)
        for beta, colour in zip(betas, (BLUE, ORANGE, SKY), strict=True):
            mine = [row for row in rows if row["beta"] == beta]
            dims = [row["dim"] for row in mine]
            left.plot(dims, [row["expected_a"] / row["expected_w"] for row in mine], color=colour)
            measured = [row["mean_a"] / row["mean_w"] for row in mine]
            left.plot(dims, measured, "o", color=colour, label=f"β = {beta:g}")
        left.set_xscale("log")
        ticks(left, dims, "{:g}".format)
        left.set_xlabel("inputs d")
        left.set_ylabel("factor of a / mean factor of w")
        left.set_title("√(θ² + β), balanced starts; lines: closed form", loc="left")
        for each in record["paths"]:
            a = np.array(each["a"])
            right.plot(a / abs(a[0]), each["ratio"], color=GREY, lw=1)
            right.plot(a[-1] / abs(a[0]), each["ratio"][-1], "o", ms=3.5, color=BLUE)
        right.set_xlabel("a, relative to the start")
        right.set_title("√(4θ² + β²), on the way to a > 0 (dots)", loc="left")
        for axes in (left, right):
            axes.axhline(1.0, color=BLACK, lw=0.8, ls="--")
        settings = record["settings"]
        scale = (
            f"{settings['starts']:,} starts, w ~ N(0, I); paths: d = {settings['dim']}, "
            f"β = {settings['beta']:g}, {settings['steps']:,} steps of {settings['lr']:g}"
        )
        title(figure, "Eq. (4): how much faster a moves than w", scale)
        plot.legend(figure, where="below")
        return save(figure, path)
