"""The entries of a tensor on an accelerator, ranked in large parts by torch."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from polarity.selection.keys import Integers, Keys
from polarity.selection.passes import Bracket, Part, Space

__all__ = ["DeviceField"]

# Few launches, and temporaries of at most some 200 MiB.
PART_ENTRIES = 1 << 24


class DeviceField:
    """A :class:`~polarity.selection.passes.KeyField` on any device, for one where launches cost.

    What a pass counts stays on the device until all parts were visited. Nothing here is refused by
    ``torch.use_deterministic_algorithms``.

    Args:
        name: what to call it in an error.
        values: returns the entries, 1-D, of any floating dtype, the same at each call; the result
            is not kept beyond a pass.
        alive: 1-D tensor, nonzero for those that take part, or None for all.
        size: number of entries.
        keys: how entries become keys.
        device: where the entries are.
        lazy: whether calling ``values`` makes a copy.
    """

    def __init__(
        self,
        name: str,
        values: Callable[[], Tensor],
        alive: Tensor | None,
        size: int,
        keys: Keys,
        device: torch.device,
        *,
        lazy: bool = False,
    ) -> None:
        self.name = name
        self.device = device
        self.keys = keys
        self.size = size
        self._mask = alive
        self.parts = [
            slice(at, min(at + PART_ENTRIES, size)) for at in range(0, size, PART_ENTRIES)
        ]
        self.living_in = [part.stop - part.start for part in self.parts]
        if alive is not None and self.parts:
            counts = [alive[part].count_nonzero() for part in self.parts]
            self.living_in = torch.stack(counts).tolist()
        self.living = sum(self.living_in)
        self.lazy = lazy
        self._values = values
        self._held: Tensor | None = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Compute the entries and keep them while the context lasts."""
        self._held = self._values().detach()
        try:
            yield
        finally:
            self._held = None

    def live(self, part: slice, space: Space | None = None) -> Tensor | None:
        """Return which entries of a part take part, or None for all."""
        return None if self._mask is None else self._mask[part] != 0

    def sample(self, start: int, stride: int) -> Integers:
        """Return the keys of every ``stride``-th entry that lives."""
        every = slice(start, None, stride)
        with self.held():
            keys = self._keys(every)
        live = self.live(every)
        sampled: Integers = (keys if live is None else keys[live]).cpu().numpy()
        return sampled

    def scan(self, part: slice, bracket: Bracket, space: Space) -> Part:
        """Count a part, and collect what is inside the bracket."""
        keys = self._keys(part)
        alive = self.live(part)
        if alive is None:
            alive = torch.ones_like(keys, dtype=torch.bool)
        bad = ((keys.abs() >= self.keys.infinity) & alive).count_nonzero()
        below = ((keys < bracket.low) & alive).count_nonzero()
        at_low = ((keys == bracket.low) & alive).count_nonzero()
        if bracket.low == bracket.high:
            none = torch.zeros_like(bad)
            return Part(torch.stack((below, at_low, none, none, bad)), None)
        at_high = ((keys == bracket.high) & alive).count_nonzero()
        inside = (keys > bracket.low) & (keys < bracket.high) & alive
        count = inside.count_nonzero()
        between = None
        if int(count) <= bracket.room:
            between = keys[inside]
            bracket.room -= between.numel()
        return Part(torch.stack((below, at_low, at_high, count, bad)), between)

    def histogram(self, part: slice, bracket: Bracket, shift: int, space: Space) -> Integers:
        """Count the living keys inside the bracket by ``(key >> shift) - (low >> shift)``."""
        keys = self._keys(part)
        inside = (keys >= bracket.low) & (keys <= bracket.high)
        if (live := self.live(part)) is not None:
            inside &= live
        first, last = bracket.low >> shift, bracket.high >> shift
        places = (keys[inside] >> shift).long() - first
        counted: Integers = torch.bincount(places, minlength=last - first + 1).cpu().numpy()
        return counted

    def kept(self, part: slice, threshold: int, ties: int, kept_ties: int, space: Space) -> Tensor:
        """Return which entries of a part stay.

        The living ones above the threshold, and of the ``ties`` at it the first ``kept_ties``.
        """
        keys = self._keys(part)
        kept = keys >= threshold if kept_ties == ties else keys > threshold
        live = self.live(part)
        if live is not None:
            kept &= live
        if 0 < kept_ties < ties:
            tied = keys == threshold
            if live is not None:
                tied &= live
            kept[tied.nonzero().squeeze(1)[:kept_ties]] = True
        return kept

    def _keys(self, part: slice) -> Tensor:
        assert self._held is not None
        return self.keys.of_tensor(self.keys.bits(self._held[part]))
