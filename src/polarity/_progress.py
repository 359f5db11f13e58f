"""Show how far a long call has come: the one meaning of ``progress=``."""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from itertools import count
from typing import Any, TypeAlias, TypeVar

import numpy as np

from polarity._checks import kind_of, shown

__all__ = ["Progress", "Watch", "counting", "watching"]

Item = TypeVar("Item")

Progress: TypeAlias = bool | Callable[[Iterable[Any]], Iterable[Any]]
Watch: TypeAlias = Callable[[Iterable[Any]], Iterable[Any]]


def watching(progress: Progress) -> Watch:
    """Return the function that a long call wraps its loop with; it changes nothing in the loop.

    Args:
        progress: False for none, True for ``tqdm.tqdm``, or a function that takes an iterable and
            returns one with the same items, as ``tqdm.tqdm`` does.

    Raises:
        ImportError: for True, if tqdm is missing.
        TypeError: if ``progress`` is neither a bool nor a function.
    """
    if isinstance(progress, (bool, np.bool_)):
        return _tqdm() if progress else _unwatched
    if not callable(progress):
        raise TypeError(
            f"{shown('progress', progress)}, expected True, False, or a function that wraps an "
            "iterable as tqdm.tqdm does"
        )

    def wrapped(items: Iterable[Any]) -> Iterable[Any]:
        watched = progress(items)
        if not isinstance(watched, Iterable):
            raise TypeError(
                f"progress returned {kind_of(watched)}, expected an iterable over what it is "
                "given: tqdm.tqdm, for instance"
            )
        return watched

    return wrapped


@contextmanager
def counting(watch: Watch) -> Iterator[Callable[[], None]]:
    """Yield a function to call once for each round of a loop that another library runs."""
    rounds = iter(watch(count()))
    try:
        yield lambda: next(rounds, None)
    finally:
        if isinstance(rounds, Generator):
            rounds.close()  # which ends the display


def _unwatched(items: Iterable[Item]) -> Iterable[Item]:
    return items


def _tqdm() -> Watch:
    try:
        bar: Watch = import_module("tqdm").tqdm
    except ImportError as error:
        raise ImportError(
            f"progress=True needs tqdm ({error}): pip install tqdm, or pass a function that wraps "
            "an iterable"
        ) from error
    return bar
