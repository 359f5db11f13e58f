"""Two-layer networks of k neurons, f(z) = c·Σᵢ aᵢ·relu(wᵢᵀz): many students in one array.

The paper prints c = 1; c = 1/k is the mean-field scaling of Chizat et al., whose initialisation it
uses. Every student has a teacher of its own and all of them see the same samples. Arrays are (S, k)
for the aᵢ and (S, k, d) for the wᵢ, for S students, in float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .dynamics import balance
from .neuron import Array


@dataclass(frozen=True)
class Networks:
    """Output weights a, (S, k), and input weights w, (S, k, d), of S networks."""

    a: Array
    w: Array

    @property
    def vectors(self) -> Array:
        """What the paper draws of every neuron: |aᵢ|·wᵢ, (S, k, d)."""
        return np.abs(self.a)[..., None] * self.w


def outputs(networks: Networks, inputs: Array, factor: float) -> Array:
    """Return answers c·Σᵢ aᵢ·relu(wᵢᵀz) to inputs of shape (n, d): (S, n)."""
    hidden = np.maximum(networks.w @ inputs.T, 0.0)
    found: Array = (networks.a[:, None, :] @ hidden)[:, 0] * factor
    return found


def gradients(
    networks: Networks, inputs: Array, labels: Array, factor: float
) -> tuple[Array, Array, Array]:
    """Return half the mean squared error and its derivatives.

    Args:
        networks: the students.
        inputs: (n, d).
        labels: (S, n).
        factor: c.

    Returns:
        Losses (S,), derivatives for a (S, k) and for w (S, k, d).
    """
    students, neurons, dim = networks.w.shape
    samples = len(inputs)
    hidden = (networks.w.reshape(-1, dim) @ inputs.T).reshape(students, neurons, samples)
    active = hidden > 0
    np.maximum(hidden, 0.0, out=hidden)
    residual = (networks.a[:, None, :] @ hidden)[:, 0] * factor - labels
    loss = 0.5 * np.square(residual).mean(axis=1)
    residual *= factor / samples
    for_a = (hidden @ residual[..., None])[..., 0]
    np.multiply(active, residual[:, None], out=hidden)
    for_w = (hidden.reshape(-1, samples) @ inputs).reshape(networks.w.shape)
    return loss, for_a, for_w * networks.a[..., None]


def train(
    start: Networks,
    inputs: Array,
    labels: Array,
    *,
    factor: float,
    lr: float,
    steps: int,
    beta: tuple[float, float] | None = None,
    record: int = 0,
) -> tuple[Networks, Array, list[Networks]]:
    """Run full-batch gradient descent on (a, w), or on Sign-In's factors of both.

    Args:
        start: where the students begin.
        inputs: (n, d).
        labels: (S, n).
        factor: c.
        lr: step size.
        steps: number of steps.
        beta: Sign-In's inner scalings of a and of w; None descends on the weights themselves.
        record: after how many steps to take a picture; 0 takes none.

    Returns:
        The students at the end, their losses there (S,), and the pictures, the start first.
    """
    theta = np.concatenate([start.a[..., None], start.w], axis=2)
    m = v = theta
    if beta is not None:
        m, v = balance(theta, np.array([beta[0], *[beta[1]] * start.w.shape[2]]))
        theta = m * v
    pictures = []

    def current() -> Networks:
        return Networks(theta[..., 0].copy(), theta[..., 1:].copy())

    for step in range(steps):
        if record and step % record == 0:
            pictures.append(current())
        students = Networks(theta[..., 0], theta[..., 1:])
        _, for_a, for_w = gradients(students, inputs, labels, factor)
        slope = np.concatenate([for_a[..., None], for_w], axis=2)
        slope *= lr
        if beta is None:
            theta = theta - slope
        else:
            m, v = m - slope * v, v - slope * m
            theta = m * v
    end = current()
    loss, _, _ = gradients(end, inputs, labels, factor)
    return end, loss, [*pictures, end]
