"""The optimizers and schedulers that a caller gives: one, several, or none."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch

from polarity._checks import check_optimizer
from polarity._inputs import check_scheduler

__all__ = ["Optimizers", "Schedulers", "as_optimizers", "as_schedulers", "described"]

Optimizers: TypeAlias = torch.optim.Optimizer | Sequence[torch.optim.Optimizer]
Schedulers: TypeAlias = (
    torch.optim.lr_scheduler.LRScheduler | Sequence[torch.optim.lr_scheduler.LRScheduler]
)


def as_optimizers(
    optimizer: Optimizers | None, parameter: str = "optimizer"
) -> tuple[torch.optim.Optimizer, ...]:
    """Return what was given as a tuple, empty for None, after a look at the types.

    Raises:
        TypeError: if it is neither an optimizer nor a sequence of optimizers.
        ValueError: if the sequence is empty, or holds an optimizer twice; or if one takes its steps
            inside the backward pass of DistributedDataParallel.

    Example:
        >>> sgd = torch.optim.SGD([torch.zeros(2, requires_grad=True)], lr=0.1)
        >>> as_optimizers(sgd) == as_optimizers([sgd]) == (sgd,)
        True
    """
    given: tuple[torch.optim.Optimizer, ...]
    given = _as_tuple(optimizer, parameter, "optimizer", check_optimizer)
    for each in given:
        if getattr(each, "_overlap_with_ddp", False):
            raise ValueError(
                f"{parameter}={type(each).__name__} was built with overlap_with_ddp=True and takes "
                "its steps inside backward, where masks cannot follow it, expected "
                "overlap_with_ddp=False"
            )
    return given


def as_schedulers(scheduler: Schedulers | None, parameter: str = "scheduler") -> tuple[Any, ...]:
    """Return what was given as a tuple, empty for None; a scheduler is known by its methods.

    Raises:
        TypeError: if it is neither a scheduler nor a sequence of schedulers.
        ValueError: if the sequence is empty, or holds a scheduler twice.

    Example:
        >>> sgd = torch.optim.SGD([torch.zeros(2, requires_grad=True)], lr=0.1)
        >>> steps = torch.optim.lr_scheduler.StepLR(sgd, 30)
        >>> as_schedulers([steps]) == (steps,)
        True
    """
    return _as_tuple(scheduler, parameter, "scheduler", check_scheduler)


def described(optimizers: Sequence[object]) -> str:
    """Return the types of what was given, as an error shows them.

    Example:
        >>> described([1]), described([1, "a"])
        ('int', '[int, str]')
    """
    names = [type(each).__name__ for each in optimizers]
    return names[0] if len(names) == 1 else f"[{', '.join(names)}]"


def _as_tuple(given: Any, parameter: str, kind: str, check: Any) -> tuple[Any, ...]:
    """Return one, several or none as a tuple, each of them checked."""
    if given is None:
        return ()
    if not isinstance(given, (list, tuple)):
        check(given, parameter)
        return (given,)
    for place, each in enumerate(given):
        check(each, f"{parameter}[{place}]")
    if not given:
        raise ValueError(f"{parameter}={given!r}, expected at least one {kind}, or None")
    if len({id(each) for each in given}) < len(given):
        raise ValueError(f"{parameter} holds one {kind} twice, expected each of them once")
    return tuple(given)
