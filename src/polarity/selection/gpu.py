"""The keys of a tensor on an accelerator, in large chunks and by torch."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from polarity._bits.arrays import chunks_of
from polarity.selection.keys import Integers, KeyFormat
from polarity.selection.passes import Bracket, ChunkScan, Scratch

__all__ = ["GpuKeys"]


class GpuKeys:
    """The :class:`~polarity.selection.passes.TensorKeys` of any device on which launches cost.

    Counts stay on the device until all chunks were visited. ``torch.use_deterministic_algorithms``
    refuses nothing that is used here.

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
        self.live_counts = [chunk.stop - chunk.start for chunk in self.chunks]
        if live is not None and self.chunks:
            counts = [live[chunk].count_nonzero() for chunk in self.chunks]
            self.live_counts = torch.stack(counts).tolist()
        self.live_count = sum(self.live_counts)
        self._mask = live
        self._format = key_format
        self._values = values
        self._loaded: Tensor | None = None

    @contextmanager
    def loaded(self) -> Iterator[None]:
        """Compute the entries, and keep them while the context lasts."""
        self._loaded = self._values().detach()
        try:
            yield
        finally:
            self._loaded = None

    def sample(self, start: int, stride: int) -> Integers:
        """Return the keys of the live ones among every ``stride``-th entry."""
        every = slice(start, None, stride)
        with self.loaded():
            keys = self._keys(every)
        sampled: Integers = keys[self._live(every, keys)].cpu().numpy()
        return sampled

    def scan(self, chunk: slice, bracket: Bracket, scratch: Scratch) -> ChunkScan:
        """Count a chunk, and collect what is inside the bracket."""
        keys = self._keys(chunk)
        live = self._live(chunk, keys)
        bad = ((keys.abs() >= self._format.infinity) & live).count_nonzero()
        below = ((keys < bracket.low) & live).count_nonzero()
        at_low = ((keys == bracket.low) & live).count_nonzero()
        if bracket.low == bracket.high:
            none = torch.zeros_like(bad)
            return ChunkScan(torch.stack((below, at_low, none, none, bad)), None)
        at_high = ((keys == bracket.high) & live).count_nonzero()
        inside = (keys > bracket.low) & (keys < bracket.high) & live
        counts = torch.stack((below, at_low, at_high, inside.count_nonzero(), bad))
        between = keys[inside]  # asks the device for its size, once
        if between.numel() > bracket.room:
            return ChunkScan(counts, None)
        bracket.room -= between.numel()
        return ChunkScan(counts, between)

    def histogram(self, chunk: slice, bracket: Bracket, shift: int, scratch: Scratch) -> Integers:
        """Count the live keys inside the bracket by ``(key >> shift) - (low >> shift)``."""
        keys = self._keys(chunk)
        inside = (keys >= bracket.low) & (keys <= bracket.high) & self._live(chunk, keys)
        first, last = bracket.low >> shift, bracket.high >> shift
        places = (keys[inside] >> shift).long() - first
        counted: Integers = torch.bincount(places, minlength=last - first + 1).cpu().numpy()
        return counted

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
            kept[tied.nonzero().squeeze(1)[:kept_ties]] = True
        return kept

    def _keys(self, chunk: slice) -> Tensor:
        assert self._loaded is not None
        return self._format.of_tensor(self._format.bits(self._loaded[chunk]))

    def _live(self, chunk: slice, keys: Tensor) -> Tensor:
        """Return which of these keys take part, as bools."""
        if self._mask is None:
            return torch.ones_like(keys, dtype=torch.bool)
        return self._mask[chunk] != 0
