"""LRR, IMP, weight rewinding and AWS over polarity's public names: read these, copy these.

Each is a generator. It works on the model in place and stops after every round with the number of
the round, so that the caller can look, save, or stop. `train(model, epochs)` is the
caller's: it trains at a constant learning rate with an optimizer that it makes anew each time.

What comes back after round k has density `plan.density(k)`. LRR and AWS yield after the training
that follows a pruning, as the official code saves its checkpoints (the paper's Algorithm 1 would
read the signs off just before it). IMP and weight rewinding yield right after the rewinding: what
lies there is θ_0 ⊙ m_k, the subnetwork that their final training begins with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

import polarity as pol

Train = Callable[[nn.Module, int], object]


@dataclass(frozen=True)
class Plan:
    """How many rounds a loop has, and what each of them is.

    Attributes:
        rounds: prunings.
        round_epochs: epochs of the training that goes with each pruning.
        warmup_epochs: epochs before all of them, for loops that have a warm-up.
        amount: fraction of the survivors that each pruning removes.
    """

    rounds: int
    round_epochs: int
    warmup_epochs: int = 0
    amount: float = 0.2

    def density(self, k: int) -> float:
        """Return the fraction of the weights that survives k prunings."""
        return float((1 - self.amount) ** k)


def learning_rate_rewinding(
    model: nn.Module,
    train: Train,
    plan: Plan,
    *,
    done: int = -1,
) -> Iterator[int]:
    """Prune, keep the trained weights, train on: Renda et al. (2020) as AWS runs it.

    Args:
        model: masked (`pol.mask_weights`); trained and pruned in place.
        train: trains the model for a number of epochs, optimizer and schedule new each time.
        plan: how many rounds there are, and what each is; the warm-up is dense.
        done: the last round that the model has behind it; -1 is none.

    Yields:
        The number of the round, 0 for the warm-up.
    """
    if done < 0:
        train(model, plan.warmup_epochs)
        yield 0
    start = pol.RewindPoint.capture(model)  # without a schedule: every round makes its own
    masked = tuple(pol.masks(model))
    for k in range(max(done, 0) + 1, plan.rounds + 1):
        pol.lrr_step(model, density=plan.density(k), rewind=start, targets=masked)
        train(model, plan.round_epochs)
        yield k


def find_a_winning_sign(
    model: nn.Module,
    train: Train,
    plan: Plan,
    *,
    done: int = -1,
    generator: torch.Generator | None = None,
) -> Iterator[int]:
    """Run LRR while the norms are drawn between their trained and their initial values: AWS.

    Args:
        model: as for LRR, its norms as they were initialised, or interpolated already.
        train: as for LRR; the warm-up runs under interpolation too, as in the official code.
        plan: as for LRR.
        done: the last round that the model has behind it; -1 is none.
        generator: draws one α per training forward.

    Yields:
        The number of the round, 0 for the warm-up.
    """
    pol.interpolate_norms(model, generator=generator)  # does nothing where it is done already
    yield from learning_rate_rewinding(model, train, plan, done=done)


def iterative_magnitude_pruning(
    model: nn.Module,
    train: Train,
    plan: Plan,
    *,
    start: pol.RewindPoint | None = None,
    done: int = -1,
) -> Iterator[int]:
    """Train, prune, give the survivors their values of `start` back: Frankle & Carbin (2019).

    Args:
        model: masked; trained, pruned and rewound in place.
        train: as for LRR.
        plan: how many rounds there are, and what each is; there is no warm-up.
        start: where the survivors return to; the model as it is given by default.
        done: the last round that the model has behind it; -1 or 0 is none.

    Yields:
        The number of the round, from 1.
    """
    start = start if start is not None else pol.RewindPoint.capture(model)
    masked = tuple(pol.masks(model))
    for k in range(max(done, 0) + 1, plan.rounds + 1):
        train(model, plan.round_epochs)
        pol.imp_prune(model, density=plan.density(k), rewind=start, targets=masked)
        yield k


def weight_rewinding(
    model: nn.Module,
    train: Train,
    plan: Plan,
    *,
    start: pol.RewindPoint | None = None,
    done: int = -1,
) -> Iterator[int]:
    """Run IMP that returns to the end of a warm-up: Frankle et al. (2020).

    Args:
        model: masked; trained, pruned and rewound in place.
        train: as for LRR.
        plan: how many rounds there are, and what each is; survivors return to the end of its
            warm-up.
        start: the end of the warm-up, where it is past already.
        done: the last round that the model has behind it; -1 is none.

    Yields:
        The number of the round, 0 for the warm-up.
    """
    if start is None:
        train(model, plan.warmup_epochs)
        start = pol.RewindPoint.capture(model)
        yield 0
    yield from iterative_magnitude_pruning(model, train, plan, start=start, done=done)
