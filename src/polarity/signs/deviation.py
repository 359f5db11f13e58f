"""The standard deviation of a tensor in float64, without a float64 copy of it."""

import math

import torch
from torch import Tensor

from polarity._bits.arrays import chunks_of

__all__ = ["population_deviation"]

# With a mean further from zero than this many deviations, more than two of the sixteen decimal
# digits would cancel.
_FAR = 10.0


def population_deviation(values: Tensor) -> float:
    r"""Return the population standard deviation of a flat tensor, exactly 0 if it is constant.

    With :math:`d_i = x_i - o` from an origin :math:`o` it is
    :math:`\sqrt{(\sum d_i^2 - (\sum d_i)^2 / n) / n}`. The origin is zero. If the mean is many
    deviations from zero, a second pass takes the first entry as the origin, so that all
    :math:`d_i` of a constant tensor are exactly zero.

    Returns:
        The deviation; 0 for an empty tensor, NaN if an entry is NaN or infinite.

    Example:
        >>> values = torch.tensor([3.0, -1.0, 1.0, 101.0])
        >>> population_deviation(values) == float(values.double().std(correction=0))
        True
    """
    if values.numel() == 0:
        return 0.0
    mean, variance = _moments(values, 0.0)
    if mean * mean > _FAR * _FAR * variance:
        _, variance = _moments(values, float(values[0]))
    return math.sqrt(max(variance, 0.0)) if math.isfinite(variance) else math.nan


def _moments(values: Tensor, origin: float) -> tuple[float, float]:
    """Return the mean from the origin, and the variance."""
    sums, squares = [], []
    for chunk in chunks_of(values.numel(), values.device):
        wide = values[chunk].double()
        if origin:
            wide = wide - origin
        sums.append(wide.sum())
        squares.append(wide.dot(wide))
    # Add up at the end, so that an accelerator is synchronised once.
    first, second = torch.stack([torch.stack(sums).sum(), torch.stack(squares).sum()]).tolist()
    mean = first / values.numel()
    return mean, second / values.numel() - mean * mean
