"""Weights of a model as entries to choose among."""

from collections.abc import Mapping

from polarity.selection.chosen import Chosen, Entries
from polarity.targets.target import Target

__all__ = ["choose_by_magnitude", "entries_of"]


def entries_of(target: Target) -> Entries:
    """Return the effective weight and which of its entries can be kept.

    Plain and masked weights are read where they lie. Weights made of several tensors are computed
    one at a time, once for each pass over them.
    """
    leaf, live = target.stored[0], target.contenders
    if target.is_plain or target.is_stored:
        return Entries.of(leaf, live)
    return Entries(lambda: target.weight, live, target.shape, leaf.dtype, leaf.device)


def choose_by_magnitude(found: Mapping[str, Target], keep: int | Mapping[str, int]) -> Chosen:
    """Choose the weights of largest magnitude, to be kept; nothing is changed.

    Args:
        found: the weights; where a mask is not enforced all entries compete.
        keep: how many entries stay, of all weights together or of each.

    Raises:
        ValueError: if a live weight is NaN or infinite, or a count out of range.
    """
    return Chosen(
        {name: entries_of(target) for name, target in found.items()},
        keep,
        signed=False,
        finite="weight",
    )
