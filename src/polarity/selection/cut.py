"""The exact place to cut many ranked entries: a sampled bracket, one counting pass, a finish."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from polarity.selection.keys import Integers, Keys
from polarity.selection.passes import Bracket, KeyField, Part, run

__all__ = ["Cut", "find_cut", "first_of", "ties_of"]

Counts = npt.NDArray[np.int64]

# The columns of the counts of a part.
_BELOW, _LOW, _HIGH, _BETWEEN, _BAD = range(5)
# Up to so many living entries everything is inside the bracket.
_DIRECT = 1 << 15
# Half the width of the bracket in standard deviations of a rank: it misses once in 2000 calls, and
# what is collected inside is most of the work.
_SIGMAS = 3.5
# So many entries, or one in 32, may be collected inside the bracket.
_ROOM = 1 << 18
_HISTOGRAM_BITS = 16


@dataclass(frozen=True)
class Cut:
    """Which living entries stay: those above the threshold, and the first few of those at it.

    Attributes:
        threshold: a key; entries below it go.
        ties: for each part of each field, how many living entries are at the threshold.
        kept_ties: how many of these stay, the first in order.
        gone: for each part of each field, how many living entries go.
    """

    threshold: int
    ties: list[list[int]]
    kept_ties: list[list[int]]
    gone: list[list[int]]


def find_cut(
    fields: Sequence[KeyField], drop: int, keys: Keys, *, complaint: str | None = None
) -> Cut:
    r"""Find the cut below which exactly ``drop`` living entries of all fields together lie.

    A strided sample of :math:`n^{2/3}` of the :math:`n` living entries brackets the threshold. One
    pass counts what lies below the bracket and collects what lies inside, a share of about
    :math:`7\sqrt{q(1-q)}\,n^{-1/3}` for a dropped share :math:`q`; the rank that is left is found
    among those. Entries at an edge of the bracket may be very many (ties, all equal): they are only
    counted. Where the sample misled, or too much lies inside, histograms of the leading bits of the
    keys narrow the bracket. So the answer is exact and the memory bounded whatever the entries.

    Args:
        fields: the entries, in order, as ``keys``.
        drop: how many living entries go, between 0 and all.
        keys: how entries became keys.
        complaint: what to say, formatted with ``name`` and ``bad``, of the first field of which
            ``bad`` living entries are NaN or infinite; with None infinities are ranked.

    Returns:
        The :class:`Cut`.

    Raises:
        ValueError: the complaint.
    """
    living = sum(field.living for field in fields)
    room = max(_ROOM, sum(field.size for field in fields) // 32)
    low, high = _first_bracket(fields, drop, living, keys)
    while True:
        bracket = Bracket(low, high, room)
        parts = _scan(fields, keys, bracket)
        counts = _on_host(parts)
        if complaint is not None:
            for field, mine in zip(fields, counts, strict=True):
                if bad := int(mine[:, _BAD].sum()):
                    raise ValueError(complaint.format(name=field.name, bad=bad))
        if drop in (0, living):
            return _all_or_none(fields, drop == 0, keys)
        below, at_low, at_high, between, _ = np.concatenate(counts).sum(0).tolist()
        rank = drop - below  # within the bracket, the lowest has 1
        if rank < 1:
            low, high = _narrow(fields, keys, drop, Bracket(keys.lowest, low - 1, room))
        elif rank > at_low + at_high + between:
            rank -= at_low + at_high + between
            low, high = _narrow(fields, keys, rank, Bracket(high + 1, keys.infinity, room))
        elif between > room:
            low, high = _narrow(fields, keys, rank, Bracket(low, high, room))
        else:
            return _finish(fields, parts, counts, bracket, rank)


def _first_bracket(
    fields: Sequence[KeyField], drop: int, living: int, keys: Keys
) -> tuple[int, int]:
    """Return keys that most probably enclose the entry of rank ``drop``, the lowest having 1."""
    if drop in (0, living):
        return keys.lowest, keys.lowest
    if living <= _DIRECT:
        return keys.lowest, keys.infinity
    # Odd, so as not to fall in step with rows whose length is a power of two.
    stride = int(living ** (1 / 3)) | 1
    starts = accumulate((field.size for field in fields), initial=0)
    sample = np.concatenate(
        [
            field.sample(-start % stride, stride)
            for field, start in zip(fields, starts, strict=False)
        ]
    )
    share = drop / living
    width = _SIGMAS * (sample.size * share * (1 - share)) ** 0.5 + 1
    first, last = int(share * sample.size - width), int(share * sample.size + width) + 1
    low, high = keys.lowest, keys.infinity
    inside = [place for place in (first, last) if 0 <= place < sample.size]
    if inside:
        sample.partition(inside)
    if 0 <= first < sample.size:
        low = int(sample[first])
    if last < sample.size:
        high = int(sample[last])
    return min(low, high), high


def _narrow(fields: Sequence[KeyField], keys: Keys, rank: int, bracket: Bracket) -> tuple[int, int]:
    """Return a narrower bracket around the entry of this rank among those inside ``bracket``."""
    low, high = bracket.low, bracket.high
    while True:
        shift = max(0, (high - low).bit_length() - _HISTOGRAM_BITS)
        heights = _histogram(fields, keys, Bracket(low, high, 0), shift)
        upto = heights.cumsum()
        place = int(np.searchsorted(upto, rank))
        rank -= int(upto[place] - heights[place])
        start = ((low >> shift) + place) << shift
        low, high = max(low, start), min(high, start + (1 << shift) - 1)
        if heights[place] <= bracket.room or low == high:
            return low, high


def _scan(fields: Sequence[KeyField], keys: Keys, bracket: Bracket) -> list[list[Part]]:
    return run(fields, keys, lambda i, p, space: fields[i].scan(fields[i].parts[p], bracket, space))


def _histogram(
    fields: Sequence[KeyField], keys: Keys, bracket: Bracket, shift: int
) -> npt.NDArray[np.signedinteger[Any]]:
    counted = run(
        fields,
        keys,
        lambda i, p, space: fields[i].histogram(fields[i].parts[p], bracket, shift, space),
    )
    heights: npt.NDArray[np.signedinteger[Any]] = np.sum(
        [each for mine in counted for each in mine], axis=0
    )
    return heights


def _finish(
    fields: Sequence[KeyField],
    parts: list[list[Part]],
    counts: list[Counts],
    bracket: Bracket,
    rank: int,
) -> Cut:
    """Cut at the entry of this rank within a bracket that encloses it."""
    flat = np.concatenate(counts)
    at_low, at_high = flat[:, _LOW], flat[:, _HIGH]
    pieces = [_array(part.between) for mine in parts for part in mine if part.between is not None]
    pieces = [piece for piece in pieces if piece.size > 0]
    inner = rank - int(at_low.sum())
    if inner < 1:
        threshold = bracket.low
    elif inner > int(flat[:, _BETWEEN].sum()):
        threshold = bracket.high
    else:
        threshold = int(np.partition(np.concatenate(pieces), inner - 1)[inner - 1])

    less = flat[:, _BELOW] + np.where(bracket.low < threshold, at_low, 0)
    ties = np.where(bracket.low == threshold, at_low, 0)
    ties = ties + np.where((bracket.high == threshold) & (bracket.low < bracket.high), at_high, 0)
    if pieces:
        values, collected = np.concatenate(pieces), flat[:, _BETWEEN] > 0
        starts = list(accumulate((piece.size for piece in pieces[:-1]), initial=0))
        less[collected] += np.add.reduceat(values < threshold, starts, dtype=np.int64)
        ties[collected] += np.add.reduceat(values == threshold, starts, dtype=np.int64)
    dropped_ties = rank + int(flat[:, _BELOW].sum()) - int(less.sum())
    kept_ties = np.array(first_of(ties.tolist(), int(ties.sum()) - dropped_ties), dtype=np.int64)
    gone = less + ties - kept_ties
    splits = np.cumsum([len(field.parts) for field in fields])[:-1]
    split = [[each.tolist() for each in np.split(of, splits)] for of in (ties, kept_ties, gone)]
    return Cut(threshold, *split)


def ties_of(field: KeyField, keys: Keys, threshold: int) -> list[int]:
    """Count the living entries at the threshold in each part of a field."""
    bracket = Bracket(threshold, threshold, 0)
    counted: list[int] = _on_host(_scan([field], keys, bracket))[0][:, _LOW].tolist()
    return counted


def first_of(counts: list[int], total: int) -> list[int]:
    """Share ``total`` among the first of consecutive counts, each getting no more than it has."""
    starts = accumulate(counts, initial=0)
    return [min(max(total - start, 0), count) for count, start in zip(counts, starts, strict=False)]


def _all_or_none(fields: Sequence[KeyField], everything: bool, keys: Keys) -> Cut:
    zeros = [[0] * len(field.parts) for field in fields]
    if everything:
        return Cut(keys.lowest, zeros, zeros, zeros)
    # One tie more than there is, so that what is at the threshold goes.
    ties = [[1] * len(each) for each in zeros]
    return Cut(keys.infinity, ties, zeros, [field.living_in for field in fields])


def _array(keys: Integers | Tensor) -> Integers:
    """Return the few keys inside a bracket in main memory."""
    array: Integers = keys.cpu().numpy() if isinstance(keys, Tensor) else keys
    return array


def _on_host(parts: list[list[Part]]) -> list[Counts]:
    """Return the counts of each field's parts as a matrix; one transfer for each device field."""
    counts = []
    for mine in parts:
        rows = [part.counts for part in mine]
        if rows and isinstance(rows[0], Tensor):
            counts.append(
                torch.stack([row for row in rows if isinstance(row, Tensor)]).cpu().numpy()
            )
        else:
            counts.append(np.array(rows, dtype=np.int64).reshape(-1, 5))
    return counts
