"""The standard deviation of a tensor that is read in parts."""

import math

import torch
from torch import Tensor

__all__ = ["Deviation"]


class Deviation:
    r"""Population standard deviation of all parts together, in float64.

    With :math:`d_i = x_i - x_0` from the first entry it is
    :math:`\sqrt{(\sum d_i^2 - (\sum d_i)^2 / n) / n}`. An origin among the data keeps that from
    cancelling, and all :math:`d_i` of a constant tensor are exactly zero.

    Args:
        origin: the first entry, a number.
        length: the number of entries of the longest part.
        device: where the parts are.

    Example:
        >>> numbers = torch.tensor([3.0, -1.0, 1.0, 101.0])
        >>> deviation = Deviation(float(numbers[0]), 2, numbers.device)
        >>> for part in numbers.split(2):
        ...     deviation.add(part)
        >>> deviation.value() == float(numbers.double().std(correction=0))
        True
    """

    def __init__(self, origin: float, length: int, device: torch.device) -> None:
        self._origin = origin
        self._wide = torch.empty(length, dtype=torch.float64, device=device)
        self._sums = torch.zeros(2, dtype=torch.float64, device=device)
        self._count = 0

    def add(self, part: Tensor) -> None:
        """Take a part of one dimension."""
        wide = self._wide[: part.numel()].copy_(part).sub_(self._origin)
        self._sums[0] += wide.sum()
        self._sums[1] += wide.dot(wide)
        self._count += part.numel()

    def value(self) -> float:
        """Return the deviation; NaN if there was a NaN or infinity, or a square overflowed."""
        first, second = self._sums.tolist()
        if not math.isfinite(second):
            return math.nan
        squares = second - first * first / self._count if self._count else 0.0
        return math.sqrt(max(squares, 0.0) / max(self._count, 1))
