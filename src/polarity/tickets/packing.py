"""A field of signs under a mask as bits: never more than two per entry."""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from polarity._bits.bit_gather import (
    count_bits,
    gather_bits,
    look_up,
    scatter_bits,
    scatter_table,
    share_bits,
)

__all__ = ["check_signs", "pack_signs", "unpack_signs"]

Bytes = npt.NDArray[np.uint8]


def pack_signs(signs: Tensor, mask: Tensor) -> Tensor:
    r"""Pack an entry's four states (pruned, +, −, survivor without a sign) into bits.

    With :math:`N` entries of which :math:`n` have a sign, in row-major order, three planes of bits
    follow each other, each beginning at a new byte:

    1. for each of the :math:`N` entries, whether it has a sign;
    2. for each of the :math:`n` that have one, whether it is negative;
    3. for each of the :math:`N - n` others, whether it survives. Left out if none does.

    That is :math:`N + n` bits (:math:`1 + \text{density}` per entry) where every survivor has a
    sign, and :math:`2N` in every other case. Bit :math:`k` of a plane is bit :math:`k \bmod 8`,
    counted from the least significant, of its byte :math:`\lfloor k / 8 \rfloor`; what is left of
    the last byte is 0.

    Args:
        signs: int8 tensor of −1, 0 and +1, of any shape, on any device.
        mask: bool tensor of that shape, True for survivors.

    Returns:
        A uint8 tensor of one dimension, on the CPU.

    Raises:
        TypeError: if ``signs`` is not int8 or ``mask`` not bool.
        ValueError: if the shapes differ, ``signs`` holds another value, or a pruned entry has one.

    Example:
        >>> import torch
        >>> signs = torch.tensor([0, 1, -1, 0, 1], dtype=torch.int8)
        >>> [f"{byte:08b}" for byte in pack_signs(signs, signs != 0)]
        ['00010110', '00000010']
        >>> [f"{byte:08b}" for byte in pack_signs(signs, torch.tensor([1, 1, 1, 0, 1]) != 0)]
        ['00010110', '00000010', '00000001']
    """
    signed, lives = _checked(signs, mask)
    negative = np.packbits(signs.cpu().numpy().reshape(-1) < 0, bitorder="little")
    planes = [signed, gather_bits(negative, signed)]
    if not np.array_equal(signed, lives):
        rest = signs.numel() - count_bits(signed)
        planes.append(gather_bits(lives, ~signed)[: _byte_count(rest)])
    return torch.from_numpy(np.concatenate(planes))


def unpack_signs(packed: Tensor, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Undo :func:`pack_signs`.

    Args:
        packed: uint8 tensor of one dimension.
        shape: shape of the tensors that were packed.

    Returns:
        The signs (int8) and the mask (bool), on the CPU.

    Raises:
        TypeError: if ``packed`` is not uint8.
        ValueError: if its length is not one that the shape can have, or a bit behind the end of a
            plane is set.

    Example:
        >>> import torch
        >>> signs, mask = unpack_signs(torch.tensor([0b10110, 0b10, 0b1], dtype=torch.uint8), (5,))
        >>> signs.tolist(), mask.tolist()
        ([0, 1, -1, 0, 1], [True, True, True, False, True])
    """
    if packed.dtype != torch.uint8:
        raise TypeError(f"packed is of dtype {packed.dtype}, expected torch.uint8")
    size = math.prod(shape)
    data: Bytes = packed.cpu().numpy().reshape(-1)
    first = _byte_count(size)
    signed = _plane(data[:first], size)
    count = count_bits(signed)
    # Checked before anything of the shape's size is allocated: the shape comes from a file.
    second, third = first + _byte_count(count), _byte_count(size - count)
    if len(data) not in (second, second + third):
        raise ValueError(
            f"packed holds {len(data)} bytes, expected {second} or {second + third} for {size} "
            f"entries of which {count} have a sign"
        )
    groups = share_bits(_plane(data[first:second], count), signed)
    signs = look_up(_sign_table(), groups, signed).view(np.int8)[:size]
    lives = signed
    if len(data) > second:
        lives = signed | scatter_bits(_plane(data[second:], size - count), ~signed)
    mask = np.unpackbits(lives, count=size, bitorder="little").view(np.bool_)
    return torch.from_numpy(signs.reshape(shape)), torch.from_numpy(mask.reshape(shape))


def check_signs(signs: Tensor, mask: Tensor) -> None:
    """Raise unless ``signs`` are int8 in {−1, 0, +1} and 0 wherever the bool ``mask`` is False."""
    _checked(signs, mask)


def _checked(signs: Tensor, mask: Tensor) -> tuple[Bytes, Bytes]:
    """Return which entries have a sign and which live, as bits, if all is as it should be."""
    if signs.dtype != torch.int8:
        raise TypeError(f"signs are of dtype {signs.dtype}, expected torch.int8")
    if mask.dtype != torch.bool:
        raise TypeError(f"the mask is of dtype {mask.dtype}, expected torch.bool")
    if signs.shape != mask.shape:
        raise ValueError(
            f"the mask has shape {tuple(mask.shape)}, expected the signs' {tuple(signs.shape)}"
        )
    if signs.numel() > 0:
        low, high = (int(end) for end in signs.aminmax())
        if low < -1 or high > 1:
            raise ValueError(f"signs range from {low} to {high}, expected -1, 0 and +1")
    signed, lives = (
        np.packbits(each.cpu().numpy().reshape(-1), bitorder="little") for each in (signs, mask)
    )
    if astray := count_bits(signed & ~lives):
        raise ValueError(f"{astray} entries outside the mask have a sign, expected 0 there")
    return signed, lives


def _byte_count(bits: int) -> int:
    return -(-bits // 8)


def _plane(data: Bytes, count: int) -> Bytes:
    """Return the bytes of a plane of ``count`` bits, if nothing is set behind the last."""
    if count % 8 and len(data) == _byte_count(count) and data[-1] >> count % 8:
        raise ValueError(f"a bit behind the last of {count} is set, expected 0")
    return data


@lru_cache
def _sign_table() -> npt.NDArray[np.uint64]:
    """Return 8 signs for every 8 bits that say which entries have one, and those of the minus."""
    signed = np.tile(np.arange(256, dtype=np.uint8), 256)
    one, minus = (
        np.unpackbits(bits, bitorder="little").view(np.int8) for bits in (signed, scatter_table())
    )
    return (one - 2 * minus).view(np.uint64)
