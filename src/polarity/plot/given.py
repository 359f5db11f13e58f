"""What the figures are given: one thing, several seeds of it, or either of them by label."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from polarity._checks import kind_of

__all__ = ["by_label", "seeds_of"]

T = TypeVar("T")


def by_label(
    parameter: str, given: Any, read: Callable[[str, Any], T | None], expected: str
) -> dict[str | None, list[T]]:
    """Return what was given for each label, seed by seed; the label is None if there are none.

    Args:
        parameter: the argument's name, for errors.
        given: one thing, a sequence of them, or a mapping of either by label.
        read: takes a name for errors and a value; returns what the figure needs of it, or None if
            it is no such thing.
        expected: what ``read`` takes, in words.
    """
    if (one := read(parameter, given)) is not None:
        return {None: [one]}
    if isinstance(given, Mapping) and given:
        return {
            str(label): seeds_of(f"{parameter}[{label!r}]", value, read, expected)
            for label, value in given.items()
        }
    return {None: seeds_of(parameter, given, read, expected)}


def seeds_of(name: str, given: Any, read: Callable[[str, Any], T | None], expected: str) -> list[T]:
    """Return one thing, or those of several seeds, as a list."""
    if (one := read(name, given)) is not None:
        return [one]
    if not isinstance(given, Sequence) or isinstance(given, str) or not given:
        raise TypeError(f"{name} is {_kind(given)}, expected {expected}")
    found = []
    for seed, each in enumerate(given):
        one = read(f"{name}[{seed}]", each)
        if one is None:
            raise TypeError(f"{name}[{seed}] is {_kind(each)}, expected {expected}")
        found.append(one)
    return found


def _kind(given: object) -> str:
    empty = isinstance(given, Sequence | Mapping) and not given
    return "empty" if empty else kind_of(given)
