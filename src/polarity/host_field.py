"""The entries of a tensor in main memory, ranked in cache-sized parts by numpy."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from polarity.key_fields import Bracket, Part, Space
from polarity.ordered_keys import Integers, Keys

__all__ = ["PART_BYTES", "HostField"]

# The keys of a part and two bools for each fit in a second-level cache.
PART_BYTES = 1 << 19

Bools = npt.NDArray[np.bool_]


class _Seen(NamedTuple):
    """What a scan saw of a part: enough to cut it anywhere in the bracket without another look."""

    low: int
    high: int
    below: npt.NDArray[np.uint8]  # which living entries, as bits
    places: npt.NDArray[np.int32]  # of what is inside the bracket
    keys: Integers  # of the same

    def kept(self, threshold: int, kept_ties: int, out: Bools) -> Bools:
        """Write to ``out`` what :meth:`HostField.kept` returns."""
        np.logical_not(np.unpackbits(self.below, count=out.size), out=out)
        out[np.compress(self.keys < threshold, self.places)] = False
        ties = np.compress(self.keys == threshold, self.places)
        out[ties[kept_ties:]] = False
        return out


class HostField:
    """A :class:`~polarity.key_fields.KeyField` on the CPU.

    Args:
        name: what to call it in an error.
        values: returns the entries, 1-D and contiguous, of any floating dtype, the same at each
            call; the result is not kept beyond a pass.
        alive: 1-D contiguous bool tensor of those that take part, or None for all.
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
        self.alive: Bools | None = None if alive is None else alive.numpy()
        self.living = size if self.alive is None else int(np.count_nonzero(self.alive))
        if self.living == size:
            self.alive = None  # one thing less to read
        length = PART_BYTES // keys.integer.itemsize
        self.parts = [slice(at, min(at + length, size)) for at in range(0, size, length)]
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
        self._held = self.keys.bits(values).numpy() if ready else values
        try:
            yield
        finally:
            self._held = None

    def sample(self, start: int, stride: int) -> Integers:
        """Return the keys of every ``stride``-th entry that lives."""
        with self.held():
            every = slice(start, None, stride)
            bits = self._bits(every)
        if self.alive is not None:
            bits = np.compress(self.alive[every], bits)
        return self.keys.of_array(bits, np.empty_like(bits))

    def scan(self, part: slice, bracket: Bracket, space: Space) -> Part:
        """Count a part, and collect what is inside the bracket."""
        keys = self._keys(part, space)
        alive = None if self.alive is None else self.alive[part]
        bad = self._bad(keys, alive)
        upto, inside = self._upto_and_inside(keys, alive, bracket, space)
        is_below = np.logical_xor(upto, inside, out=upto)
        below = int(np.count_nonzero(is_below))
        count = int(np.count_nonzero(inside))
        self._seen.pop(part.start, None)
        if bracket.low == bracket.high:
            return Part((below, count, 0, 0, bad), None)
        if count <= min(keys.size // 16, bracket.room):  # as it is, unless entries are tied
            # Threads may miscount the room in its favour only, so what fits is always collected.
            bracket.room -= count
            places = np.flatnonzero(inside)
            between = keys[places]
            self._seen[part.start] = _Seen(
                bracket.low,
                bracket.high,
                np.packbits(is_below),
                places.astype(np.int32),
                between,
            )
            return Part((below, 0, 0, count, bad), torch.from_numpy(between))
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
            between = torch.from_numpy(np.compress(inside, keys))
        return Part((below, at_low, at_high, count, bad), between)

    def histogram(self, part: slice, bracket: Bracket, shift: int, space: Space) -> Integers:
        """Count the living keys inside the bracket by ``(key >> shift) - (low >> shift)``."""
        keys = self._keys(part, space)
        alive = None if self.alive is None else self.alive[part]
        _, inside = self._upto_and_inside(keys, alive, bracket, space)
        first, last = bracket.low >> shift, bracket.high >> shift
        return np.bincount((np.compress(inside, keys) >> shift) - first, minlength=last - first + 1)

    def kept(self, part: slice, threshold: int, ties: int, kept_ties: int, space: Space) -> Bools:
        """Return which entries of a part stay, in the memory of ``space``.

        Those above the threshold, and of the ``ties`` living entries at it the first ``kept_ties``.
        What is not alive may be among them.
        """
        seen = self._seen.pop(part.start, None)
        if seen is not None and seen.low <= threshold <= seen.high:
            return seen.kept(threshold, kept_ties, space.first[: part.stop - part.start])
        keys = self._keys(part, space)
        kept = space.first[: keys.size]
        if kept_ties == ties:
            return np.greater_equal(keys, threshold, out=kept)
        np.greater(keys, threshold, out=kept)
        if kept_ties:
            tied = np.equal(keys, threshold, out=space.second[: keys.size])
            if self.alive is not None:
                tied &= self.alive[part]
            kept[np.flatnonzero(tied)[:kept_ties]] = True
        return kept

    def _bits(self, part: slice) -> Integers:
        assert self._held is not None
        here = self._held[part]
        bits: Integers = self.keys.bits(here).numpy() if isinstance(here, Tensor) else here
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
    def _upto_and_inside(
        keys: Integers, alive: Bools | None, bracket: Bracket, space: Space
    ) -> tuple[Bools, Bools]:
        """Return which living entries are up to the high edge, and which of them are inside."""
        upto = np.less_equal(keys, bracket.high, out=space.first[: keys.size])
        if alive is not None:
            np.logical_and(upto, alive, out=upto)
        inside = np.greater_equal(keys, bracket.low, out=space.second[: keys.size])
        return upto, np.logical_and(inside, upto, out=inside)
