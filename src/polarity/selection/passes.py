"""What a selection asks of the entries of a tensor, and how it visits those of many tensors."""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from polarity.selection.keys import Integers, Keys

__all__ = ["Bracket", "KeyField", "Part", "Space", "run"]

Result = TypeVar("Result")

# Below so many entries threads cost more than they save; more threads than this wait for the
# interpreter.
_WORTH_THREADS = 1 << 23
_MOST_THREADS = 8


@dataclass
class Bracket:
    """Keys between which something is looked for, both included.

    Attributes:
        low: the lower edge.
        high: the upper edge.
        room: how many of the entries between the edges may still be collected.
    """

    low: int
    high: int
    room: int


class Part(NamedTuple):
    """What one pass learns of a part of a field.

    Attributes:
        counts: of its living entries, how many are below the bracket, at its low edge, at its high
            edge, otherwise inside, and NaN or infinite. Entries at an edge are only told apart
            from the others where there are many.
        between: the keys of those otherwise inside; None if there are none, or no room for them.
            As the counts, numpy's for what is in main memory, and torch's for what is not.
    """

    counts: tuple[int, int, int, int, int] | Tensor
    between: Integers | Tensor | None


class Space:
    """Memory for one part, used for one part after the other."""

    def __init__(self, keys: Keys, size: int) -> None:
        self.keys: Integers = torch.empty(size, dtype=keys.integer).numpy()
        self.first = np.empty(size, dtype=bool)
        self.second = np.empty(size, dtype=bool)
        self.live = np.empty(size, dtype=bool)


class KeyField(Protocol):
    """The entries of one tensor as keys, in order and in parts that fit in a cache.

    Attributes:
        name: what to call it in an error.
        device: where it is.
        size: number of entries.
        living: how many of them take part.
        parts: consecutive slices.
        living_in: how many entries of each part take part.
        lazy: whether holding its entries takes memory, so that it is held alone.
    """

    name: str
    device: torch.device
    size: int
    living: int
    parts: list[slice]
    living_in: list[int]
    lazy: bool

    def held(self) -> AbstractContextManager[None]:
        """Have the entries at hand while the context lasts."""

    def live(self, part: slice, space: Space) -> Any:
        """Return which entries of a part take part, as bools, or None for all.

        Valid until the next call with the same ``space``.
        """

    def sample(self, start: int, stride: int) -> Integers:
        """Return the keys of every ``stride``-th entry that lives."""

    def scan(self, part: slice, bracket: Bracket, space: Space) -> Part:
        """Count a part, and collect what is inside the bracket."""

    def histogram(self, part: slice, bracket: Bracket, shift: int, space: Space) -> Integers:
        """Count the living keys inside the bracket by ``(key >> shift) - (low >> shift)``."""

    def kept(self, part: slice, threshold: int, ties: int, kept_ties: int, space: Space) -> Any:
        """Return which entries of a part stay, as a numpy array or a tensor.

        The living ones above the threshold, and of the ``ties`` at it the first ``kept_ties``.
        Valid until ``space`` is used again.
        """


def run(
    fields: Sequence[KeyField], keys: Keys, work: Callable[[int, int, Space], Result]
) -> list[list[Result]]:
    """Return ``work(field, part, space)`` for every part of every field, given by their indices.

    On a CPU the parts are shared among threads, as many as torch may use. What is returned does not
    depend on which thread took which part.
    """
    results: dict[tuple[int, int], Result] = {}

    def visit(chosen: list[int]) -> None:
        todo = deque((index, part) for index in chosen for part in range(len(fields[index].parts)))
        on_cpu = [index for index in chosen if fields[index].device.type == "cpu"]
        longest = max((fields[i].parts[0].stop for i in on_cpu if fields[i].parts), default=0)

        def take() -> None:
            space = Space(keys, longest)
            while True:
                try:
                    place = todo.popleft()
                except IndexError:
                    return
                results[place] = work(*place, space)

        count = min(torch.get_num_threads(), _MOST_THREADS, len(todo))
        if count < 2 or sum(fields[index].size for index in on_cpu) < _WORTH_THREADS:
            return take()
        with ThreadPoolExecutor(count - 1) as pool:
            others = [pool.submit(take) for _ in range(count - 1)]
            take()
            for other in others:
                other.result()

    with ExitStack() as stack:
        ready = [index for index, field in enumerate(fields) if not field.lazy]
        for index in ready:
            stack.enter_context(fields[index].held())
        visit(ready)
    for index, field in enumerate(fields):
        if field.lazy:
            with field.held():
                visit([index])
    return [
        [results[index, part] for part in range(len(field.parts))]
        for index, field in enumerate(fields)
    ]
