"""Some bits of a field, moved together and back, without looking at each bit by itself."""

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["count_bits", "gather_bits", "scatter_bits"]

Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint64]

_WORD = np.dtype("<u8")
_PART = 1 << 16  # bytes looked up at a time: numpy makes an index of 8 bytes of each
_WIDTHS = (8, 16, 32)  # groups that are joined in pairs, up to those of 64


def count_bits(packed: Bytes) -> int:
    """Return how many bits are set.

    Example:
        >>> count_bits(np.array([0b101, 0b1], dtype=np.uint8))
        3
    """
    return int(_counts(packed)[-1].sum())


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
    value, counts = _words(_looked_up(packed, where, back=False)), _counts(where)
    for width, held in zip(_WIDTHS, counts, strict=False):
        lanes = value.view(f"<u{width // 4}")
        upper = lanes >> width
        upper <<= _lower(held, width)
        lanes &= _ones(width)
        lanes |= upper
    ends = np.cumsum(counts[-1], dtype=np.int64)
    total = int(ends[-1]) if ends.size else 0
    result = np.zeros(total // 64 + 1, dtype=_WORD)
    if total:
        place, shift = _places(counts[-1], ends)
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
    counts = _counts(where)
    place, shift = _places(counts[-1], np.cumsum(counts[-1], dtype=np.int64))
    stream = np.zeros(gathered.size // 8 + 3, dtype=_WORD)
    stream.view(np.uint8)[: gathered.size] = gathered
    value = stream[place] >> shift
    value |= (stream[place + 1] << 1) << (63 - shift)
    # Bits behind those that belong to a group are carried along; the table does not look at them.
    for width, held in reversed(list(zip(_WIDTHS, counts, strict=False))):
        lanes = value.view(f"<u{width // 4}")
        upper = lanes >> _lower(held, width)
        upper <<= width
        lanes &= _ones(width)
        lanes |= upper
    return _looked_up(value.view(np.uint8)[: where.size], where, back=True)


def _words(packed: Bytes) -> Words:
    """Return bytes as words of 64 bits, zeros behind them; a copy."""
    words = np.zeros(-(-packed.size // 8), dtype=_WORD)
    words.view(np.uint8)[: packed.size] = packed
    return words


def _counts(packed: Bytes) -> list[Words]:
    """Return how many bits are set in every 8, 16, 32 and 64, in lanes as wide."""
    words = _words(packed)
    pairs = words - (words >> 1 & 0x5555555555555555)
    fours = (pairs & 0x3333333333333333) + (pairs >> 2 & 0x3333333333333333)
    counts = [fours + (fours >> 4) & 0x0F0F0F0F0F0F0F0F]
    for width in _WIDTHS:
        lower, upper = _lower(counts[-1], width), counts[-1].view(f"<u{width // 4}") >> width
        counts.append((lower + upper).view(_WORD))
    return counts


def _lower(words: Words, width: int) -> npt.NDArray[Any]:
    """Return the lower of every two neighbours of ``width`` bits, in lanes of twice that width."""
    return words.view(f"<u{width // 4}") & _ones(width)


def _ones(width: int) -> int:
    return (1 << width) - 1


def _places(count: Words, ends: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], Words]:
    """Return the word in which each group of bits begins, and at which of its bits."""
    starts = ends - count.view(np.int64)
    return starts >> 6, (starts & 63).view(_WORD)


def _looked_up(packed: Bytes, where: Bytes, back: bool) -> Bytes:
    """Gather or scatter the bits within every byte."""
    table, result = _table(back), np.empty_like(packed)
    for begin in range(0, packed.size, _PART):
        part = slice(begin, begin + _PART)
        key = packed[part].astype(np.uint16)
        key <<= 8
        key |= where[part]
        result[part] = table.take(key)
    return result


@lru_cache
def _table(back: bool) -> Bytes:
    """Return what becomes of every byte (of which 256 times) at every choice of bits."""
    bits, where = np.arange(256, dtype=np.uint8)[:, None], np.arange(256, dtype=np.uint8)
    result = np.zeros((256, 256), dtype=np.uint8)
    place = np.zeros(256, dtype=np.uint8)
    for k in range(8):
        chosen = where >> k & 1
        result |= (bits >> place & chosen) << k if back else (bits >> k & chosen) << place
        place += chosen
    return result.reshape(-1)
