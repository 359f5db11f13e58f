"""Checks that several calls share, one for each kind of argument.

Messages read ``parameter=value, expected …: remedy``; for a tensor or a mapping its name, and what
is wrong in it, stand for the value.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from numbers import Real

import torch
from torch import Tensor, nn

__all__ = [
    "all_finite",
    "check_callable",
    "check_choice",
    "check_entries",
    "check_finite",
    "check_fraction",
    "check_generator",
    "check_integer",
    "check_module",
    "check_names",
    "check_number",
    "check_optimizer",
    "check_scope",
    "check_shape",
    "check_tensors",
    "check_ties",
    "check_type",
    "nonfinite_error",
]


def check_number(
    parameter: str,
    value: float,
    *,
    at_least: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> None:
    """Raise unless ``value`` is a number within the given bounds."""
    _check_real(parameter, value)
    bounds = {
        f"of at least {at_least}": at_least is None or value >= at_least,
        f"above {above}": above is None or value > above,
        f"below {below}": below is None or value < below,
    }
    if math.isnan(value) or not all(bounds.values()):
        expected = " and ".join(bound for bound in bounds if "None" not in bound)
        raise ValueError(f"{parameter}={value!r}, expected a number {expected}".rstrip())


def check_finite(parameter: str, value: float) -> None:
    """Raise unless ``value`` is a finite number."""
    _check_real(parameter, value)
    if not math.isfinite(value):
        raise ValueError(f"{parameter}={value!r}, expected a finite number")


def check_fraction(parameter: str, value: float, *, zero: bool = True) -> None:
    """Raise unless ``value`` is a number in [0, 1], or in (0, 1] without ``zero``."""
    _check_real(parameter, value)
    if not 0 <= value <= 1 or (value == 0 and not zero):
        interval = "[0, 1]" if zero else "(0, 1]"
        raise ValueError(f"{parameter}={value!r} is out of range, expected a number in {interval}")


def _check_real(parameter: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{parameter}={value!r} is {_kind(value)}, expected a number")


def _kind(value: object) -> str:
    name = type(value).__name__
    return f"an {name}" if name[0].lower() in "aeiou" else f"a {name}"


def check_integer(parameter: str, value: object, at_least: int) -> None:
    """Raise unless ``value`` is an int of at least ``at_least``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{parameter}={value!r} is {_kind(value)}, expected an int")
    if value < at_least:
        raise ValueError(f"{parameter}={value!r}, expected an int of at least {at_least}")


def check_choice(parameter: str, value: object, choices: Sequence[str]) -> None:
    """Raise unless ``value`` is one of several strings."""
    if value not in choices:
        *most, last = map(repr, choices)
        raise ValueError(f"{parameter}={value!r}, expected {', '.join(most)} or {last}")


def check_scope(scope: str) -> None:
    """Raise unless ``scope`` is one of the two there are."""
    check_choice("scope", scope, ("global", "layer"))


def check_ties(ties: str) -> None:
    """Raise unless ``ties`` is one of the two ways to choose among equal entries."""
    check_choice("ties", ties, ("index", "random"))


def check_callable(parameter: str, value: object) -> None:
    """Raise unless ``value`` can be called."""
    if not callable(value):
        raise TypeError(f"{parameter}={value!r} is {_kind(value)}, expected a function")


def check_generator(generator: object) -> None:
    """Raise unless ``generator`` is a torch.Generator or None."""
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(
            f"generator={generator!r} is {_kind(generator)}, expected a torch.Generator: "
            "torch.Generator().manual_seed(0), for instance"
        )


def check_type(
    parameter: str, value: object, types: type | tuple[type, ...], expected: str
) -> None:
    """Raise unless ``value`` is an instance of one of some types, ``expected`` in words."""
    if not isinstance(value, types):
        raise TypeError(f"{parameter} is {_kind(value)}, expected {expected}")


def check_module(model: object) -> None:
    """Raise unless ``model`` is a torch.nn.Module."""
    check_type("model", model, nn.Module, "a torch.nn.Module")


def check_optimizer(optimizer: object, parameter: str = "optimizer") -> None:
    """Raise unless ``optimizer`` is a torch.optim.Optimizer."""
    example = "torch.optim.SGD(model.parameters(), lr=0.1), for instance"
    expected = f"a torch.optim.Optimizer: {example}"
    check_type(parameter, optimizer, torch.optim.Optimizer, expected)


def check_shape(
    parameter: str,
    name: str | None,
    shape: Iterable[int],
    expected: Iterable[int],
    whose: str = "model",
) -> None:
    """Raise unless a tensor, or one of this name in a mapping, has the expected shape."""
    given, wanted = tuple(shape), tuple(expected)
    if given != wanted:
        holds = f"has shape {given}" if name is None else f"holds {name!r} in shape {given}"
        raise ValueError(f"{parameter} {holds}, expected the {whose}'s {wanted}")


def check_names(
    parameter: str,
    given: Collection[str],
    known: Collection[str],
    *,
    needed: Collection[str] | None = None,
    what: str = "in the model",
) -> None:
    """Raise unless a mapping has every needed name and none that is unknown.

    Args:
        parameter: the mapping's name.
        given: the names that it holds.
        known: the names that it may hold.
        needed: the names that it must hold; by default all that are known.
        what: what is true of the known names alone, as "in the model" or "masked".
    """
    for name in known if needed is None else needed:
        if name not in given:
            raise ValueError(f"{parameter} is missing {name!r}, which is {what}")
    for name in given:
        if name not in known:
            raise ValueError(f"{parameter} holds {name!r}, which is not {what}")


def check_tensors(
    parameter: str,
    given: Mapping[str, Tensor],
    shapes: Mapping[str, Iterable[int]],
    what: str = "in the model",
) -> None:
    """Raise unless a mapping holds a tensor of the right shape under each of some names."""
    check_names(parameter, given, given, needed=shapes, what=what)
    for name, shape in shapes.items():
        check_type(f"{parameter}[{name!r}]", given[name], Tensor, "a tensor")
        check_shape(parameter, name, given[name].shape, shape)


def all_finite(values: Tensor) -> bool:
    """Whether no entry is NaN or infinite, in one pass and without a temporary."""
    if values.numel() == 0:
        return True
    if values.is_floating_point() and values.element_size() == 1:  # float8 has no aminmax
        values = values.float()
    return all(bool(extreme.isfinite()) for extreme in values.aminmax())


def check_entries(what: str, values: Tensor, remedy: str = "") -> None:
    """Raise if a tensor holds NaN or infinite entries."""
    if not all_finite(values):
        raise nonfinite_error(what, int((~values.isfinite()).count_nonzero()), remedy)


def nonfinite_error(what: str, count: int, remedy: str = "") -> ValueError:
    """Return the error of a tensor with NaN or infinite entries, for those that count them."""
    tail = f": {remedy}" if remedy else ""
    return ValueError(f"{what} holds {count} NaN or infinite entries, expected finite ones{tail}")
