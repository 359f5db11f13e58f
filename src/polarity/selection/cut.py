"""The exact place to cut ranked entries: few are gathered; many by a sampled bracket and a pass."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from polarity._checks import nonfinite_error
from polarity.selection.cpu import CpuKeys
from polarity.selection.gpu import GpuKeys
from polarity.selection.keys import Integers, KeyFormat
from polarity.selection.passes import (
    Bracket,
    ChunkScan,
    Scratch,
    TensorKeys,
    for_each_chunk,
    in_main_memory,
)

__all__ = [
    "Cut",
    "all_or_none",
    "counts_at",
    "find_cut",
    "histogram_of",
    "share_among_first",
    "ties_of",
]

Counts = npt.NDArray[np.int64]

# The columns of the counts of a chunk.
_BELOW, _LOW, _HIGH, _BETWEEN, _BAD = range(5)
# With this many live entries or fewer on a CPU, gather and partition all of them.
_FEW = 1 << 16
# With this many or fewer elsewhere, skip sampling: the bracket spans all keys.
_NO_SAMPLE = 1 << 15
# Half the width of the bracket in standard deviations of a rank. It misses once in 2000 calls; a
# wider one collects more, which is most of the work.
_SIGMAS = 3.5
# This many entries, or one in 32 if that is more, may be collected inside the bracket.
_ROOM = 1 << 18
_HISTOGRAM_BITS = 16


@dataclass(frozen=True)
class Cut:
    """Which live entries stay: those above the threshold, and the first few of those at it.

    Attributes:
        threshold: a key; entries below it are dropped.
        ties: for each chunk of each tensor, how many live entries are at the threshold.
        kept_ties: how many of these stay, the first in order.
        kept: how many entries of each tensor stay.
    """

    threshold: int
    ties: list[list[int]]
    kept_ties: list[list[int]]
    kept: list[int]


def find_cut(
    tensors: Sequence[TensorKeys], drop: int, key_format: KeyFormat, *, finite: str | None = None
) -> Cut:
    r"""Find the cut below which exactly ``drop`` live entries of all tensors together lie.

    Few entries are gathered and partitioned. Of many, a strided sample of :math:`n^{2/3}` of the
    :math:`n` live ones brackets the threshold. One pass counts what lies below the bracket and
    collects what lies inside, a share of about :math:`7\sqrt{q(1-q)}\,n^{-1/3}` for a dropped
    share :math:`q`; the remaining rank is found among those. Entries at an edge of the bracket may
    be very many (ties, or all equal): they are only counted. Where the sample missed, or too much
    lies inside, histograms of the leading bits of the keys narrow the bracket. So the answer is
    exact and the memory bounded for any entries.

    Args:
        tensors: the entries, in order, as keys.
        drop: how many live entries to drop, between 0 and all.
        key_format: how entries became keys.
        finite: what an entry is, if NaN and infinity are refused, such as ``"score"``; with None
            infinities are ranked.

    Raises:
        ValueError: if a live entry that must be finite is not; the first such tensor is named.
    """
    live = sum(each.live_count for each in tensors)
    on_cpu = [each for each in tensors if isinstance(each, CpuKeys)]
    if 0 < live <= _FEW and len(on_cpu) == len(tensors):
        return _cut_few(on_cpu, drop, key_format, finite)
    room = max(_ROOM, sum(each.size for each in tensors) // 32)
    low, high = _first_bracket(tensors, drop, live, key_format)
    while True:
        bracket = Bracket(low, high, room)
        scans = _scan(tensors, key_format, bracket)
        counts = _counts(scans)
        if finite is not None:
            for each, bad in zip(tensors, _by_tensor(tensors, counts[:, _BAD]), strict=True):
                if sum(bad):
                    raise nonfinite_error(f"{finite} {each.name!r}", sum(bad))
        if drop in (0, live):
            return all_or_none(tensors, drop == 0, key_format)
        below, at_low, at_high, between, _ = counts.sum(0).tolist()
        rank = drop - below  # within the bracket, the lowest has 1
        if rank < 1:
            outside = Bracket(key_format.lowest, low - 1, room)
            low, high = _narrow(tensors, key_format, drop, outside)
        elif rank > at_low + at_high + between:
            rank -= at_low + at_high + between
            outside = Bracket(high + 1, key_format.infinity, room)
            low, high = _narrow(tensors, key_format, rank, outside)
        elif between > room:
            low, high = _narrow(tensors, key_format, rank, Bracket(low, high, room))
        else:
            pieces = _collected(tensors, key_format, scans, counts, bracket)
            return _finish(tensors, pieces, counts, bracket, rank)


def _cut_few(
    tensors: Sequence[CpuKeys], drop: int, key_format: KeyFormat, finite: str | None
) -> Cut:
    """Find the cut by a partition of all live keys."""
    gathered = [each.gather_all() for each in tensors]
    keys = np.concatenate([piece for mine in gathered for piece in mine])
    if finite is not None and np.abs(keys).max(initial=0) >= key_format.infinity:
        for each, mine in zip(tensors, gathered, strict=True):
            if bad := sum(_count(np.abs(piece) >= key_format.infinity) for piece in mine):
                raise nonfinite_error(f"{finite} {each.name!r}", bad)
    if drop in (0, keys.size):
        return all_or_none(tensors, drop == 0, key_format)
    threshold = int(np.partition(keys, drop - 1)[drop - 1])
    ties = [[_count(piece == threshold) for piece in mine] for mine in gathered]
    above = [sum(_count(piece > threshold) for piece in mine) for mine in gathered]
    wanted = keys.size - drop - sum(above)
    shared = share_among_first([count for mine in ties for count in mine], wanted)
    kept_ties = _by_tensor(tensors, shared)
    kept = [more + sum(mine) for more, mine in zip(above, kept_ties, strict=True)]
    return Cut(threshold, ties, kept_ties, kept)


def _first_bracket(
    tensors: Sequence[TensorKeys], drop: int, live: int, key_format: KeyFormat
) -> tuple[int, int]:
    """Return keys that most probably enclose the entry of rank ``drop``, the lowest having 1."""
    low, high = key_format.lowest, key_format.infinity
    if drop in (0, live):
        return low, low
    if live <= _NO_SAMPLE:
        return low, high
    # Odd, so as not to fall in step with rows whose length is a power of two.
    stride = int(live ** (1 / 3)) | 1
    starts = accumulate((each.size for each in tensors), initial=0)
    samples = [
        each.sample(-start % stride, stride) for each, start in zip(tensors, starts, strict=False)
    ]
    sample = np.concatenate(in_main_memory(samples))
    sample = sample[sample != key_format.not_live]
    share = drop / live
    width = _SIGMAS * (sample.size * share * (1 - share)) ** 0.5 + 1
    first, last = int(share * sample.size - width), int(share * sample.size + width) + 1
    inside = [place for place in (first, last) if 0 <= place < sample.size]
    if inside:
        sample.partition(inside)
    if 0 <= first < sample.size:
        low = int(sample[first])
    if last < sample.size:
        high = int(sample[last])
    return min(low, high), high


def _narrow(
    tensors: Sequence[TensorKeys], key_format: KeyFormat, rank: int, bracket: Bracket
) -> tuple[int, int]:
    """Return a narrower bracket around the entry of this rank among those inside ``bracket``."""
    low, high = bracket.low, bracket.high
    while True:
        shift = max(0, (high - low).bit_length() - _HISTOGRAM_BITS)
        heights = histogram_of(tensors, key_format, Bracket(low, high, 0), shift)
        upto = heights.cumsum()
        place = int(np.searchsorted(upto, rank))
        rank -= int(upto[place] - heights[place])
        start = ((low >> shift) + place) << shift
        low, high = max(low, start), min(high, start + (1 << shift) - 1)
        if heights[place] <= bracket.room or low == high:
            return low, high


def _scan(
    tensors: Sequence[TensorKeys], key_format: KeyFormat, bracket: Bracket
) -> list[list[ChunkScan]]:
    """Scan every chunk of every tensor."""
    return for_each_chunk(
        tensors, key_format, lambda each, at, scratch: each.scan(each.chunks[at], bracket, scratch)
    )


def histogram_of(
    tensors: Sequence[TensorKeys], key_format: KeyFormat, bracket: Bracket, shift: int
) -> Counts:
    """Add up the histograms of every chunk of every tensor."""
    counted = for_each_chunk(
        tensors,
        key_format,
        lambda each, at, scratch: each.histogram(each.chunks[at], bracket, shift, scratch),
    )
    heights = np.zeros((bracket.high >> shift) - (bracket.low >> shift) + 1, dtype=np.int64)
    on_device = dict[torch.device, Tensor]()
    for each in (each for mine in counted for each in mine):
        if isinstance(each, Tensor):
            on_device[each.device] = on_device.get(each.device, 0) + each
        else:
            heights += each
    for each in on_device.values():
        heights += each.cpu().numpy()
    return heights


def _collected(
    tensors: Sequence[TensorKeys],
    key_format: KeyFormat,
    scans: list[list[ChunkScan]],
    counts: Counts,
    bracket: Bracket,
) -> list[Integers]:
    """Return the keys inside the bracket, edges apart, of each chunk that has any."""
    sizes = _by_tensor(tensors, counts[:, _BETWEEN])
    on_device = {
        id(each): mine
        for each, mine in zip(tensors, sizes, strict=True)
        if isinstance(each, GpuKeys) and any(mine)
    }

    def collect(each: TensorKeys, at: int, scratch: Scratch) -> Tensor:
        assert isinstance(each, GpuKeys)
        return each.collect(each.chunks[at], bracket, on_device[id(each)][at])

    later = [each for each in tensors if id(each) in on_device]
    collected = {
        id(each): mine
        for each, mine in zip(later, for_each_chunk(later, key_format, collect), strict=True)
    }
    pieces = [
        piece
        for each, mine in zip(tensors, scans, strict=True)
        for piece in collected.get(id(each), [scan.between for scan in mine])
        if piece is not None
    ]
    return [piece for piece in in_main_memory(pieces) if piece.size > 0]


def _finish(
    tensors: Sequence[TensorKeys],
    pieces: list[Integers],
    counts: Counts,
    bracket: Bracket,
    rank: int,
) -> Cut:
    """Cut at the entry of this rank within a bracket that encloses it."""
    below, at_low, at_high = counts[:, _BELOW], counts[:, _LOW], counts[:, _HIGH]
    inner = rank - int(at_low.sum())
    if inner < 1:
        threshold = bracket.low
    elif inner > int(counts[:, _BETWEEN].sum()):
        threshold = bracket.high
    else:
        threshold = int(np.partition(np.concatenate(pieces), inner - 1)[inner - 1])

    less = below + np.where(bracket.low < threshold, at_low, 0)
    ties = np.where(bracket.low == threshold, at_low, 0)
    ties = ties + np.where((bracket.high == threshold) & (bracket.low < bracket.high), at_high, 0)
    if pieces:
        values, has_piece = np.concatenate(pieces), counts[:, _BETWEEN] > 0
        starts = list(accumulate((piece.size for piece in pieces[:-1]), initial=0))
        less[has_piece] += np.add.reduceat(values < threshold, starts, dtype=np.int64)
        ties[has_piece] += np.add.reduceat(values == threshold, starts, dtype=np.int64)
    dropped_ties = rank + int(below.sum()) - int(less.sum())
    kept_ties = share_among_first(ties.tolist(), int(ties.sum()) - dropped_ties)
    dropped = _by_tensor(tensors, less + ties - np.array(kept_ties, dtype=np.int64))
    kept = [each.live_count - sum(mine) for each, mine in zip(tensors, dropped, strict=True)]
    return Cut(threshold, _by_tensor(tensors, ties), _by_tensor(tensors, kept_ties), kept)


def ties_of(tensor: TensorKeys, key_format: KeyFormat, threshold: int) -> list[int]:
    """Count the live entries at the threshold in each chunk of a tensor."""
    (counted,) = counts_at([tensor], key_format, threshold)
    return [ties for _, ties, _ in counted]


def counts_at(
    tensors: Sequence[TensorKeys], key_format: KeyFormat, threshold: int
) -> list[list[tuple[int, int, int]]]:
    """Count in each chunk of each tensor what is below a threshold, at it, and NaN or infinite.

    Only live entries count.
    """
    counts = _counts(_scan(tensors, key_format, Bracket(threshold, threshold, 0)))
    rows = [(below, ties, bad) for below, ties, bad in counts[:, [_BELOW, _LOW, _BAD]].tolist()]
    found = iter(rows)
    return [[next(found) for _ in each.chunks] for each in tensors]


def share_among_first(counts: list[int], total: int) -> list[int]:
    """Share ``total`` among the first of consecutive counts, each getting no more than it has."""
    starts = accumulate(counts, initial=0)
    return [min(max(total - start, 0), count) for count, start in zip(counts, starts, strict=False)]


def all_or_none(tensors: Sequence[TensorKeys], everything: bool, key_format: KeyFormat) -> Cut:
    """Cut below or above all entries."""
    zeros = [[0] * len(each.chunks) for each in tensors]
    if everything:
        return Cut(key_format.lowest, zeros, zeros, [each.live_count for each in tensors])
    # One tie more than there is, so that what is at the threshold is dropped.
    ties = [[1] * len(each) for each in zeros]
    return Cut(key_format.infinity, ties, zeros, [0] * len(tensors))


def _count(bools: npt.NDArray[np.bool_]) -> int:
    return int(np.count_nonzero(bools))


def _counts(scans: list[list[ChunkScan]]) -> Counts:
    """Return the counts of all chunks, a row for each."""
    rows = in_main_memory([scan.counts for mine in scans for scan in mine])
    return np.array(rows, dtype=np.int64).reshape(-1, 5)


def _by_tensor(tensors: Sequence[TensorKeys], of_chunks: npt.ArrayLike) -> list[list[int]]:
    """Return a number for each chunk in a list for each tensor."""
    numbers = iter(np.asarray(of_chunks).tolist())
    return [[next(numbers) for _ in each.chunks] for each in tensors]
