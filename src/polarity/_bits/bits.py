"""Bools packed into the bits of bytes."""

import numpy as np
import numpy.typing as npt

__all__ = ["few_places"]


def few_places(packed: npt.NDArray[np.uint8], most: int) -> npt.NDArray[np.int32] | None:
    """Return the places of the set bits in order, or None if there are more than ``most``.

    Where few are set this is much faster than a search of bools: zero bytes are skipped.

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
