"""Pack the signs of a weight and its mask into bits, at most two per entry."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["check_signs", "joined_planes", "pack_signs", "planes_of", "unpack_signs"]

Bytes = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]
Plane = tuple[Bytes, int]


def pack_signs(signs: Tensor, mask: Tensor) -> Tensor:
    r"""Pack an entry's four states (pruned, +, −, survivor without a sign) into bits.

    For :math:`N` entries in row-major order, :math:`n` of them with a sign, the result consists of
    three planes of bits, each beginning at a new byte:

    1. for each of the :math:`N` entries, whether it has a sign;
    2. for each of the :math:`n` entries with a sign, whether it is negative;
    3. for each of the :math:`N - n` others, whether it survives. Left out if none does.

    That is :math:`N + n` bits (:math:`1 + \text{density}` per entry) if every survivor has a sign,
    and :math:`2N` otherwise. Bit :math:`k` of a plane is bit :math:`k \bmod 8`, counted from the
    least significant, of its byte :math:`\lfloor k / 8 \rfloor`; unused bits of the last byte
    are 0.

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
    return joined_planes([planes_of(signs, mask)])


def planes_of(signs: Tensor, mask: Tensor) -> list[Plane]:
    """Return the three planes of signs and their mask, each with its number of bits."""
    check_signs(signs, mask)
    values, survives = (each.cpu().numpy().reshape(-1) for each in (signs, mask))
    signed = values != 0
    bits = signed, values[signed] < 0, survives[~signed]
    return [(_pack(each), len(each)) for each in bits]


def joined_planes(pieces: Sequence[list[Plane]]) -> Tensor:
    """Return what :func:`pack_signs` does, from the planes of consecutive pieces."""
    joined = [_join(plane) for plane in zip(*pieces, strict=True)]
    if joined and not joined[-1].any():
        del joined[-1]
    return torch.from_numpy(np.concatenate([np.empty(0, dtype=np.uint8), *joined]))


def _join(planes: Sequence[Plane]) -> Bytes:
    """Return consecutive planes as one, without a gap in a byte between them."""
    joined: Bytes = np.zeros(_byte_count(sum(count for _, count in planes)) + 1, dtype=np.uint8)
    bit = 0
    for data, count in planes:
        byte, shift = divmod(bit, 8)
        joined[byte : byte + len(data)] |= data << shift
        joined[byte + 1 : byte + 1 + len(data)] |= data >> (8 - shift)
        bit += count
    return joined[:-1]


def unpack_signs(packed: Tensor, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Undo ``pack_signs``.

    Args:
        packed: uint8 tensor of one dimension.
        shape: shape of the tensors that were packed.

    Returns:
        The signs (int8) and the mask (bool), on the CPU.

    Raises:
        TypeError: if ``packed`` is not uint8.
        ValueError: if its length does not fit the shape, a bit after the end of a plane is set, or
            the third plane is there without a survivor: each signed mask has one packed form.

    Example:
        >>> import torch
        >>> signs, mask = unpack_signs(torch.tensor([0b10110, 0b10, 0b1], dtype=torch.uint8), (5,))
        >>> signs.tolist(), mask.tolist()
        ([0, 1, -1, 0, 1], [True, True, True, False, True])
    """
    if packed.dtype != torch.uint8:
        raise TypeError(f"packed has dtype {packed.dtype}, expected torch.uint8")
    if packed.dim() != 1:
        raise ValueError(f"packed has shape {tuple(packed.shape)}, expected one dimension")
    size = math.prod(shape)
    data: Bytes = packed.cpu().numpy().reshape(-1)
    first = _byte_count(size)
    signed = _unpack(data[:first], size)
    count = int(np.count_nonzero(signed))
    second, third = first + _byte_count(count), _byte_count(size - count)
    if len(data) not in (second, second + third):
        raise ValueError(
            f"packed holds {len(data)} bytes, expected {second} or {second + third} for {size} "
            f"entries, {count} of them with a sign"
        )
    signs, survives = signed.astype(np.int8), signed
    signs[signed] -= 2 * _unpack(data[first:second], count).view(np.int8)
    if len(data) > second:
        others = _unpack(data[second:], size - count)
        if not others.any():
            raise ValueError("packed has a third plane without a survivor, expected none")
        survives = signed.copy()
        survives[~signed] = others
    return torch.from_numpy(signs.reshape(shape)), torch.from_numpy(survives.reshape(shape))


def check_signs(signs: Tensor, mask: Tensor) -> None:
    """Raise unless ``signs`` are int8 in {−1, 0, +1} and 0 wherever the bool ``mask`` is False."""
    if signs.dtype != torch.int8:
        raise TypeError(f"signs has dtype {signs.dtype}, expected torch.int8")
    if mask.dtype != torch.bool:
        raise TypeError(f"mask has dtype {mask.dtype}, expected torch.bool")
    if signs.shape != mask.shape:
        raise ValueError(
            f"mask has shape {tuple(mask.shape)}, expected that of signs, {tuple(signs.shape)}"
        )
    if signs.numel() > 0:
        low, high = (int(end) for end in signs.aminmax())
        if low < -1 or high > 1:
            raise ValueError(f"signs holds values from {low} to {high}, expected -1, 0 and +1")
    if outside := int(((signs != 0) & ~mask).count_nonzero()):
        raise ValueError(f"signs holds {outside} signs outside the mask, expected 0 there")


def _byte_count(bits: int) -> int:
    """Return how many bytes hold this many bits."""
    return -(-bits // 8)


def _pack(bools: Bools) -> Bytes:
    """Return a plane, eight bools to a byte."""
    return np.packbits(bools, bitorder="little")


def _unpack(data: Bytes, count: int) -> Bools:
    """Return the ``count`` bools of a plane, after checking that no bit after them is set."""
    if len(data) == _byte_count(count) and count % 8 and data[-1] >> count % 8:
        raise ValueError(f"a bit after the last of {count} is set, expected 0")
    # A slice, because ``count=`` would allocate for any size that a damaged file states.
    return np.unpackbits(data, bitorder="little")[:count].view(np.bool_)
