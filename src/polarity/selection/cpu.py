"""The entries of a tensor in main memory, ranked in cache-sized parts by numpy."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from polarity._bits.arrays import read_only
from polarity._bits.bits import few_places
from polarity.selection.keys import Integers, Keys
from polarity.selection.passes import Bracket, Part, Space

__all__ = ["PART_BYTES", "HostField"]

# The keys of a part and two bools for each fit in a second-level cache.
PART_BYTES = 1 << 19
# Threads wait for the interpreter at every operation: fewer and larger ones keep both busy.
_LARGER_FOR_THREADS = 4

Bools = npt.NDArray[np.bool_]


class _Seen(NamedTuple):
    """What a scan saw of a part: enough to cut it anywhere in the bracket without another look."""

    low: int
    high: int
    from_low: npt.NDArray[np.uint8]  # the living entries at the low edge and above, as bits
    places: npt.NDArray[np.int32]  # of what is inside the bracket
    keys: Integers  # of the same

    def kept(self, threshold: int, kept_ties: int, size: int) -> Bools:
        """Return what :meth:`HostField.kept` does."""
        kept: Bools = np.unpackbits(self.from_low, count=size, bitorder="little").view(bool)
        kept[self.places[self.keys < threshold]] = False
        kept[self.places[self.keys == threshold][kept_ties:]] = False
        return kept


class HostField:
    """A :class:`~polarity.selection.passes.KeyField` on the CPU.

    Args:
        name: what to call it in an error.
        values: returns the entries, 1-D and contiguous, of any floating dtype, the same at each
            call; the result is not kept beyond a pass.
        alive: 1-D contiguous tensor, nonzero for those that take part, or None for all.
        size: number of entries.
        keys: how entries become keys.
        lazy: whether calling ``values`` makes a copy.
    """

    def __init__(
        self,
        name: str,
        values: Callable[[], Tensor],
        alive: Tensor | None,
        size: int,
        keys: Keys,
        *,
        lazy: bool = False,
    ) -> None:
        self.name = name
        self.device = torch.device("cpu")
        self.keys = keys
        self.size = size
        # A float16 or bfloat16 mask is read by its bits: numpy compares those much faster.
        narrow = alive is not None and alive.itemsize == 2
        self._mask: Any = None
        if alive is not None:
            self._mask = read_only(alive.view(torch.int16) if narrow else alive)
        part_bytes = PART_BYTES * (_LARGER_FOR_THREADS if torch.get_num_threads() > 1 else 1)
        self._length = length = part_bytes // keys.integer.itemsize
        self.parts = [slice(at, min(at + length, size)) for at in range(0, size, length)]
        self.living_in = [part.stop - part.start for part in self.parts]
        if self._mask is not None and self.parts:
            held = np.empty(self.parts[0].stop, dtype=bool)
            self.living_in = [self._count(part, held) for part in self.parts]
        self.living = sum(self.living_in)
        if self.living == size:
            self._mask = None  # one thing less to read
        self.lazy = lazy
        self._values = values
        self._held: Tensor | Integers | None = None
        self._seen: dict[int, _Seen] = {}

    @contextmanager
    def held(self) -> Iterator[None]:
        """Compute the entries and keep them while the context lasts."""
        values = self._values().detach()
        # Narrower entries are widened part by part.
        ready = values.dtype == self.keys.dtype
        self._held = read_only(self.keys.bits(values)) if ready else values
        try:
            yield
        finally:
            self._held = None

    def live(self, part: slice, space: Space) -> Bools | None:
        """Return which entries of a part take part, perhaps in the memory of ``space``."""
        if self._mask is None:
            return None
        mask = self._mask[part]
        bools: Bools
        if mask.dtype == np.bool_:
            bools = mask
            return bools
        bools = np.not_equal(mask, 0, out=space.live[: mask.size])
        return bools

    def sample(self, start: int, stride: int) -> Integers:
        """Return the keys of every ``stride``-th entry that lives."""
        with self.held():
            every = slice(start, None, stride)
            bits = self._bits(every)
        if self._mask is not None:
            bits = np.compress(self._mask[every] != 0, bits)
        return self.keys.of_array(bits, np.empty_like(bits))

    def scan(self, part: slice, bracket: Bracket, space: Space) -> Part:
        """Count a part, and collect what is inside the bracket."""
        keys = self._keys(part, space)
        alive = self.live(part, space)
        bad = self._bad(keys, alive)
        from_low, above = self._from_low_and_above(keys, alive, bracket, space)
        living = self.living_in[part.start // self._length]
        below = living - int(np.count_nonzero(from_low))
        self._seen.pop(part.start, None)
        if bracket.low < bracket.high:
            bits = np.packbits(from_low, bitorder="little")
            inside_bits = bits & ~np.packbits(above, bitorder="little")
            places = few_places(inside_bits, keys.size // 16)
            if places is not None and places.size <= bracket.room:
                # Threads may miscount the room in its favour only: what fits is always collected.
                bracket.room -= places.size
                between = keys.take(places)
                self._seen[part.start] = _Seen(bracket.low, bracket.high, bits, places, between)
                return Part((below, 0, 0, places.size, bad), between)
        inside = np.greater(from_low, above, out=above)
        if bracket.low == bracket.high:
            return Part((below, int(np.count_nonzero(inside)), 0, 0, bad), None)
        return self._scan_ties(keys, inside, bracket, below, bad)

    def _scan_ties(
        self, keys: Integers, inside: Bools, bracket: Bracket, below: int, bad: int
    ) -> Part:
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
        return Part((below, at_low, at_high, count, bad), between)

    def histogram(self, part: slice, bracket: Bracket, shift: int, space: Space) -> Integers:
        """Count the living keys inside the bracket by ``(key >> shift) - (low >> shift)``."""
        keys = self._keys(part, space)
        alive = self.live(part, space)
        inside = np.greater(*self._from_low_and_above(keys, alive, bracket, space))
        first, last = bracket.low >> shift, bracket.high >> shift
        places = (np.compress(inside, keys) >> shift).astype(np.int64)  # 16 bits would overflow
        return np.bincount(places - first, minlength=last - first + 1)

    def kept(self, part: slice, threshold: int, ties: int, kept_ties: int, space: Space) -> Bools:
        """Return which entries of a part stay, perhaps in the memory of ``space``.

        The living ones above the threshold, and of the ``ties`` at it the first ``kept_ties``.
        """
        seen = self._seen.pop(part.start, None)
        if seen is not None and seen.low <= threshold <= seen.high:
            return seen.kept(threshold, kept_ties, part.stop - part.start)
        keys = self._keys(part, space)
        kept = space.first[: keys.size]
        compare = np.greater_equal if kept_ties == ties else np.greater
        compare(keys, threshold, out=kept)
        alive = self.live(part, space)
        if alive is not None:
            np.logical_and(kept, alive, out=kept)
        if 0 < kept_ties < ties:
            tied = np.equal(keys, threshold, out=space.second[: keys.size])
            if alive is not None:
                tied &= alive
            kept[np.flatnonzero(tied)[:kept_ties]] = True
        return kept

    def _count(self, part: slice, held: Bools) -> int:
        """Count the entries of a part that take part; numpy counts bools best."""
        mask = self._mask[part]
        if mask.dtype != np.bool_:
            mask = np.not_equal(mask, 0, out=held[: mask.size])
        return int(np.count_nonzero(mask))

    def _bits(self, part: slice) -> Integers:
        assert self._held is not None
        here = self._held[part]
        bits: Integers = read_only(self.keys.bits(here)) if isinstance(here, Tensor) else here
        return bits

    def _keys(self, part: slice, space: Space) -> Integers:
        bits = self._bits(part)
        return self.keys.of_array(bits, space.keys[: bits.size])

    def _bad(self, keys: Integers, alive: Bools | None) -> int:
        """Count living NaNs and infinities; only what is dead holds some in the common case."""
        infinity = self.keys.infinity
        if keys.max() < infinity and (not self.keys.signed or keys.min() > -infinity):
            return 0
        bad = keys >= infinity
        if self.keys.signed:
            bad |= keys <= -infinity
        return int(np.count_nonzero(bad if alive is None else bad & alive))

    @staticmethod
    def _from_low_and_above(
        keys: Integers, alive: Bools | None, bracket: Bracket, space: Space
    ) -> tuple[Bools, Bools]:
        """Return which living entries are at the low edge or above, and which are above both."""
        from_low = np.greater_equal(keys, bracket.low, out=space.first[: keys.size])
        if alive is not None:
            np.logical_and(from_low, alive, out=from_low)
        return from_low, np.greater(keys, bracket.high, out=space.second[: keys.size])
