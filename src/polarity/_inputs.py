"""Checks of what comes from outside: functions, batches, inputs and schedulers."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from polarity._checks import check_type, kind_of

__all__ = [
    "check_arguments",
    "check_batches",
    "check_inputs",
    "check_scheduler",
]


def check_arguments(
    parameter: str,
    function: Callable[..., Any],
    given: Sequence[str],
    named: Sequence[str] = (),
    *,
    remedy: str,
) -> None:
    """Raise unless a function can be called with these positional and keyword arguments alone."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # functions written in C have none
        return
    try:
        signature.bind(*given, **dict.fromkeys(named))
    except TypeError:
        name = getattr(function, "__name__", type(function).__name__)
        takes = ", ".join(map(str, signature.parameters))
        raise TypeError(
            f"{parameter}={name} takes ({takes}), expected a function of "
            f"({', '.join(given)}): {remedy}"
        ) from None


def check_batches(parameter: str, batches: object) -> None:
    """Raise unless ``batches`` can be iterated over for batches; a single batch is refused."""
    single = isinstance(batches, (str, bytes, Tensor, Mapping, type, nn.Module))
    if single or not isinstance(batches, Iterable):
        raise TypeError(
            f"{parameter} is {kind_of(batches)}, expected batches: a list of them or a DataLoader, "
            "[batch] for a single one"
        )


def check_inputs(parameter: str, inputs: object) -> None:
    """Raise unless ``inputs`` are a tensor, a tuple or list of arguments, or a dict of them."""
    expected = "a tensor, a tuple or list of arguments, or a dict of keyword arguments"
    check_type(parameter, inputs, (Tensor, tuple, list, Mapping), expected)


def check_scheduler(scheduler: object, parameter: str = "scheduler") -> None:
    """Raise unless ``scheduler`` has the methods of a learning-rate scheduler, PyTorch's or not."""
    methods = ("step", "state_dict", "load_state_dict")
    other = isinstance(scheduler, (type, nn.Module, torch.optim.Optimizer))
    if other or not all(callable(getattr(scheduler, name, None)) for name in methods):
        raise TypeError(
            f"{parameter} is {kind_of(scheduler)}, expected a learning-rate scheduler: "
            "torch.optim.lr_scheduler.StepLR(optimizer, 30), for instance"
        )
