"""d = 1: the phase portraits of Theorems 5.1 and 5.2, and the obstruction of Theorem 5.4.

With C₊ and C₋ the means of z² over the positive and the negative samples, the gradient is closed:
∂L/∂a = w·g and ∂L/∂w = a·g with g = C₊·(a·w − 1) for w > 0, C₋·a·w for w < 0 and 0 for w = 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .dynamics import descend
from .neuron import (
    CASES,
    Array,
    Task,
    balanced,
    by_case,
    draw_case,
    draw_cases,
)
from .records import Record, count, rounded

# Two samples, 1 and −1, have the second moments of a normal z: C₊ = C₋ = 1/2.
HALF = Task(np.array([[1.0], [-1.0]]), np.array([[1.0], [0.0]]))
FLOWS: dict[str, tuple[float, float] | None] = {
    "gradient flow": None,
    "sign_in, 2 and 1": (2.0, 1.0),
    "sign_in, 1 and 1": (1.0, 1.0),
    "sign_in, 1 and 2": (1.0, 2.0),
}


def pull(a: Array, w: Array) -> Array:
    """Return the g of both derivatives for C₊ = C₋ = 1/2."""
    return np.where(w > 0, 0.5 * (a * w - 1.0), np.where(w < 0, 0.5 * a * w, 0.0))


def printed_flow(start: Array, *, lr: float, steps: int, beta: tuple[float, float]) -> Array:
    """Take Euler steps of Eq. (3) as printed, with the factors √(θ² + β)."""
    a, w = start.copy()
    for _ in range(steps):
        g = pull(a, w)
        a, w = (
            a - lr * np.sqrt(a * a + beta[0]) * (w * g),
            w - lr * np.sqrt(w * w + beta[1]) * (a * g),
        )
    return np.stack([a, w])


def portrait(quick: bool) -> Record:
    """Compute Figure 3's trajectories from balanced starts, and outcomes of many more of them."""
    runs, steps = (10, 1000) if quick else (100, 200_000)
    lr = 0.01 if quick else 0.001
    radii = np.array([0.3, 0.6, 0.9, 1.2, 1.5])
    start = np.concatenate([balanced(w * radii[None], a) for a, w in CASES.values()], axis=1)
    record = np.unique(np.concatenate([[0], np.geomspace(10, steps, 80).astype(int)])).tolist()
    cells, paths = [], {}
    many = draw_cases(1, runs, seed=1)
    ends = {
        name: descend(many, HALF, lr=lr, steps=steps, beta=beta)[0] for name, beta in FLOWS.items()
    }
    ends["Eq. 3 as printed, 2 and 1"] = printed_flow(many, lr=lr, steps=steps, beta=(2.0, 1.0))
    for name, end in ends.items():
        solved = (np.abs(end[0] * end[1] - 1.0) < 1e-3) & (end[1] > 0)
        for case, mine in by_case(solved).items():
            cells.append({"flow": name, "case": case, **count(mine)})
    for name in ("gradient flow", "sign_in, 2 and 1"):
        states = descend(start, HALF, lr=lr, steps=steps, beta=FLOWS[name], record=record)
        paths[name] = {"a": rounded(states[:, 0].T), "w": rounded(states[:, 1].T)}
    settings = {"lr": lr, "steps": steps, "runs": runs, "scale": 1.0, "second_moment": 0.5}
    return {"settings": {**settings, "start_seed": 1}, "cells": cells, "paths": paths}


@dataclass(frozen=True)
class Reparameterisation:
    """θ = g(u) with u of shape (parts, R): its value, its slopes, and a u for any θ."""

    formula: str
    value: Callable[[Array], Array]
    slopes: Callable[[Array], Array]
    start: Callable[[Array], Array]


# Balanced with either sign of a, and with an a that outlasts w.
OBSTRUCTED_STARTS = {"a = abs(w)": 1, "a = −abs(w)": -1, "a = 2·abs(w)": 2}


def _split(theta: Array) -> Array:
    m = np.sqrt(0.5 + np.hypot(theta, 0.5))
    return np.stack([m, theta / m])


REPARAMETERISATIONS = {
    "identity": Reparameterisation("u", lambda u: u[0], np.ones_like, lambda t: t[None]),
    "m·v": Reparameterisation(
        "m·v, m² − v² = 1", lambda u: u[0] * u[1], lambda u: u[::-1].copy(), _split
    ),
    "three factors": Reparameterisation(
        "m·m′·v, m = m′ = 1 at the start",
        lambda u: u[0] * u[1] * u[2],
        lambda u: np.stack([u[1] * u[2], u[0] * u[2], u[0] * u[1]]),
        lambda t: np.stack([np.ones_like(t), np.ones_like(t), t]),
    ),
    "cubic": Reparameterisation(
        "u³", lambda u: u[0] ** 3, lambda u: 3.0 * u**2, lambda t: np.cbrt(t)[None]
    ),
    "signed square": Reparameterisation(
        "u·abs(u)",
        lambda u: u[0] * np.abs(u[0]),
        lambda u: 2.0 * np.abs(u),
        lambda t: (np.sign(t) * np.sqrt(np.abs(t)))[None],
    ),
    "sinh": Reparameterisation(
        "sinh u", lambda u: np.sinh(u[0]), np.cosh, lambda t: np.arcsinh(t)[None]
    ),
}


def reparameterised(
    g: Reparameterisation, start: Array, *, lr: float, steps: int, record: list[int]
) -> tuple[Array, Array]:
    """Run gradient descent on u₁ and u₂ with a = g(u₁) and w = g(u₂).

    Returns:
        The greatest w of every run on its way, (R,), and the states (a, w) at the steps of
        `record`, (len(record), 2, R).
    """
    u1, u2 = g.start(start[0]), g.start(start[1])
    greatest = np.full(start.shape[1], -np.inf)
    states = []
    wanted = set(record)
    for step in range(steps + 1):
        a, w = g.value(u1), g.value(u2)
        np.fmax(greatest, w, out=greatest)
        if step in wanted:
            states.append(np.stack([a, w]))
        force = lr * pull(a, w)
        u1, u2 = u1 - force * w * g.slopes(u1), u2 - force * a * g.slopes(u2)
    return greatest, np.stack(states)


def obstruction(quick: bool) -> Record:
    """Show Theorem 5.4: from w < 0 no reparameterisation crosses 0, unless a step is too long."""
    runs, steps, lr = (10, 500, 0.01) if quick else (100, 50_000, 0.004)
    record = np.unique(np.concatenate([[0], np.geomspace(5, steps, 60).astype(int)])).tolist()
    rows = []
    for name, g in REPARAMETERISATIONS.items():
        for begin, ratio in OBSTRUCTED_STARTS.items():
            weights = np.concatenate([[[-1.0]], draw_case("+-", 1, runs, seed=1)[1:]], axis=1)
            start = balanced(weights, ratio)
            greatest, states = reparameterised(g, start, lr=lr, steps=steps, record=record)
            rows.append(
                {
                    "name": name,
                    "formula": g.formula,
                    "start": begin,
                    "crossed": count(greatest > 0),
                    "greatest_w": float(greatest.max()),
                    "median_final_w": float(np.median(states[-1, 1])),
                    # The loss of the student that answers 0 is C₊/2 = 1/4.
                    "least_final_loss": float(
                        np.min(0.25 + 0.25 * np.square(states[-1].prod(axis=0)))
                    ),
                    "path": rounded(states[:, 1, 0]),
                }
            )
    overshoot = []
    for step_size in (0.01, 0.1, 0.5, 1.0, 2.0, 4.0):
        for name in ("identity", "m·v"):
            # Where a step is far too long, runs may leave the range of numbers after they crossed.
            with np.errstate(over="ignore", invalid="ignore"):
                greatest, _ = reparameterised(
                    REPARAMETERISATIONS[name],
                    draw_case("+-", 1, runs, seed=1),
                    lr=step_size,
                    steps=200,
                    record=[200],
                )
            overshoot.append({"name": name, "lr": step_size, "crossed": count(greatest > 0)})
    settings = {"lr": lr, "steps": steps, "runs": runs + 1, "scale": 1.0, "record": record}
    return {"settings": {**settings, "start_seed": 1}, "rows": rows, "overshoot": overshoot}
