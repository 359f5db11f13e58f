"""Markdown tables of a sweep, with the published numbers."""

from __future__ import annotations

from ...pages.estimates import cell, estimate, percent
from ...pages.markdown import NONE, markdown
from ...pages.published import Best
from .config import Perturbation
from .summary import Sweep

SYMBOLS = {"epsilon": "ε", "delta": "δ", "delta_largest": "δ, largest first", "phi": "φ"}


def accuracy_table(sweep: Sweep) -> str:
    """Tabulate final test accuracy in percent, a row per grid point and a column per strategy.

    The best of each column is bold; where seeds are missing, their number stands in brackets.
    """
    estimates = {
        (strategy, point): sweep.final(strategy, point, "test_accuracy")
        for strategy in sweep.strategies
        for point in sweep.points
    }
    full = max((found.count for found in estimates.values() if found is not None), default=0)
    best = {strategy: sweep.best(strategy, "test_accuracy") for strategy in sweep.strategies}

    def shown(strategy: str, point: Perturbation) -> str:
        text = cell(estimates[strategy, point], full)
        return f"**{text}**" if best[strategy] == point else text

    head = [SYMBOLS.get(sweep.kind, "perturbation"), *sweep.strategies]
    rows = [
        [point_label(sweep.kind, point), *(shown(strategy, point) for strategy in sweep.strategies)]
        for point in sweep.points
    ]
    return markdown(head, rows)


def summary_table(sweep: Sweep, published: dict[str, Best]) -> str:
    """Tabulate the best over the grid, and the test accuracy where held-out accuracy is best.

    Args:
        sweep: the sweep.
        published: the paper's best over its grid, by strategy; may be empty.

    Returns:
        The table; the published column is left out where nothing is published.
    """
    symbol = SYMBOLS.get(sweep.kind, "at")
    head = [
        "strategy",
        "best over the grid (by test, the papers' way)",
        symbol,
        "test at the point chosen on held-out images",
        symbol,
    ]
    if published:
        head += ["published best", symbol]
    rows = []
    for strategy in sweep.strategies:
        row = [strategy]
        for key in ("test_accuracy", "val_accuracy"):
            point = sweep.best(strategy, key)
            row += (
                [NONE, NONE]
                if point is None
                else [
                    str(sweep.final(strategy, point, "test_accuracy")),
                    point_label(sweep.kind, point),
                ]
            )
        if published:
            row += _published_cells(published.get(strategy))
        rows.append(row)
    return markdown(head, rows)


def sign_table(sweep: Sweep) -> str:
    """Tabulate the signs at the last round: how many positive, how many as their references."""
    head = [SYMBOLS.get(sweep.kind, "perturbation"), "strategy"]
    head += ["positive", "as initialised", "as trained", "flipped of the survivors"]
    rows = []
    for point in sweep.points:
        for strategy in sweep.strategies:
            last = [result["rounds"][-1] for result in sweep.results(strategy, point)]
            signed = [record for record in last if record["signs"] is not None]
            if not signed:
                continue
            columns = [
                estimate(record["signs"][key] for record in signed)
                for key in ("positive", "agree_init", "agree_trained")
            ]
            columns.append(
                estimate(record["signs"]["flipped"] / record["survivors"] for record in signed)
            )
            rows.append([point_label(sweep.kind, point), strategy, *map(percent, columns)])
    return markdown(head, rows)


def point_label(kind: str, point: Perturbation) -> str:
    """Write a grid point as a table shows it."""
    if kind in SYMBOLS:
        return f"{sum(size for _, size in point):g}"
    if not point:
        return "none"
    return ", ".join(f"{SYMBOLS[name]} {size:g}" for name, size in point)


def _published_cells(best: Best | None) -> list[str]:
    if best is None:
        return [NONE, NONE]
    return [f"{best.accuracy:g}", "not given" if best.at is None else f"{best.at:g}"]
