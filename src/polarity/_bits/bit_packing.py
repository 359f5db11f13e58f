"""Bools at eight to a byte, on any device."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["bits_in_each", "few_places", "pack_bits", "unpack_bits"]


def pack_bits(bools: Tensor) -> Tensor:
    """Return a 1-D bool tensor as uint8, entry ``i`` in bit ``i % 8`` of byte ``i // 8``.

    Bit 0 is the least significant. What is left of the last byte is 0.

    Example:
        >>> import torch
        >>> pack_bits(torch.tensor([True, False, True]))
        tensor([5], dtype=torch.uint8)
    """
    padded = torch.nn.functional.pad(bools.view(torch.uint8), (0, -bools.numel() % 8))
    shifts = torch.arange(8, dtype=torch.uint8, device=bools.device)
    return (padded.view(-1, 8) << shifts).sum(1, dtype=torch.uint8)


def unpack_bits(packed: Tensor, size: int) -> Tensor:
    """Undo :func:`pack_bits` for a tensor of ``size`` entries.

    Example:
        >>> import torch
        >>> unpack_bits(torch.tensor([5], dtype=torch.uint8), 3)
        tensor([ True, False,  True])
    """
    shifts = torch.arange(8, dtype=torch.uint8, device=packed.device)
    return ((packed.unsqueeze(1) >> shifts) & 1).flatten()[:size].bool()


def few_places(packed: npt.NDArray[np.uint8], most: int) -> npt.NDArray[np.int32] | None:
    """Return the places of the set bits in order, or None if they are more than ``most``.

    Much faster than looking at every bool where few are True: bytes that are zero are passed over.

    Example:
        >>> few_places(np.array([0, 5], dtype=np.uint8), 2).tolist()
        [8, 10]
    """
    at = np.flatnonzero(packed != 0)
    if at.size > most:
        return None
    bits = np.unpackbits(packed.take(at), bitorder="little").view(np.bool_)
    set_bits = np.flatnonzero(bits)
    if set_bits.size > most:
        return None
    at <<= 3
    return (at.take(set_bits >> 3) + (set_bits & 7)).astype(np.int32)


def bits_in_each(lanes: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return how many bits are set in each unsigned number, in numbers as wide.

    Example:
        >>> bits_in_each(np.array([0, 255], dtype=np.uint64)).tolist()
        [0, 8]
    """
    counted: npt.NDArray[Any]
    if hasattr(np, "bitwise_count"):  # numpy 2
        counted = np.bitwise_count(lanes).astype(lanes.dtype)
        return counted
    width = 8 * lanes.dtype.itemsize
    odd, pair, low, ones = (((1 << width) - 1) // n for n in (3, 5, 17, 255))
    pairs = lanes - (lanes >> 1 & odd)
    fours = (pairs & pair) + (pairs >> 2 & pair)
    counted = (fours + (fours >> 4) & low) * ones >> width - 8
    return counted
