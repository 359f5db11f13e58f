"""Weights of a model as the entries that a selection chooses among."""

from collections.abc import Mapping

from polarity.selection.chosen import Chosen, Entries
from polarity.selection.ranks import Ranks
from polarity.selection.ties import Draw
from polarity.targets.target import Target

__all__ = ["choose_by_magnitude", "entries_of"]


def entries_of(target: Target) -> Entries:
    """Return the effective weight, or this rank's piece, and which entries can be kept.

    Plain and masked weights are read in place. Weights made of several tensors are computed one at
    a time, once for each pass over them.
    """
    leaf, live = target.pieces[0], target.enforced_mask
    if target.is_plain or target.is_stored:
        return Entries.of(leaf, live)
    shape = leaf.shape if target.is_sharded else target.shape
    return Entries(lambda: target.weight, live, shape, leaf.dtype, leaf.device)


def choose_by_magnitude(
    found: Mapping[str, Target],
    keep: int | Mapping[str, int],
    draw: Draw | None = None,
    ranks: Ranks | None = None,
) -> Chosen:
    """Choose the entries of largest magnitude, without changing anything.

    Args:
        found: the weights; where no mask is enforced all entries can be kept.
        keep: how many entries stay, of all weights together or of each.
        draw: returns the random words of equal entries; None if those of lower index stay.
        ranks: among which the weights are divided; None if they are whole.

    Raises:
        ValueError: if a live entry is NaN or infinite, or a count is out of range.
    """
    return Chosen(
        {name: entries_of(target) for name, target in found.items()},
        keep,
        signed=False,
        finite="weight",
        draw=draw,
        ranks=ranks,
    )
