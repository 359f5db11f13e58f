"""The standard deviation of a tensor in float64, without a float64 copy of it."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from polarity._bits.arrays import chunks_of
from polarity.selection.ranks import Ranks

__all__ = ["Piece", "deviations", "population_deviation"]

# With a mean further from zero than this many deviations, more than two of the sixteen decimal
# digits would cancel.
_FAR = 10.0


class Piece:
    """A flat tensor, or this rank's piece of one, and the sums of its entries and their squares."""

    def __init__(self, values: Tensor) -> None:
        self.values = values
        self.sums = _sums(values, 0.0)

    @property
    def is_finite(self) -> bool:
        """Whether the sums are, and so the entries."""
        return all(map(math.isfinite, self.sums))


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
    return deviations([Piece(values)], None)[0]


def deviations(pieces: Sequence[Piece], ranks: Ranks | None) -> list[float]:
    """Return the deviation of each of several tensors, the same on every rank.

    Args:
        pieces: tensors, or this rank's pieces of them.
        ranks: the ranks that hold the others; None where the tensors are whole. Each rank's sums
            are added in the order of the ranks. One process adds those of chunks, so that its last
            digits may be others.
    """
    numbers = [(float(each.values.numel()), *each.sums) for each in pieces]
    told = [tuple(map(sum, zip(*each, strict=True))) for each in _everyones(numbers, ranks)]
    moments = [_moments(*each) for each in told]
    far = [at for at, (mean, variance) in enumerate(moments) if mean * mean > _FAR**2 * variance]
    if far:
        firsts = [each.values[:1].double().tolist() or [math.nan] for each in pieces]
        heads = _everyones([(numbers[at][0], *firsts[at]) for at in far], ranks)
        origins = [next(first for count, first in each if count) for each in heads]
        sums = [_sums(pieces[at].values, origin) for at, origin in zip(far, origins, strict=True)]
        for at, each in zip(far, _everyones(sums, ranks), strict=True):
            moments[at] = _moments(told[at][0], *map(sum, zip(*each, strict=True)))
    return [
        math.sqrt(max(variance, 0.0)) if math.isfinite(variance) else math.nan
        for _, variance in moments
    ]


def _everyones(
    numbers: Sequence[tuple[float, ...]], ranks: Ranks | None
) -> list[list[tuple[float, ...]]]:
    """Return for each of several tensors the numbers of every rank, in the order of the ranks."""
    if ranks is None:
        return [[each] for each in numbers]
    # As bits, which arrive as they were sent.
    mine = np.array(numbers, dtype=np.float64)
    table = ranks.table(mine.view(np.int64).reshape(-1)).view(np.float64)
    return [
        [tuple(each) for each in rows]
        for rows in table.reshape(ranks.count, *mine.shape).swapaxes(0, 1).tolist()
    ]


def _moments(count: float, first: float, second: float) -> tuple[float, float]:
    """Return the mean from the origin, and the variance, from the sums of powers."""
    if not count:
        return 0.0, 0.0
    mean = first / count
    return mean, second / count - mean * mean


def _sums(values: Tensor, origin: float) -> tuple[float, float]:
    """Return the sums of the distances from the origin and of their squares."""
    sums, squares = [], []
    for chunk in chunks_of(values.numel(), values.device):
        wide = values[chunk].double()
        if origin:
            wide = wide - origin
        sums.append(wide.sum())
        squares.append(wide.dot(wide))
    if not sums:
        return 0.0, 0.0
    # Add up at the end, so that an accelerator is synchronised once.
    first, second = torch.stack([torch.stack(sums).sum(), torch.stack(squares).sum()]).tolist()
    return first, second
