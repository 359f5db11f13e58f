"""The optimizers that a caller gives: one, several, or none."""

from collections.abc import Sequence
from typing import TypeAlias

import torch

from polarity._checks import check_optimizer

__all__ = ["Optimizers", "as_optimizers"]

Optimizers: TypeAlias = torch.optim.Optimizer | Sequence[torch.optim.Optimizer]


def as_optimizers(
    optimizer: Optimizers | None, parameter: str = "optimizer"
) -> tuple[torch.optim.Optimizer, ...]:
    """Return what was given as a tuple, empty for None, after a look at the types.

    Raises:
        TypeError: if it is neither an optimizer nor a sequence of optimizers.
        ValueError: if the sequence is empty, or holds an optimizer twice.

    Example:
        >>> sgd = torch.optim.SGD([torch.zeros(2, requires_grad=True)], lr=0.1)
        >>> as_optimizers(sgd) == as_optimizers([sgd]) == (sgd,)
        True
    """
    if optimizer is None:
        return ()
    if not isinstance(optimizer, (list, tuple)):
        check_optimizer(optimizer, parameter)
        return (optimizer,)  # type: ignore[return-value]
    for place, each in enumerate(optimizer):
        check_optimizer(each, f"{parameter}[{place}]")
    if not optimizer:
        raise ValueError(f"{parameter}={optimizer!r}, expected at least one optimizer, or None")
    if len({id(each) for each in optimizer}) < len(optimizer):
        raise ValueError(f"{parameter} holds an optimizer twice, expected each of them once")
    return tuple(optimizer)
