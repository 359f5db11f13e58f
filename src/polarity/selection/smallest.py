"""The entries of smallest magnitude of several tensors, exactly so many, part by part."""

from collections.abc import Iterator, Mapping
from itertools import chain

import numpy as np
import torch

from polarity._bits.arrays import Array, places_of
from polarity.selection.chosen import Entries
from polarity.selection.cut import find_cut, first_of
from polarity.selection.keys import keys_for
from polarity.selection.passes import KeyField, Space

__all__ = ["smallest"]


def smallest(entries: Mapping[str, Entries], count: int) -> Iterator[tuple[str, slice, Array]]:
    """Find the ``count`` living entries of smallest magnitude of all tensors together.

    Of equal ones those count as smaller that come first, in row-major order within a tensor, the
    tensors in the order they are given. (What is pruned by :func:`keep_largest` is the other way
    round: of equal ones the first stay.)

    Args:
        entries: finite tensors by name, with at least ``count`` living entries.
        count: how many.

    Yields:
        For every part of every tensor, in order: the name, the slice of its flattened entries, and
        which of those are among the smallest, a bool array or tensor.

    Example:
        >>> values = torch.tensor([5.0, -0.1, 4.0, 0.2])
        >>> [small.tolist() for _, _, small in smallest({"w": Entries.of(values, None)}, 2)]
        [[False, True, False, True]]
    """
    keys = keys_for((each.dtype for each in entries.values()), signed=False)
    fields = [each.field(name, keys, _row_major(each)) for name, each in entries.items()]
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
                    yield field.name, part, _living(field, part, space)
                else:
                    small = _small(field, part, cut.threshold, tied, share, space)
                    yield field.name, part, small


def _row_major(entries: Entries) -> tuple[int, ...] | None:
    """Return the dimensions in order if the entries lie so in memory, else None: by a copy."""
    in_order = tuple(range(len(entries.shape)))
    return in_order if entries.memory_order == in_order else None


def _small(
    field: KeyField, part: slice, threshold: int, ties: int, share: int, space: Space
) -> Array:
    """Return which living entries are below the threshold, or among the first ``share`` at it."""

    def upto(kept_ties: int) -> Array:
        """Return the living entries at the threshold and below, or those below alone."""
        small = ~field.kept(part, threshold, ties, kept_ties, space)
        if (live := field.live(part, space)) is not None:
            small &= live
        return small

    if share == 0:
        return upto(ties)
    small = upto(0)
    if share < ties:
        tied = small ^ upto(ties)
        small[places_of(tied)[share:]] = False
    return small


def _living(field: KeyField, part: slice, space: Space) -> Array:
    if (live := field.live(part, space)) is not None:
        return live
    size = part.stop - part.start
    if field.device.type == "cpu":
        return np.ones(size, dtype=bool)
    return torch.ones(size, dtype=torch.bool, device=field.device)
