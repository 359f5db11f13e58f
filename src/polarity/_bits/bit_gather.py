"""Some bits of a field, moved together and back, without looking at each bit by itself."""

from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from polarity._bits.bit_packing import bits_in_each

__all__ = ["count_bits", "gather_bits", "look_up", "scatter_bits", "scatter_table", "share_bits"]

Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint64]
Lanes = npt.NDArray[Any]
Number = TypeVar("Number", bound=np.generic)

_WORD = np.dtype("<u8")
_PART = 1 << 16  # bytes looked up at a time: numpy makes an index of 8 bytes of each
_WIDTHS = (8, 16, 32)  # groups that are joined in pairs, up to those of 64


def count_bits(packed: Bytes) -> int:
    """Return how many bits are set.

    Example:
        >>> count_bits(np.array([0b101, 0b1], dtype=np.uint8))
        3
    """
    return int(bits_in_each(_words(packed)).sum(dtype=np.int64))


def gather_bits(packed: Bytes, where: Bytes) -> Bytes:
    """Return those bits of a field that stand where another field has ones, one behind the other.

    Bit ``k`` of a field is bit ``k % 8``, counted from the least significant, of byte ``k // 8``.

    Args:
        packed: the field.
        where: a field of the same length.

    Returns:
        As many bytes as it takes; what is left of the last is 0.

    Example:
        >>> bits, where = np.array([[0b0101_0011], [0b1111_0010]], dtype=np.uint8)
        >>> [f"{byte:05b}" for byte in gather_bits(bits, where)]
        ['01011']
    """
    value, chosen = _words(look_up(gather_table(), packed, where)), _words(where)
    for width in _WIDTHS:
        lanes = value.view(f"<u{width // 4}")
        upper = lanes >> width
        upper <<= _count_lower(chosen, width)
        lanes &= _ones(width)
        lanes |= upper
    place, shift, total = _places(chosen)
    result = np.zeros(total // 64 + 1, dtype=_WORD)
    if total:
        first = np.flatnonzero(np.diff(place, prepend=-1))
        result[place[first]] = np.bitwise_or.reduceat(value << shift, first)
        over = (value >> 1) >> (63 - shift)
        # At most one group of bits crosses the end of a word, so that no place comes twice.
        crossing = np.flatnonzero(over)
        result[place[crossing] + 1] |= over[crossing]
    return result.view(np.uint8)[: -(-total // 8)]


def scatter_bits(gathered: Bytes, where: Bytes) -> Bytes:
    """Undo :func:`gather_bits`: the field that has these bits where the other has ones, else 0.

    Args:
        gathered: the bits, at least as many as ``where`` has ones.
        where: a field.

    Returns:
        A field of that length.

    Example:
        >>> where = np.array([0b1111_0010], dtype=np.uint8)
        >>> [f"{byte:08b}" for byte in scatter_bits(np.array([0b01011], dtype=np.uint8), where)]
        ['01010010']
    """
    return look_up(scatter_table(), share_bits(gathered, where), where)


def share_bits(gathered: Bytes, where: Bytes) -> Bytes:
    """Give every byte of a field its own of the gathered bits, from bit 0 on.

    A byte of ``where`` with n ones gets n of them. What stands above these means nothing.

    Args:
        gathered: the bits, at least as many as ``where`` has ones.
        where: a field.

    Returns:
        As many bytes as ``where`` has.

    Example:
        >>> where = np.array([0b1111_0000, 0b0000_0010], dtype=np.uint8)
        >>> first, second = share_bits(np.array([0b1_0110], dtype=np.uint8), where)
        >>> f"{first & 0b1111:04b}", f"{second & 0b1:b}"
        ('0110', '1')
    """
    chosen = _words(where)
    place, shift, _ = _places(chosen)
    stream = np.zeros(gathered.size // 8 + 3, dtype=_WORD)
    stream.view(np.uint8)[: gathered.size] = gathered
    value: Words = stream[place] >> shift
    value |= (stream[place + 1] << 1) << (63 - shift)
    for width in reversed(_WIDTHS):
        lanes = value.view(f"<u{width // 4}")
        upper = lanes >> _count_lower(chosen, width)
        upper <<= width
        lanes &= _ones(width)
        lanes |= upper
    return value.view(np.uint8)[: where.size]


def look_up(table: npt.NDArray[Number], packed: Bytes, where: Bytes) -> npt.NDArray[Number]:
    """Return for each byte what a table holds at ``256 * packed + where``."""
    result = np.empty(packed.size, dtype=table.dtype)
    for begin in range(0, packed.size, _PART):
        part = slice(begin, begin + _PART)
        key = packed[part].astype(np.uint16)
        key <<= 8
        key |= where[part]
        result[part] = table.take(key)
    return result


@lru_cache
def gather_table() -> Bytes:
    """Return for :func:`look_up` the bits of one byte that another chooses, moved together."""
    bits, where, result, place = _all_pairs()
    for k in range(8):
        chosen = where >> k & 1
        result |= (bits >> k & chosen) << place
        place += chosen
    return result.reshape(-1)


@lru_cache
def scatter_table() -> Bytes:
    """Return for :func:`look_up` the lowest bits of one byte where another chooses."""
    bits, where, result, place = _all_pairs()
    for k in range(8):
        chosen = where >> k & 1
        result |= (bits >> place & chosen) << k
        place += chosen
    return result.reshape(-1)


def _all_pairs() -> tuple[Bytes, Bytes, Bytes, Bytes]:
    every = np.arange(256, dtype=np.uint8)
    return every[:, None], every, np.zeros((256, 256), np.uint8), np.zeros(256, np.uint8)


def _words(packed: Bytes) -> Words:
    """Return bytes as words of 64 bits, zeros behind them; a copy."""
    words = np.zeros(-(-packed.size // 8), dtype=_WORD)
    words.view(np.uint8)[: packed.size] = packed
    return words


def _ones(width: int) -> int:
    return (1 << width) - 1


def _count_lower(words: Words, width: int) -> Lanes:
    """Return how many bits are set in the lower of every two neighbours of ``width`` bits."""
    return bits_in_each(words.view(f"<u{width // 4}") & _ones(width))


def _places(chosen: Words) -> tuple[npt.NDArray[np.int64], Words, int]:
    """Return the word in which each group of bits begins, at which of its bits, and their total."""
    count = bits_in_each(chosen).view(np.int64)
    ends = np.cumsum(count)
    starts = ends - count
    return starts >> 6, (starts & 63).view(_WORD), int(ends[-1]) if ends.size else 0
