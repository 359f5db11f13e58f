"""The keys of a tensor on an accelerator, in large chunks and by torch."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from polarity._bits.arrays import chunks_of
from polarity.selection.keys import KeyFormat
from polarity.selection.passes import Bracket, ChunkScan, Scratch, TensorKeys, in_main_memory

__all__ = ["GpuKeys", "count_live"]


class GpuKeys:
    """The :class:`~polarity.selection.passes.TensorKeys` of any device on which launches cost.

    No method waits for the device: what it counts stays there until it was counted in all tensors,
    and is read at once. What is collected has a size that was read before. Nothing that is used
    here is refused by ``torch.use_deterministic_algorithms``.

    Args:
        name: what to call the tensor in an error.
        values: returns the entries, 1-D, of any floating dtype, the same at each call; the result
            is not kept beyond a pass.
        live: 1-D tensor, nonzero for those that take part, or None for all.
        size: number of entries.
        key_format: how entries become keys.
        device: where the entries are.
        lazy: whether calling ``values`` makes a copy.
    """

    def __init__(
        self,
        name: str,
        values: Callable[[], Tensor],
        live: Tensor | None,
        size: int,
        key_format: KeyFormat,
        device: torch.device,
        *,
        lazy: bool = False,
    ) -> None:
        self.name = name
        self.device = device
        self.size = size
        self.lazy = lazy
        self.chunks = list(chunks_of(size, device))
        self._live_count = size if live is None or size == 0 else None
        self._mask = live
        self._format = key_format
        self._values = values
        self._loaded: Tensor | None = None

    @property
    def live_count(self) -> int:
        """The number of live entries; :func:`count_live` reads those of many tensors at once."""
        if self._live_count is None:
            count_live([self])
        assert self._live_count is not None
        return self._live_count

    @contextmanager
    def loaded(self) -> Iterator[None]:
        """Compute the entries, and keep them while the context lasts."""
        self._loaded = self._values().detach()
        try:
            yield
        finally:
            self._loaded = None

    def sample(self, start: int, stride: int) -> Tensor:
        """Return the keys of every ``stride``-th entry, ``not_live`` for those that are not."""
        every = slice(start, None, stride)
        with self.loaded():
            keys = self._keys(every)
        return keys.masked_fill(~self._live(every, keys), self._format.not_live)

    def scan(self, chunk: slice, bracket: Bracket, scratch: Scratch) -> ChunkScan:
        """Count a chunk; :meth:`collect` collects what is inside the bracket."""
        keys = self._keys(chunk)
        live = self._live(chunk, keys)
        bad = ((keys.abs() >= self._format.infinity) & live).count_nonzero()
        below = ((keys < bracket.low) & live).count_nonzero()
        at_low = ((keys == bracket.low) & live).count_nonzero()
        if bracket.low == bracket.high:
            none = torch.zeros_like(bad)
            return ChunkScan(torch.stack((below, at_low, none, none, bad)), None)
        at_high = ((keys == bracket.high) & live).count_nonzero()
        inside = self._inside(keys, live, bracket).count_nonzero()
        return ChunkScan(torch.stack((below, at_low, at_high, inside, bad)), None)

    def collect(self, chunk: slice, bracket: Bracket, count: int) -> Tensor:
        """Return the live keys of a chunk between the edges, of which there are ``count``."""
        keys = self._keys(chunk)
        inside = self._inside(keys, self._live(chunk, keys), bracket)
        return keys[torch.nonzero_static(inside, size=count).squeeze(1)]

    def histogram(self, chunk: slice, bracket: Bracket, shift: int, scratch: Scratch) -> Tensor:
        """Count the live keys inside the bracket by ``(key >> shift) - (low >> shift)``."""
        keys = self._keys(chunk)
        inside = (keys >= bracket.low) & (keys <= bracket.high) & self._live(chunk, keys)
        first, last = bracket.low >> shift, bracket.high >> shift
        # torch.bincount reads the largest; what is outside goes to a place of its own, the last.
        places = ((keys >> shift).long() - first).masked_fill_(~inside, last - first + 1)
        heights = places.new_zeros(last - first + 2)
        return heights.scatter_add_(0, places, heights.new_ones(1).expand_as(places))[:-1]

    def kept(
        self, chunk: slice, threshold: int, ties: int, kept_ties: int, scratch: Scratch
    ) -> Tensor:
        """Return which entries of a chunk stay.

        The live ones above the threshold, and the first ``kept_ties`` of the ``ties`` at it.
        """
        keys = self._keys(chunk)
        live = self._live(chunk, keys)
        kept = live & (keys >= threshold if kept_ties == ties else keys > threshold)
        if 0 < kept_ties < ties:
            tied = live & (keys == threshold)
            kept |= tied & (tied.cumsum(0, dtype=torch.int32) <= kept_ties)
        return kept

    def _inside(self, keys: Tensor, live: Tensor, bracket: Bracket) -> Tensor:
        """Return which keys are live and between the edges, neither included."""
        return (keys > bracket.low) & (keys < bracket.high) & live

    def _keys(self, chunk: slice) -> Tensor:
        assert self._loaded is not None
        return self._format.of_tensor(self._format.bits(self._loaded[chunk]))

    def _live(self, chunk: slice, keys: Tensor) -> Tensor:
        """Return which of these keys take part, as bools."""
        if self._mask is None:
            return torch.ones_like(keys, dtype=torch.bool)
        return self._mask[chunk] != 0

    def _count_live(self) -> Tensor:
        """Count the live entries, and leave the number on the device."""
        assert self._mask is not None
        counts = [self._mask[chunk].count_nonzero() for chunk in self.chunks]
        return torch.stack(counts).sum().reshape(1)


def count_live(tensors: Sequence[TensorKeys]) -> None:
    """Read the numbers of live entries of several tensors at once, where they are not known."""
    unread = [each for each in tensors if isinstance(each, GpuKeys) and each._live_count is None]
    counts = in_main_memory([each._count_live() for each in unread])
    for each, count in zip(unread, counts, strict=True):
        each._live_count = int(count[0])
