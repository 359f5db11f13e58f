"""The standard deviation of a tensor that is read in parts."""

import math

import torch
from torch import Tensor

from polarity._bits.arrays import Array, array_of

__all__ = ["Deviation"]

# Further from the origin, in deviations, the mean would cost more than two decimal digits of 16.
_FAR = 10.0


class Deviation:
    r"""Population standard deviation of all parts together, in float64.

    With :math:`d_i = x_i - x_0` from an origin :math:`x_0` it is
    :math:`\sqrt{(\sum d_i^2 - (\sum d_i)^2 / n) / n}`, which cancels where the mean is many
    deviations from the origin. Then :attr:`is_exact` is False, and another pass from an origin
    among the data does better; all :math:`d_i` of a constant tensor are then exactly zero.

    Args:
        length: the number of entries of the longest part.
        device: where the parts are.
        origin: zero, or a number among the data.

    Example:
        >>> numbers = torch.tensor([3.0, -1.0, 1.0, 101.0])
        >>> deviation = Deviation(2, numbers.device)
        >>> for part in numbers.split(2):
        ...     deviation.add(part)
        >>> deviation.value() == float(numbers.double().std(correction=0))
        True
    """

    def __init__(self, length: int, device: torch.device, origin: float = 0.0) -> None:
        self._origin = origin
        self._tensor = torch.empty(length, dtype=torch.float64, device=device)
        self._wide = array_of(self._tensor)
        # Added up at the end, so that nothing is waited for on an accelerator.
        self._firsts: list[Tensor] = []
        self._seconds: list[Tensor] = []
        self._count = 0

    def add(self, part: Array) -> None:
        """Take a part of one dimension, an array or a tensor."""
        size = len(part)
        whole = size == len(self._wide)
        wide, tensor = (each if whole else each[:size] for each in (self._wide, self._tensor))
        wide[:] = part
        if self._origin:
            wide -= self._origin
        # Not by numpy: its dot might start threads, and its sum takes twice as long.
        self._firsts.append(tensor.sum())
        self._seconds.append(tensor.dot(tensor))
        self._count += size

    def value(self) -> float:
        """Return the deviation; NaN if there was a NaN or infinity, or a square overflowed."""
        return math.sqrt(max(self._moments()[1], 0.0))

    @property
    def is_exact(self) -> bool:
        """Whether next to nothing cancelled, as far as the deviation is a number."""
        mean, variance = self._moments()
        return not mean * mean > _FAR * _FAR * variance

    def _moments(self) -> tuple[float, float]:
        """Return the mean from the origin, and the variance."""
        if not self._count:
            return 0.0, 0.0
        first, second = (float(sum(each)) for each in (self._firsts, self._seconds))
        if not math.isfinite(second):
            return math.nan, math.nan
        return first / self._count, (second - first * first / self._count) / self._count
