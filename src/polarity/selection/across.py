"""The exact place to cut entries that several ranks hold: digits of the threshold, by counts."""

from collections.abc import Sequence

import numpy as np

from polarity._checks import nonfinite_error
from polarity.selection.cut import Cut, all_or_none, counts_at, histogram_of, share_among_first
from polarity.selection.keys import KeyFormat
from polarity.selection.passes import Bracket, TensorKeys
from polarity.selection.ranks import Ranks

__all__ = ["find_cut_across"]

# 4,096 counts of 8 bytes are exchanged a pass: three passes for 32 bits, six for 64.
_DIGIT_BITS = 12


def find_cut_across(
    tensors: Sequence[TensorKeys],
    drop: int,
    live: int,
    key_format: KeyFormat,
    ranks: Ranks,
    *,
    finite: str | None = None,
) -> Cut:
    """Find what :func:`find_cut` finds of tensors whose pieces lie on several ranks.

    Each pass counts this rank's keys by their next digit, and the ranks add their counts: the digit
    in which the entry of rank ``drop`` lies is the same for all. Then one table, of how many
    entries each rank has at the threshold of each tensor, decides which of them stay. The bytes
    that are exchanged depend on the numbers of tensors and ranks and on the width of the keys, not
    on the number of entries.

    Args:
        tensors: this rank's pieces, in order, as keys; a piece may be empty.
        drop: how many live entries of all ranks to drop, between 0 and ``live``.
        live: how many there are.
        key_format: as for :func:`find_cut`, the same on every rank.
        ranks: the ranks; all of them call.
        finite: as for :func:`find_cut`.

    Returns:
        The cut through this rank's pieces.

    Raises:
        ValueError: on every rank, if a live entry of any of them must be finite and is not.
    """
    # What is not finite lies outside, and is seen by its absence from the counts.
    inside = 0 if finite is None else 1
    low, high = key_format.lowest, key_format.infinity - inside
    low += inside if key_format.signed else 0
    rank, expected = drop, live
    while True:
        shift = max(0, (high - low).bit_length() - _DIGIT_BITS)
        heights = ranks.add(histogram_of(tensors, key_format, Bracket(low, high, 0), shift))
        if finite is not None and int(heights.sum()) != expected:
            _refuse(tensors, key_format, ranks, finite)
        if drop in (0, live):
            return all_or_none(tensors, drop == 0, key_format)
        upto = heights.cumsum()
        place = int(np.searchsorted(upto, rank))
        rank -= int(upto[place] - heights[place])
        expected = int(heights[place])
        start = ((low >> shift) + place) << shift
        low, high = max(low, start), min(high, start + (1 << shift) - 1)
        if low == high:
            break
    counted = counts_at(tensors, key_format, low)
    below = [sum(less for less, _, _ in chunks) for chunks in counted]
    ties = [[tied for _, tied, _ in chunks] for chunks in counted]
    # In the order of entries: tensor after tensor, and within each rank after rank.
    table = ranks.table([sum(mine) for mine in ties])
    kept = share_among_first(table.T.reshape(-1).tolist(), expected - rank)
    mine = np.array(kept, dtype=np.int64).reshape(table.T.shape)[:, ranks.index].tolist()
    kept_ties = [share_among_first(each, total) for each, total in zip(ties, mine, strict=True)]
    return Cut(
        low,
        ties,
        kept_ties,
        [
            each.live_count - less - sum(tied) + total
            for each, less, tied, total in zip(tensors, below, ties, mine, strict=True)
        ],
    )


def _refuse(
    tensors: Sequence[TensorKeys], key_format: KeyFormat, ranks: Ranks, finite: str
) -> None:
    """Raise on every rank for the first tensor with entries that are not finite."""
    counted = counts_at(tensors, key_format, key_format.infinity)
    bad = ranks.add([sum(each for _, _, each in chunks) for chunks in counted])
    first = int(np.flatnonzero(bad)[0])
    raise nonfinite_error(f"{finite} {tensors[first].name!r}", int(bad[first]))
