"""Gradient descent of the single neuron, many runs in one array.

The loss is quadratic in a·w as long as the same samples are active. With M = mean of z·zᵀ and
q = mean of y·z over the active samples, and the vector G = a·M·w − q,

    ∂L/∂a = wᵀG,    ∂L/∂w = a·G.

Two things follow. For d = 1 the two derivatives are built from one number, so a = −w stays so to
the last bit and a run on the stable manifold of the saddle stays there: rounding decides nothing.
And M and q only change when a sample changes sides. They are kept until the direction of w has
turned by more than the angle to the nearest sample's boundary, which makes a step independent of
the number of samples.

A run whose state is a fixed point of the step to the last bit stays there for ever, and one that
has left the range of numbers does not come back: they are taken out of the batch, and their
outcomes are still those of all steps.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .neuron import Array, Task

# How often runs that no longer move are looked for, in steps.
_SETTLE_EVERY = 500
# How many boundaries are watched one by one.
_NEAR = 9


def balance(theta: Array, beta: Array) -> tuple[Array, Array]:
    """Return the (m, v) with m·v = θ and m² − v² = β that Sign-In starts from."""
    alpha = 0.5 * beta
    m = np.sqrt(alpha + np.hypot(theta, alpha))
    return m, theta / m


class ActiveMoments:
    """M and q of the active samples of every run, brought up to date when they may have changed.

    Three steps, each taken only where the one before it could not tell: w has turned by less than
    the angle to the nearest boundary, and nothing changed; it has turned by less than the angle to
    the tenth, and at most the nine nearer samples changed sides; all samples are looked at.

    Args:
        task: the data.
        weights: (d, R), where the runs begin.
    """

    def __init__(self, task: Task, weights: Array) -> None:
        dim, runs = weights.shape
        samples = len(task.inputs)
        self._task = task
        self._inputs = np.ascontiguousarray(task.inputs)
        self._outer = (task.inputs[:, :, None] * task.inputs[:, None, :]).reshape(-1, dim * dim)
        self._lengths = np.linalg.norm(task.inputs, axis=1)[:, None]
        self._near = min(_NEAR, samples - 1)
        self._second = np.empty((dim, dim, runs))
        self._cross = np.empty((dim, runs))
        self._direction = np.empty((dim, runs))
        self._inner = np.empty(runs)
        self._outer_reach = np.empty(runs)
        self._close = np.empty((self._near, dim, runs))
        self._side = np.empty((self._near, runs), dtype=bool)
        self._answers = np.empty((self._near, runs))
        self._buffer = np.empty((dim, dim, runs))
        self._dot = np.empty((dim, runs))
        self._update(weights, np.arange(runs))

    def pull(self, a: Array, weights: Array, out: Array) -> Array:
        """Write G = a·M·w − q, of shape (d, R), into `out`."""
        self._refresh(weights)
        np.multiply(self._second, weights, out=self._buffer)
        np.add.reduce(self._buffer, axis=1, out=out)
        out *= a
        out -= self._cross
        return out

    def keep(self, runs: NDArray[np.intp]) -> None:
        """Forget all other runs."""
        self._task = self._task.of_runs(runs)
        names = ("_second", "_cross", "_direction", "_inner", "_outer_reach", "_close", "_side")
        for name in (*names, "_answers", "_buffer", "_dot"):
            setattr(self, name, np.ascontiguousarray(getattr(self, name)[..., runs]))

    def _refresh(self, weights: Array) -> None:
        if len(weights) == 1:
            # On a line only the sign counts, and it does not underflow near the saddle.
            stale = np.flatnonzero((weights[0] > 0) != (self._direction[0] > 0))
            if stale.size:
                self._update(weights[:, stale], stale)
            return
        np.multiply(weights, self._direction, out=self._dot)
        along = np.add.reduce(self._dot, axis=0)
        np.multiply(weights, weights, out=self._dot)
        square = np.add.reduce(self._dot, axis=0)
        # cos² of the angle to the direction of the last update against cos² of the safe angle.
        along *= np.abs(along)
        stale = np.flatnonzero(~(along > square * self._inner))
        if not stale.size:
            return
        far = ~(along[stale] > square[stale] * self._outer_reach[stale])
        if far.any():
            self._update(weights[:, stale[far]], stale[far])
            stale = stale[~far]
        close = self._close[:, :, stale]
        sides = (close * weights[:, stale]).sum(axis=1) > 0
        crossed = np.any(sides != self._side[:, stale], axis=0)
        if crossed.any():
            self._cross_over(close[..., crossed], sides[:, crossed], stale[crossed])

    def _cross_over(self, close: Array, sides: NDArray[np.bool_], runs: NDArray[np.intp]) -> None:
        """Add and subtract the near samples that changed sides."""
        change = sides.astype(np.float64) - self._side[:, runs]
        change /= len(self._inputs)
        moved = close * change[:, None]
        self._second[..., runs] += np.einsum("nir,njr->ijr", moved, close)
        self._cross[:, runs] += (moved * self._answers[:, None, runs]).sum(axis=0)
        self._side[:, runs] = sides
        # The direction of the last full update no longer tells the sides of these samples.
        self._inner[runs] = 2.0

    def _update(self, weights: Array, runs: NDArray[np.intp]) -> None:
        dim = len(weights)
        hidden = self._inputs @ weights
        active = hidden > 0
        counted = active.astype(np.float64)
        scale = 1.0 / len(self._inputs)
        self._second[..., runs] = (self._outer.T @ counted).reshape(dim, dim, -1) * scale
        labels = self._task.of_runs(runs).labels
        counted *= labels
        self._cross[:, runs] = (self._inputs.T @ counted) * scale
        norms = np.linalg.norm(weights, axis=0)
        # A weight of exactly zero has no direction: all products are 0, and it is stale again.
        norms[norms == 0] = 1.0
        self._direction[:, runs] = weights / norms
        sines = np.abs(hidden) / (self._lengths * norms)
        order = np.argpartition(sines, self._near, axis=0)[: self._near + 1]
        ranked = np.take_along_axis(sines, order, axis=0)
        # Rounding of a cosine is far below 1e-12: what is nearer than that is always looked up.
        for reach, sine in ((self._inner, ranked.min(axis=0)), (self._outer_reach, ranked[-1])):
            reach[runs] = 1.0 - np.square(np.minimum(sine, 1.0)) + 1e-12
        near = order[: self._near]
        self._close[:, :, runs] = self._inputs[near].transpose(0, 2, 1)
        self._side[:, runs] = np.take_along_axis(active, near, axis=0)
        self._answers[:, runs] = np.take_along_axis(
            np.broadcast_to(labels, active.shape), near, axis=0
        )


@np.errstate(over="ignore", invalid="ignore")
def descend(
    start: Array,
    task: Task,
    *,
    lr: float,
    steps: int,
    beta: tuple[float, float] | None = None,
    record: Sequence[int] = (),
) -> Array:
    """Run full-batch gradient descent on (a, w), or on Sign-In's factors of them.

    Args:
        start: (1 + d, R), a in row 0.
        task: the data.
        lr: step size.
        steps: number of steps.
        beta: Sign-In's inner scaling of a and of w; None descends on a and w themselves.
        record: rising step numbers after which the state is wanted; the default is the last one.

    Returns:
        (len(record), 1 + d, R), the states a and w after these steps; a run that diverged is not
        finite.
    """
    wanted = {step: slot for slot, step in enumerate(record or [steps])}
    recorded = np.empty((len(wanted), *start.shape))
    theta = np.array(start, dtype=np.float64)
    factors = None
    if beta is not None:
        column = np.full((len(start), 1), beta[1])
        column[0] = beta[0]
        factors = balance(theta, column)
        theta = factors[0] * factors[1]
    final = theta.copy()
    if 0 in wanted:
        recorded[wanted[0]] = theta
    live = np.arange(start.shape[1])
    moments = ActiveMoments(task, theta[1:])
    work = [np.empty_like(theta) for _ in range(3)]
    for step in range(1, steps + 1):
        look = step % _SETTLE_EVERY == 0
        before = [array.copy() for array in (factors or (theta,))] if look else []
        _step(theta, factors, moments, lr, work)
        if step in wanted:
            final[:, live] = theta
            recorded[wanted[step]] = final
        if not look:
            continue
        pairs = zip(before, factors or (theta,), strict=True)
        moved = np.any([np.any(old != new, axis=0) for old, new in pairs], axis=0)
        moved &= np.isfinite(theta).all(axis=0)
        if moved.all():
            continue
        final[:, live] = theta
        kept = np.flatnonzero(moved)
        live = live[kept]
        if not live.size:
            for later in (at for at in wanted if at > step):
                recorded[wanted[later]] = final
            break
        theta = np.ascontiguousarray(theta[:, kept])
        if factors is not None:
            m, v = (np.ascontiguousarray(factor[:, kept]) for factor in factors)
            factors = (m, v)
        moments.keep(kept)
        work = [np.empty_like(theta) for _ in range(3)]
    return recorded


def _step(
    theta: Array,
    factors: tuple[Array, Array] | None,
    moments: ActiveMoments,
    lr: float,
    work: list[Array],
) -> None:
    gradient, product, other = work
    pull = moments.pull(theta[0], theta[1:], other[1:])
    np.multiply(pull, theta[1:], out=product[1:])
    np.add.reduce(product[1:], axis=0, out=gradient[0])
    np.multiply(pull, theta[0], out=gradient[1:])
    gradient *= lr
    if factors is None:
        theta -= gradient
        return
    m, v = factors
    np.multiply(gradient, v, out=product)
    np.multiply(gradient, m, out=other)
    m -= product
    v -= other
    np.multiply(m, v, out=theta)
