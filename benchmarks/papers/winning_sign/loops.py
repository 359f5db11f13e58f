"""LRR, IMP, weight rewinding and AWS over polarity's public names: read these, copy these.

Each is a generator. It works on the model in place and stops after every round with the number of
the round, so that whoever drives it can look, save, or leave. `train(model, epochs)` is the
caller's: it trains at a constant learning rate with an optimizer that it makes anew each time.

What comes back after round k has density (1 - amount)^k. LRR and AWS yield after the training that
follows a pruning, as the official code saves its checkpoints (the paper's Algorithm 1 would read
the signs off just before it). IMP and weight rewinding yield right after the rewinding: what lies
there is θ_0 ⊙ m_k, the subnetwork that their final training begins with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import nn

import polarity as pol

Train = Callable[[nn.Module, int], object]


def learning_rate_rewinding(
    model: nn.Module,
    train: Train,
    *,
    rounds: int,
    warmup_epochs: int,
    round_epochs: int,
    amount: float = 0.2,
    done: int = -1,
) -> Iterator[int]:
    """Prune, keep the trained weights, train on: Renda et al. (2020) as AWS runs it.

    Args:
        model: masked (`pol.mask_weights`); trained and pruned in place.
        train: trains the model for a number of epochs, optimizer and schedule new each time.
        rounds: prunings.
        warmup_epochs: epochs of round 0, dense.
        round_epochs: epochs after each pruning.
        amount: fraction of the survivors that each pruning removes.
        done: the last round that the model has behind it; -1 is none.

    Yields:
        The number of the round, 0 for the warm-up.
    """
    if done < 0:
        train(model, warmup_epochs)
        yield 0
    start = pol.RewindPoint.capture(model)  # without a schedule: every round makes its own
    for k in range(max(done, 0) + 1, rounds + 1):
        pol.lrr_step(model, density=(1 - amount) ** k, rewind=start)
        train(model, round_epochs)
        yield k


def find_a_winning_sign(
    model: nn.Module,
    train: Train,
    *,
    rounds: int,
    warmup_epochs: int,
    round_epochs: int,
    amount: float = 0.2,
    done: int = -1,
    generator: torch.Generator | None = None,
) -> Iterator[int]:
    """Run LRR while the norms are drawn between their trained and their initial values: AWS.

    Args:
        model: as for LRR, its norms as they were initialised, or interpolated already.
        train: as for LRR; the warm-up runs under interpolation too, as in the official code.
        rounds: prunings.
        warmup_epochs: epochs of round 0.
        round_epochs: epochs after each pruning.
        amount: fraction of the survivors that each pruning removes.
        done: the last round that the model has behind it; -1 is none.
        generator: draws one α per training forward.

    Yields:
        The number of the round, 0 for the warm-up.
    """
    pol.interpolate_norms(model, generator=generator)  # does nothing where it is done already
    yield from learning_rate_rewinding(
        model,
        train,
        rounds=rounds,
        warmup_epochs=warmup_epochs,
        round_epochs=round_epochs,
        amount=amount,
        done=done,
    )


def iterative_magnitude_pruning(
    model: nn.Module,
    train: Train,
    *,
    rounds: int,
    round_epochs: int,
    amount: float = 0.2,
    start: pol.RewindPoint | None = None,
    done: int = 0,
) -> Iterator[int]:
    """Train, prune, give the survivors their values of `start` back: Frankle & Carbin (2019).

    Args:
        model: masked; trained, pruned and rewound in place.
        train: as for LRR.
        rounds: prunings.
        round_epochs: epochs before each pruning.
        amount: fraction of the survivors that each pruning removes.
        start: where the survivors return to; the model as it is given by default.
        done: the last round that the model has behind it.

    Yields:
        The number of the round, from 1.
    """
    start = start if start is not None else pol.RewindPoint.capture(model)
    for k in range(done + 1, rounds + 1):
        train(model, round_epochs)
        pol.imp_prune(model, density=(1 - amount) ** k, rewind=start)
        yield k


def weight_rewinding(
    model: nn.Module,
    train: Train,
    *,
    rounds: int,
    warmup_epochs: int,
    round_epochs: int,
    amount: float = 0.2,
    start: pol.RewindPoint | None = None,
    done: int = -1,
) -> Iterator[int]:
    """Run IMP that returns to the end of a warm-up: Frankle et al. (2020).

    Args:
        model: masked; trained, pruned and rewound in place.
        train: as for LRR.
        rounds: prunings.
        warmup_epochs: epochs before the point that is returned to.
        round_epochs: epochs before each pruning.
        amount: fraction of the survivors that each pruning removes.
        start: the end of the warm-up, where it is past already.
        done: the last round that the model has behind it; -1 is none.

    Yields:
        The number of the round, 0 for the warm-up.
    """
    if start is None:
        train(model, warmup_epochs)
        start = pol.RewindPoint.capture(model)
        yield 0
    yield from iterative_magnitude_pruning(
        model,
        train,
        rounds=rounds,
        round_epochs=round_epochs,
        amount=amount,
        start=start,
        done=max(done, 0),
    )
