"""The entries of smallest magnitude of several tensors, exactly so many, part by part."""

from collections.abc import Iterator, Mapping
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from polarity.bool_fields import places_of
from polarity.bracket import find_cut, first_of
from polarity.key_fields import KeyField, Space
from polarity.ordered_keys import keys_for
from polarity.selecting import Entries

__all__ = ["smallest"]


def smallest(entries: Mapping[str, Entries], count: int) -> Iterator[tuple[str, slice, Tensor]]:
    """Find the ``count`` living entries of smallest magnitude of all tensors together.

    Of equal ones those count as smaller that come first, in row-major order within a tensor, the
    tensors in the order they are given. (What is pruned by :func:`keep_largest` is the other way
    round: of equal ones the first stay.)

    Args:
        entries: finite tensors by name, with at least ``count`` living entries.
        count: how many.

    Yields:
        For every part of every tensor, in order: the name, the slice of its flattened entries, and
        which of those are among the smallest, a bool tensor that is valid until the next one.

    Example:
        >>> values = torch.tensor([5.0, -0.1, 4.0, 0.2])
        >>> [small.tolist() for _, _, small in smallest({"w": Entries.of(values, None)}, 2)]
        [[False, True, False, True]]
    """
    keys = keys_for((each.dtype for each in entries.values()), signed=False)
    fields = [each.field(name, keys, row_major=True) for name, each in entries.items()]
    cut = find_cut(fields, count, keys)
    ties = list(chain.from_iterable(cut.ties))
    dropped_ties = sum(ties) - sum(chain.from_iterable(cut.kept_ties))
    everything = count == sum(field.living for field in fields)
    longest = max((part.stop - part.start for field in fields for part in field.parts), default=0)
    space = Space(keys, longest)
    shares = zip(ties, first_of(ties, dropped_ties), strict=True)
    for field in fields:
        with field.held():
            for part in field.parts:
                tied, share = next(shares)
                if everything:
                    yield field.name, part, _living(field, part)
                else:
                    small = _small(field, part, cut.threshold, tied, share, space)
                    yield field.name, part, small


def _small(
    field: KeyField, part: slice, threshold: int, ties: int, share: int, space: Space
) -> Tensor:
    """Return which living entries are below the threshold, or among the first ``share`` at it."""

    def upto(kept_ties: int) -> Tensor:
        """Return the living entries at the threshold and below, or those below alone."""
        above = _as_tensor(field.kept(part, threshold, ties, kept_ties, space))
        return above.logical_not() & _living(field, part)

    if share == 0:
        return upto(ties)
    small = upto(0)
    if share < ties:
        tied = small ^ upto(ties)
        small[places_of(tied)[share:]] = False
    return small


def _living(field: KeyField, part: slice) -> Tensor:
    if field.alive is None:
        return torch.ones(part.stop - part.start, dtype=torch.bool, device=field.device)
    return _as_tensor(field.alive[part])


def _as_tensor(bools: object) -> Tensor:
    if isinstance(bools, np.ndarray):
        return torch.from_numpy(bools)
    assert isinstance(bools, Tensor)
    return bools
