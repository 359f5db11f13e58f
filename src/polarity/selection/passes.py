"""What a search asks of the keys of one tensor, and how it visits those of many tensors."""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from polarity.selection.keys import Integers, KeyFormat

__all__ = ["Bracket", "ChunkScan", "Scratch", "TensorKeys", "for_each_chunk", "in_main_memory"]

Result = TypeVar("Result")

# With fewer entries than this threads cost more than they save. More threads than this wait for
# the interpreter.
_MIN_SIZE_FOR_THREADS = 1 << 23
_MOST_THREADS = 8


@dataclass
class Bracket:
    """Two keys between which the search looks, both included.

    Attributes:
        low: the lower edge.
        high: the upper edge.
        room: how many of the entries between the edges may still be collected.
    """

    low: int
    high: int
    room: int


class ChunkScan(NamedTuple):
    """What one pass learns of a chunk: of numpy in main memory, of torch on an accelerator.

    Attributes:
        counts: how many of its live entries are below the bracket, at its low edge, at its high
            edge, elsewhere inside, and NaN or infinite. The edges are counted apart only where the
            bracket holds many entries.
        between: the keys of those elsewhere inside; None if there are none, or no room for them,
            and on an accelerator, which collects them once their number is known.
    """

    counts: tuple[int, int, int, int, int] | Tensor
    between: Integers | None


class Scratch:
    """Memory for the largest chunk, reused by one chunk after the other."""

    def __init__(self, key_format: KeyFormat, size: int) -> None:
        self.keys: Integers = torch.empty(size, dtype=key_format.integer, device="cpu").numpy()
        self.first = np.empty(size, dtype=bool)
        self.second = np.empty(size, dtype=bool)
        self.live = np.empty(size, dtype=bool)


class TensorKeys(Protocol):
    """The entries of one tensor as keys, in order and in chunks.

    Attributes:
        name: what to call the tensor in an error.
        device: where it is.
        size: number of entries.
        chunks: consecutive slices.
        lazy: whether loading the entries takes memory, so that they are loaded alone.
    """

    name: str
    device: torch.device
    size: int
    chunks: list[slice]
    lazy: bool

    @property
    def live_count(self) -> int:
        """The number of live entries."""

    def loaded(self) -> AbstractContextManager[None]:
        """Compute the entries, and keep them while the context lasts."""

    def sample(self, start: int, stride: int) -> Integers | Tensor:
        """Return the keys of every ``stride``-th entry; of those not live, none or ``not_live``."""

    def scan(self, chunk: slice, bracket: Bracket, scratch: Scratch) -> ChunkScan:
        """Count a chunk, and collect what is inside the bracket."""

    def histogram(
        self, chunk: slice, bracket: Bracket, shift: int, scratch: Scratch
    ) -> Integers | Tensor:
        """Count the live keys inside the bracket by ``(key >> shift) - (low >> shift)``."""

    def kept(
        self, chunk: slice, threshold: int, ties: int, kept_ties: int, scratch: Scratch
    ) -> Any:
        """Return which entries of a chunk stay, as a numpy array or a tensor.

        The live ones above the threshold, and the first ``kept_ties`` of the ``ties`` at it. Valid
        until ``scratch`` is used again.
        """


def for_each_chunk(
    tensors: Sequence[TensorKeys],
    key_format: KeyFormat,
    work: Callable[[TensorKeys, int, Scratch], Result],
) -> list[list[Result]]:
    """Return ``work(tensor, index, scratch)`` for every chunk of every tensor.

    On a CPU the chunks are shared among threads, as many as torch may use. Results do not depend
    on which thread took which chunk.
    """
    results: dict[tuple[int, int], Result] = {}

    def visit(chosen: list[int]) -> None:
        todo = deque((place, at) for place in chosen for at in range(len(tensors[place].chunks)))
        on_cpu = [tensors[place] for place in chosen if tensors[place].device.type == "cpu"]
        longest = max((each.chunks[0].stop for each in on_cpu if each.chunks), default=0)

        def take() -> None:
            scratch = Scratch(key_format, longest)
            while True:
                try:
                    place, at = todo.popleft()
                except IndexError:
                    return
                results[place, at] = work(tensors[place], at, scratch)

        count = min(torch.get_num_threads(), _MOST_THREADS, len(todo))
        if count < 2 or sum(each.size for each in on_cpu) < _MIN_SIZE_FOR_THREADS:
            return take()
        with ThreadPoolExecutor(count - 1) as pool:
            others = [pool.submit(take) for _ in range(count - 1)]
            take()
            for other in others:
                other.result()

    with ExitStack() as stack:
        ready = [place for place, each in enumerate(tensors) if not each.lazy]
        for place in ready:
            stack.enter_context(tensors[place].loaded())
        visit(ready)
    for place, each in enumerate(tensors):
        if each.lazy:
            with each.loaded():
                visit([place])
    return [
        [results[place, at] for at in range(len(each.chunks))] for place, each in enumerate(tensors)
    ]


def in_main_memory(pieces: Sequence[Any]) -> list[Any]:
    """Return arrays of numpy in place of 1-D tensors; one read for each device."""
    arrays, on_device = list(pieces), dict[torch.device, list[int]]()
    for place, piece in enumerate(pieces):
        if isinstance(piece, Tensor):
            on_device.setdefault(piece.device, []).append(place)
    for places in on_device.values():
        together = torch.cat([pieces[place] for place in places]).cpu()
        split = torch.split(together, [len(pieces[place]) for place in places])
        for place, piece in zip(places, split, strict=True):
            arrays[place] = piece.numpy()
    return arrays
