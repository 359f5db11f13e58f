"""Checks that several calls share, one for each kind of argument.

Messages read ``parameter=value, expected …: remedy``; for a tensor or a mapping its name, and what
is wrong in it, stand for the value.

A number is a ``numbers.Real`` and an integer a ``numbers.Integral``, so numpy's scalars are taken.
A bool is neither. A tensor is not a number either, because reading one may wait for a GPU: the
caller says ``.item()``. A flag is a bool, of Python or of numpy.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from numbers import Integral, Real

import numpy as np
import torch
from torch import Tensor, nn

__all__ = [
    "all_finite",
    "check_callable",
    "check_choice",
    "check_dtype",
    "check_entries",
    "check_finite",
    "check_flag",
    "check_floating",
    "check_fraction",
    "check_generator",
    "check_integer",
    "check_mapping",
    "check_module",
    "check_names",
    "check_number",
    "check_optimizer",
    "check_scope",
    "check_shape",
    "check_tensors",
    "check_ties",
    "check_type",
    "kind_of",
    "nonfinite_error",
    "shown",
    "text_of",
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
        remedy = ": .item() gives it" if isinstance(value, Tensor) and value.numel() == 1 else ""
        raise TypeError(f"{shown(parameter, value)}, expected a number{remedy}")


def text_of(value: object) -> str:
    """Return the text of a value where that is short, else its type."""
    text = repr(value)
    return kind_of(value) if isinstance(value, type) or len(text) > 60 or "\n" in text else text


def shown(parameter: str, value: object) -> str:
    """Return ``parameter=value is a type``, without the value where its text is long."""
    text, kind = text_of(value), kind_of(value)
    return f"{parameter} is {kind}" if text == kind else f"{parameter}={text} is {kind}"


def kind_of(value: object) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}"
    name = type(value).__name__
    return f"an {name}" if name[0].lower() in "aeiou" else f"a {name}"


def check_integer(parameter: str, value: object, at_least: int) -> None:
    """Raise unless ``value`` is an integer of at least ``at_least``."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{shown(parameter, value)}, expected an int")
    if value < at_least:
        raise ValueError(f"{parameter}={value!r}, expected an int of at least {at_least}")


def check_flag(parameter: str, value: object) -> None:
    """Raise unless ``value`` is True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{shown(parameter, value)}, expected True or False")


def check_choice(parameter: str, value: object, choices: Sequence[str]) -> None:
    """Raise unless ``value`` is one of several strings."""
    if not isinstance(value, str) or value not in choices:
        *most, last = map(repr, choices)
        expected = f"{', '.join(most)} or {last}"
        if not isinstance(value, str):
            raise ValueError(f"{shown(parameter, value)}, expected {expected}")
        raise ValueError(f"{parameter}={value!r}, expected {expected}")


def check_scope(scope: str) -> None:
    """Raise unless ``scope`` is one of the two there are."""
    check_choice("scope", scope, ("global", "layer"))


def check_ties(ties: str) -> None:
    """Raise unless ``ties`` is one of the two ways to choose among equal entries."""
    check_choice("ties", ties, ("index", "random"))


def check_callable(
    parameter: str, value: object, expected: str = "a function", *, classes: bool = False
) -> None:
    """Raise unless ``value`` can be called; a class only with ``classes``, for it is a slip else.

    ``loss_fn=nn.CrossEntropyLoss`` without brackets is such a slip.
    """
    if isinstance(value, type) and not classes:
        remedy = f"{value.__name__}(…) makes one"
        raise TypeError(f"{parameter} is {kind_of(value)}, expected {expected}: {remedy}")
    if not callable(value):
        raise TypeError(f"{shown(parameter, value)}, expected {expected}")


def check_generator(generator: object, parameter: str = "generator") -> None:
    """Raise unless ``generator`` is a torch.Generator or None."""
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(
            f"{shown(parameter, generator)}, expected a torch.Generator: "
            "torch.Generator().manual_seed(0), for instance"
        )


def check_dtype(parameter: str, dtype: object) -> None:
    """Raise unless ``dtype`` is a floating-point torch.dtype or None."""
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ValueError(
            f"{shown(parameter, dtype)}, expected a floating-point torch.dtype or None"
        )


def check_mapping(parameter: str, value: object, expected: str = "{name: tensor}") -> None:
    """Raise unless ``value`` is a mapping."""
    check_type(parameter, value, Mapping, expected)


def check_type(
    parameter: str, value: object, types: type | tuple[type, ...], expected: str
) -> None:
    """Raise unless ``value`` is an instance of one of some types, ``expected`` in words."""
    if not isinstance(value, types):
        raise TypeError(f"{parameter} is {kind_of(value)}, expected {expected}")


def check_module(model: object) -> None:
    """Raise unless ``model`` is a torch.nn.Module."""
    check_type("model", model, nn.Module, "a torch.nn.Module")


def check_optimizer(optimizer: object, parameter: str = "optimizer") -> None:
    """Raise unless ``optimizer`` is a torch.optim.Optimizer."""
    example = "torch.optim.SGD(model.parameters(), lr=0.1), for instance"
    expected = f"a torch.optim.Optimizer: {example}"
    check_type(parameter, optimizer, torch.optim.Optimizer, expected)


def check_floating(parameter: str, values: object) -> None:
    """Raise unless ``values`` is a floating-point tensor."""
    check_type(parameter, values, Tensor, "a tensor")
    if not values.is_floating_point():  # type: ignore[attr-defined]
        dtype = values.dtype  # type: ignore[attr-defined]
        raise TypeError(f"{parameter} has dtype {dtype}, expected a floating-point tensor")


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
    check_mapping(parameter, given, "a mapping of names")
    for name in known if needed is None else needed:
        if name not in given:
            raise ValueError(
                f"{parameter} is missing {name!r}, which is {what}: expected "
                f"{_listed(known if needed is None else needed)}"
            )
    for name in given:
        if name not in known:
            raise ValueError(
                f"{parameter} holds {name!r}, which is not {what}: expected {_listed(known)}"
            )


def _listed(names: Collection[str], at_most: int = 8) -> str:
    """Return the first names of a collection, for an error."""
    first = ", ".join(repr(name) for name in list(names)[:at_most])
    return first + (", …" if len(names) > at_most else "") if names else "nothing"


def check_tensors(
    parameter: str,
    given: Mapping[str, Tensor],
    shapes: Mapping[str, Iterable[int]],
    what: str = "in the model",
    whose: str = "model",
) -> None:
    """Raise unless a mapping has a floating tensor of the right shape under each of some names."""
    check_mapping(parameter, given)
    check_names(parameter, given, given, needed=shapes, what=what)
    for name, shape in shapes.items():
        check_floating(f"{parameter}[{name!r}]", given[name])
        check_shape(parameter, name, given[name].shape, shape, whose)


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
