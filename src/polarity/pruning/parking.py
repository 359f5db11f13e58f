"""Set the values of pruned entries aside, part by part, in memory of just the right size."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor

from polarity._bits.bit_packing import few_places, pack_bits

__all__ = ["Parking"]


class Parking:
    """Room for the values of one weight that are about to be pruned.

    Args:
        bits: what is stored, 1-D: a numpy array or a tensor.
        parts: consecutive slices of it; all but the last begin and end at multiples of 8.
        gone: how many entries of each part will be pruned.
    """

    def __init__(self, bits: Any, parts: Sequence[slice], gone: Sequence[int]) -> None:
        self._starts = {
            part.start: start
            for part, start in zip(parts, accumulate(gone, initial=0), strict=False)
        }
        size, count = len(bits), sum(gone)
        self._where: Any
        self._values: Any
        if isinstance(bits, np.ndarray):
            self._where, self._values = (
                np.empty(-(-size // 8), np.uint8),
                np.empty(count, bits.dtype),
            )
        else:
            self._where = bits.new_empty(-(-size // 8), dtype=torch.uint8)
            self._values = bits.new_empty(count)

    def take(self, part: slice, bits: Any, gone: Any) -> None:
        """Copy the bits of a part where the bools ``gone`` are True."""
        start = self._starts[part.start]
        where = self._where[part.start // 8 : -(-part.stop // 8)]
        if isinstance(bits, np.ndarray):
            where[...] = np.packbits(gone, bitorder="little")
            places: Any = few_places(where, gone.size // 12)
            if places is None:
                places = np.flatnonzero(gone)
            # Unlike "raise", "clip" writes without a buffer in between.
            bits.take(places, out=self._values[start : start + places.size], mode="clip")
        else:
            where.copy_(pack_bits(gone))
            taken = bits[gone]
            self._values[start : start + taken.numel()] = taken

    def packed(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return which entries are held, as bits, and their values, of a floating dtype."""
        where, values = (
            torch.from_numpy(each) if isinstance(each, np.ndarray) else each
            for each in (self._where, self._values)
        )
        return where, values.view(dtype)
