"""The keys of a tensor in main memory, in cache-sized chunks and by numpy."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from polarity._bits.arrays import read_only
from polarity._bits.bits import few_places
from polarity.selection.keys import Integers, KeyFormat
from polarity.selection.passes import Bracket, ChunkScan, Scratch

__all__ = ["CHUNK_BYTES", "CpuKeys"]

# The keys of a chunk and two bools for each fit in a second-level cache.
CHUNK_BYTES = 1 << 19
# Threads wait for the interpreter at every operation: fewer and larger ones keep both busy.
_LARGER_FOR_THREADS = 4
# Numpy compares a mask of zeros and ones fastest by its bits where its numbers are this narrow.
_MASK_BITS = {1: torch.uint8, 2: torch.int16}

Bools = npt.NDArray[np.bool_]


class _Collected(NamedTuple):
    """What a scan collects of a chunk: enough to cut it anywhere in the bracket."""

    low: int
    high: int
    from_low: npt.NDArray[np.uint8]  # the live entries at the low edge and above, as bits
    places: npt.NDArray[np.int32]  # where the entries inside the bracket are
    keys: Integers  # and their keys

    def kept(self, threshold: int, kept_ties: int, size: int) -> Bools:
        """Return what :meth:`CpuKeys.kept` does."""
        kept: Bools = np.unpackbits(self.from_low, count=size, bitorder="little").view(bool)
        kept[self.places[self.keys < threshold]] = False
        kept[self.places[self.keys == threshold][kept_ties:]] = False
        return kept


class _Gathered(NamedTuple):
    """The live entries of a chunk: where they are, None for everywhere, and their keys."""

    places: npt.NDArray[np.intp] | None
    keys: Integers

    def kept(self, threshold: int, ties: int, kept_ties: int, size: int) -> Bools:
        """Return what :meth:`CpuKeys.kept` does."""
        stays: Bools = self.keys >= threshold if kept_ties == ties else self.keys > threshold
        if 0 < kept_ties < ties:
            stays[np.flatnonzero(self.keys == threshold)[:kept_ties]] = True
        if self.places is None:
            return stays
        kept = np.zeros(size, dtype=bool)
        kept[self.places] = stays
        return kept


class CpuKeys:
    """The :class:`~polarity.selection.passes.TensorKeys` of a CPU.

    Args:
        name: what to call the tensor in an error.
        values: returns the entries, 1-D and contiguous, of any floating dtype, the same at each
            call; the result is not kept beyond a pass.
        live: 1-D contiguous tensor, nonzero for those that take part, or None for all.
        size: number of entries.
        key_format: how entries become keys.
        lazy: whether calling ``values`` makes a copy.
    """

    def __init__(
        self,
        name: str,
        values: Callable[[], Tensor],
        live: Tensor | None,
        size: int,
        key_format: KeyFormat,
        *,
        lazy: bool = False,
    ) -> None:
        self.name = name
        self.device = torch.device("cpu")
        self.size = size
        self.lazy = lazy
        chunk_bytes = CHUNK_BYTES * (_LARGER_FOR_THREADS if torch.get_num_threads() > 1 else 1)
        self._length = length = chunk_bytes // key_format.integer.itemsize
        self.chunks = [slice(at, min(at + length, size)) for at in range(0, size, length)]
        self.live_counts = [chunk.stop - chunk.start for chunk in self.chunks]
        self._mask: Any = None
        if live is not None:
            mask = read_only(live.view(_MASK_BITS.get(live.itemsize, live.dtype)))
            self.live_counts = [int(np.count_nonzero(mask[chunk] != 0)) for chunk in self.chunks]
            # A mask of all ones is one thing less to read.
            self._mask = mask if sum(self.live_counts) < size else None
        self.live_count = sum(self.live_counts)
        self._format = key_format
        self._values = values
        self._loaded: Tensor | Integers | None = None
        self._collected: dict[int, _Collected | _Gathered] = {}

    @contextmanager
    def loaded(self) -> Iterator[None]:
        """Compute the entries, and keep them while the context lasts."""
        values = self._values().detach()
        # Narrower entries are widened chunk by chunk.
        ready = values.dtype == self._format.dtype
        self._loaded = read_only(self._format.bits(values)) if ready else values
        try:
            yield
        finally:
            self._loaded = None

    def sample(self, start: int, stride: int) -> Integers:
        """Return the keys of the live ones among every ``stride``-th entry."""
        with self.loaded():
            return self._gather(slice(start, None, stride)).keys

    def gather_all(self) -> list[Integers]:
        """Return the keys of the live entries of each chunk, in order."""
        with self.loaded():
            self._collected = {chunk.start: self._gather(chunk) for chunk in self.chunks}
        return [each.keys for each in self._collected.values()]

    def _gather(self, which: slice) -> _Gathered:
        bits, places = self._bits(which), None
        if self._mask is not None:
            places = np.flatnonzero(self._mask[which] != 0)
            bits = bits.take(places)
        return _Gathered(places, self._format.of_array(bits, np.empty_like(bits)))

    def scan(self, chunk: slice, bracket: Bracket, scratch: Scratch) -> ChunkScan:
        """Count a chunk, and collect what is inside the bracket."""
        keys = self._keys(chunk, scratch)
        bad = self._bad(keys, chunk, scratch)
        from_low, above = self._from_low_and_above(keys, chunk, bracket, scratch)
        live = self.live_counts[chunk.start // self._length]
        below = live - int(np.count_nonzero(from_low))
        self._collected.pop(chunk.start, None)
        if bracket.low < bracket.high:
            bits = np.packbits(from_low, bitorder="little")
            inside_bits = bits & ~np.packbits(above, bitorder="little")
            places = few_places(inside_bits, keys.size // 16)
            if places is not None and places.size <= bracket.room:
                # Threads may miscount the room in its favour only: what fits is always collected.
                bracket.room -= places.size
                inner = keys.take(places)
                collected = _Collected(bracket.low, bracket.high, bits, places, inner)
                self._collected[chunk.start] = collected
                return ChunkScan((below, 0, 0, places.size, bad), inner)
        inside = np.greater(from_low, above, out=above)
        if bracket.low == bracket.high:
            return ChunkScan((below, int(np.count_nonzero(inside)), 0, 0, bad), None)
        return self._scan_ties(keys, inside, bracket, below, bad)

    def _scan_ties(
        self, keys: Integers, inside: Bools, bracket: Bracket, below: int, bad: int
    ) -> ChunkScan:
        """Count entries at the edges of the bracket apart, and collect the others inside it."""
        at_edge = np.logical_and(inside, keys == bracket.low)
        at_low = int(np.count_nonzero(at_edge))
        np.logical_xor(inside, at_edge, out=inside)
        np.logical_and(inside, keys == bracket.high, out=at_edge)
        at_high = int(np.count_nonzero(at_edge))
        np.logical_xor(inside, at_edge, out=inside)
        count = int(np.count_nonzero(inside))
        between = None
        if 0 < count <= bracket.room:
            bracket.room -= count
            between = np.compress(inside, keys)
        return ChunkScan((below, at_low, at_high, count, bad), between)

    def histogram(self, chunk: slice, bracket: Bracket, shift: int, scratch: Scratch) -> Integers:
        """Count the live keys inside the bracket by ``(key >> shift) - (low >> shift)``."""
        keys = self._keys(chunk, scratch)
        inside = np.greater(*self._from_low_and_above(keys, chunk, bracket, scratch))
        first, last = bracket.low >> shift, bracket.high >> shift
        places = (np.compress(inside, keys) >> shift).astype(np.int64)  # 16 bits would overflow
        return np.bincount(places - first, minlength=last - first + 1)

    def kept(
        self, chunk: slice, threshold: int, ties: int, kept_ties: int, scratch: Scratch
    ) -> Bools:
        """Return which entries of a chunk stay, perhaps in the memory of ``scratch``.

        The live ones above the threshold, and the first ``kept_ties`` of the ``ties`` at it.
        """
        collected = self._collected.pop(chunk.start, None)
        size = chunk.stop - chunk.start
        if isinstance(collected, _Gathered):
            return collected.kept(threshold, ties, kept_ties, size)
        if collected is not None and collected.low <= threshold <= collected.high:
            return collected.kept(threshold, kept_ties, size)
        keys = self._keys(chunk, scratch)
        kept = scratch.first[: keys.size]
        compare = np.greater_equal if kept_ties == ties else np.greater
        self._clear_pruned(compare(keys, threshold, out=kept), chunk, scratch)
        if 0 < kept_ties < ties:
            tied = np.equal(keys, threshold, out=scratch.second[: keys.size])
            self._clear_pruned(tied, chunk, scratch)
            kept[np.flatnonzero(tied)[:kept_ties]] = True
        return kept

    def _bits(self, chunk: slice) -> Integers:
        assert self._loaded is not None
        here = self._loaded[chunk]
        bits: Integers = read_only(self._format.bits(here)) if isinstance(here, Tensor) else here
        return bits

    def _keys(self, chunk: slice, scratch: Scratch) -> Integers:
        bits = self._bits(chunk)
        return self._format.of_array(bits, scratch.keys[: bits.size])

    def _clear_pruned(self, bools: Bools, chunk: slice, scratch: Scratch) -> None:
        """Set to False what is not live in a chunk, in place."""
        if self._mask is not None:
            live = np.not_equal(self._mask[chunk], 0, out=scratch.live[: bools.size])
            np.logical_and(bools, live, out=bools)

    def _bad(self, keys: Integers, chunk: slice, scratch: Scratch) -> int:
        """Count live NaNs and infinities; where a chunk holds none, by its extremes alone."""
        infinity = self._format.infinity
        if keys.max() < infinity and (not self._format.signed or keys.min() > -infinity):
            return 0
        bad = np.abs(keys) >= infinity
        self._clear_pruned(bad, chunk, scratch)
        return int(np.count_nonzero(bad))

    def _from_low_and_above(
        self, keys: Integers, chunk: slice, bracket: Bracket, scratch: Scratch
    ) -> tuple[Bools, Bools]:
        """Return which live entries are at the low edge or above, and which entries above both."""
        from_low = np.greater_equal(keys, bracket.low, out=scratch.first[: keys.size])
        self._clear_pruned(from_low, chunk, scratch)
        return from_low, np.greater(keys, bracket.high, out=scratch.second[: keys.size])
