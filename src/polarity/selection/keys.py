"""Floating-point numbers as integers of the same order, so that all dtypes rank alike."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from polarity._bits.arrays import INTEGER_OF

__all__ = ["Integers", "KeyFormat", "key_format_for"]

Integers: TypeAlias = npt.NDArray[np.signedinteger[Any]]


@dataclass(frozen=True)
class KeyFormat:
    r"""How numbers of one floating dtype become integers of the same order.

    The bits of a non-negative IEEE number, read as an integer, order as the number does, denormals
    included. With :math:`m` the bits without the sign the key is :math:`m` (``signed=False``, the
    order of magnitudes) or :math:`\pm m` by the sign (``signed=True``). Both zeros have key 0.

    Attributes:
        dtype: the floating dtype that everything is widened to; widening never changes an order.
        signed: whether a sign counts, or only the magnitude.
    """

    dtype: torch.dtype
    signed: bool

    @property
    def integer(self) -> torch.dtype:
        """The integer dtype of the same width."""
        return INTEGER_OF[self.dtype]

    @cached_property
    def infinity(self) -> int:
        """The key of infinity: every finite number's is below it, a NaN's magnitude above."""
        return int(torch.tensor(torch.inf, dtype=self.dtype, device="cpu").view(self.integer))

    @property
    def lowest(self) -> int:
        """The smallest key of a number that is not NaN."""
        return -self.infinity if self.signed else 0

    @property
    def not_live(self) -> int:
        """A key that no number has: the lowest integer of the width."""
        return int(torch.iinfo(self.integer).min)

    def bits(self, values: Tensor) -> Tensor:
        """Return the bits of a floating tensor: a view, or of a wider copy if it is narrower."""
        return values.to(self.dtype).view(self.integer)

    def of_array(self, bits: Integers, out: Integers) -> Integers:
        """Write the keys of numbers with these bits to ``out``, and return it."""
        np.bitwise_and(bits, np.iinfo(bits.dtype).max, out=out)
        if self.signed and bits.min(initial=0) < 0:  # most scores have no sign
            negative = bits >> (8 * bits.itemsize - 1)  # 0 or -1
            np.bitwise_xor(out, negative, out=out)
            np.subtract(out, negative, out=out)
        return out

    def of_tensor(self, bits: Tensor) -> Tensor:
        """Return the keys of numbers with these bits, on their device."""
        keys = bits & torch.iinfo(bits.dtype).max
        if self.signed:
            negative = bits >> (8 * bits.element_size() - 1)
            keys = (keys ^ negative) - negative
        return keys


def key_format_for(dtypes: Iterable[torch.dtype], *, signed: bool) -> KeyFormat:
    """Return the narrowest keys that hold numbers of all these floating dtypes.

    Example:
        >>> key_format_for([torch.float16, torch.bfloat16], signed=False).dtype
        torch.float32
    """
    kinds = set(dtypes)
    if len(kinds) == 1 and kinds <= set(INTEGER_OF):
        return KeyFormat(kinds.pop(), signed)
    return KeyFormat(torch.float64 if torch.float64 in kinds else torch.float32, signed)
