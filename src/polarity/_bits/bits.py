"""A bool for each entry of a tensor, in little memory."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from polarity._bits.arrays import Array, array_of
from polarity._bits.bit_packing import bits_in_each, unpack_bits

__all__ = ["Bits"]

_WORD = 64
# So many ranks are looked for at a time.
_RANKS = 1 << 14


@dataclass(frozen=True)
class Bits:
    """Bools of one dimension: eight to a byte in main memory, as they are on an accelerator.

    The ``data`` of fields of one size and device can be combined with ``&``, ``|`` and ``^``: what
    fills the last word is zero.

    Attributes:
        size: how many.
        data: a numpy array of bytes, the first entry in the lowest bit, or a bool tensor.
    """

    size: int
    data: Array

    @classmethod
    def zeros(cls, size: int, device: torch.device) -> "Bits":
        """Return as many bools that are False."""
        if isinstance(array_of(torch.empty(0, device=device)), np.ndarray):
            return cls(size, np.zeros(-(-size // _WORD) * _WORD // 8, dtype=np.uint8))
        return cls(size, torch.zeros(size, dtype=torch.bool, device=device))

    def put(self, part: slice, bools: Array) -> None:
        """Set a slice; fastest if it begins and ends at a multiple of eight, or at the end.

        Example:
            >>> bits = Bits.zeros(5, torch.device("cpu"))
            >>> bits.put(slice(1, 3), np.array([True, True]))
            >>> bits.get(slice(0, 5)).tolist()
            [False, True, True, False, False]
        """
        data, start, stop = self.data, part.start, part.stop
        if not isinstance(data, np.ndarray):
            data[part] = torch.as_tensor(bools)
            return
        if start & 7 or (stop & 7 and stop < self.size):
            around = np.unpackbits(data[start >> 3 : (stop + 7) >> 3], bitorder="little")
            around[start & 7 : stop - (start & ~7)] = bools
            bools = around
        data[start >> 3 : (stop + 7) >> 3] = np.packbits(bools, bitorder="little")

    def put_packed(self, part: slice, packed: Tensor) -> None:
        """Set a slice that begins at a multiple of eight, from :func:`pack_bits`'s form."""
        whole = (part.stop - part.start) // 8
        if isinstance(self.data, Tensor):
            self.data[part] = unpack_bits(packed, part.stop - part.start)
            return
        self.data[part.start // 8 : part.start // 8 + whole] = packed[:whole].numpy()
        if rest := (part.stop - part.start) % 8:
            last = np.unpackbits(packed[whole:].numpy(), count=rest, bitorder="little")
            self.put(slice(part.stop - rest, part.stop), last)

    def get(self, part: slice) -> Array:
        """Return a slice as new bools, a numpy array or a tensor."""
        data, start, stop = self.data, part.start, part.stop
        if not isinstance(data, np.ndarray):
            return data[part].clone()
        packed, count = data[start >> 3 : (stop + 7) >> 3], stop - (start & ~7)
        return np.unpackbits(packed, count=count, bitorder="little").view(bool)[start & 7 :]

    def count(self) -> int:
        """Return how many are True."""
        if isinstance(self.data, Tensor):
            return int(self.data.count_nonzero())
        return int(self._counts().sum())

    def find(self, ranks: Array) -> Array:
        """Return the places of those that are True and have these ranks among them, from 0 on.

        Example:
            >>> bits = Bits.zeros(100, torch.device("cpu"))
            >>> bits.put(slice(88, 91), np.array([True, False, True]))
            >>> bits.find(np.array([0, 1])).tolist()
            [88, 90]
        """
        if isinstance(self.data, Tensor):
            return self.data.nonzero().squeeze(1)[torch.as_tensor(ranks)]
        counts = self._counts()
        upto = counts.cumsum(dtype=np.int64)
        found = [np.empty(0, dtype=np.int64)]
        for start in range(0, len(ranks), _RANKS):
            mine = ranks[start : start + _RANKS]
            words = upto.searchsorted(mine, side="right")
            within = mine - (upto[words] - counts[words])
            eight = self.data.reshape(-1, _WORD // 8)[words]
            bits = np.unpackbits(eight, axis=1, bitorder="little")
            # The first place with so many ones up to it.
            places = (bits.cumsum(1, dtype=np.uint8) > within[:, None]).argmax(1)
            found.append(words * _WORD + places)
        return np.concatenate(found)

    def flip(self, places: Array) -> None:
        """Turn those at different places."""
        if isinstance(self.data, Tensor):
            self.data[places] ^= True
        else:
            masks = (1 << (places & 7)).astype(np.uint8)
            np.bitwise_xor.at(self.data, places >> 3, masks)

    def to(self, device: torch.device) -> "Bits":
        """Return the same on a device."""
        everything = slice(0, self.size)
        here = self.data.device if isinstance(self.data, Tensor) else torch.device("cpu")
        if here == device:
            return self
        moved = Bits.zeros(self.size, device)
        moved.put(everything, array_of(torch.as_tensor(self.get(everything)).to(device)))
        return moved

    def _counts(self) -> Any:
        """Return how many are True in each word."""
        return bits_in_each(self.data.view(np.uint64)).view(np.int64)
