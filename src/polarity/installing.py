"""Choose among a model's weights by magnitude, and install any choice, in place."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from polarity.bit_packing import pack_bits
from polarity.conversion import set_mask
from polarity.parametrizations.keep_where import BITS
from polarity.parametrizations.masked import MaskedWeight
from polarity.selecting import Chosen, Entries
from polarity.targets import Target, parametrizations_of
from polarity.torch_pruning import torch_mask

__all__ = ["choose_by_magnitude", "install", "is_plain"]


def choose_by_magnitude(found: Mapping[str, Target], keep: int | Mapping[str, int]) -> Chosen:
    """Choose the weights of largest magnitude, to be kept; nothing is changed.

    Plain and masked weights are read in place. Those that are computed from more than one tensor
    are computed one at a time, once for each pass over them.

    Args:
        found: the weights; where a mask is not enforced all entries compete.
        keep: how many entries stay, of all weights together or of each.

    Raises:
        ValueError: if a living weight is NaN or infinite, or a count out of range.
    """
    return Chosen(
        {name: _entries(target) for name, target in found.items()},
        keep,
        signed=False,
        complaint="weight {name!r} holds {bad} NaN or infinite entries",
    )


@torch.no_grad()
def install(found: Mapping[str, Target], chosen: Chosen, *, park: bool) -> None:
    """Mask all but the chosen entries, as :func:`set_mask` does; every target has a mask.

    Masked weights are pruned in place in one pass, part by part.
    """
    if chosen.signed and _scores_are_weights(found, chosen):
        masks = {name: chosen.new_mask(name) for name in found}
        for name, target in found.items():
            set_mask(target, masks[name], park=park)
        return
    in_place = {}
    for name, target in found.items():
        flat = _flat(target, chosen, park) if chosen.in_place(name) else None
        if flat is None:
            set_mask(target, chosen.new_mask(name), park=park)
        else:
            in_place[name] = flat
    parked: dict[str, dict[int, tuple[Tensor, Tensor]]] = {name: {} for name in in_place}

    def prune(name: str, part: slice, kept: Any, alive: Any) -> None:
        mask, bits = (each[part] for each in in_place[name])
        if alive is not None:
            kept &= alive
        if park:
            gone = ~kept if alive is None else kept ^ alive
            parked[name][part.start] = _packed(gone), _taken(bits, gone)
        mask[...] = kept
        # The bits of a value times 0 or 1 are zero or the value, whatever it was.
        bits *= kept.view(np.uint8 if isinstance(kept, np.ndarray) else torch.uint8)

    for name in in_place:
        _masking(found[name]).unpark()
    chosen.visit(in_place, prune)
    for name, target in ((name, found[name]) for name in in_place):
        masking, leaf = _masking(target), target.stored[0]
        masking.enforce = True
        # numpy wrote to their memory behind autograd's back.
        increment_version(masking.mask)
        increment_version(leaf)
        if mine := parked.pop(name):
            places, values = zip(*(mine[at] for at in sorted(mine)), strict=True)
            masking.park_packed(torch.cat(places), torch.cat(values).view(leaf.dtype))


def _entries(target: Target) -> Entries:
    """Return the effective weight and which of its entries compete."""
    leaf, masking = target.stored[0], target.masking
    if is_plain(target):
        return Entries.of(leaf, None)
    alive = target.mask if masking is None or masking.enforce else None
    if _is_simple(target):
        return Entries.of(leaf, alive)
    return Entries(lambda: target.weight, alive, target.shape, leaf.dtype, leaf.device)


def is_plain(target: Target) -> bool:
    """Whether the weight is a parameter and nothing else."""
    first = target.uses[0]
    chain = parametrizations_of(first.module, first.tensor_name)
    return chain is None and torch_mask(first.module, first.tensor_name) is None


def _is_simple(target: Target) -> bool:
    """Whether the weight is one stored tensor seen through a mask."""
    chain = parametrizations_of(target.uses[0].module, target.uses[0].tensor_name)
    return chain is not None and len(chain) == 1 and type(chain[0]) is MaskedWeight


def _scores_are_weights(found: Mapping[str, Target], chosen: Chosen) -> bool:
    """Whether a score lies in the memory of a weight, so that pruning one changes the other."""
    leaves = {
        leaf.untyped_storage().data_ptr() for target in found.values() for leaf in target.stored
    }
    scores = (entries.values for entries in chosen.entries.values())
    return any(
        isinstance(score, Tensor) and score.untyped_storage().data_ptr() in leaves
        for score in scores
    )


def _masking(target: Target) -> MaskedWeight:
    assert target.masking is not None
    return target.masking


def _flat(target: Target, chosen: Chosen, park: bool) -> tuple[Any, Any] | None:
    """Return mask and bits of a weight as they are visited, or None if it cannot be done so."""
    leaf, order = target.stored[0], chosen.order(target.name)
    if not _is_simple(target) or leaf.dtype not in BITS:
        return None
    mask = _masking(target).mask
    # Parked values are numbered in row-major order.
    row_major = order == tuple(range(leaf.dim()))
    if order != Entries.of(leaf, mask).memory_order or (park and not row_major):
        return None
    bits = leaf.detach().view(BITS[leaf.dtype])
    return chosen.in_memory(target.name, mask), chosen.in_memory(target.name, bits)


def _packed(bools: Any) -> Tensor:
    if isinstance(bools, np.ndarray):
        return torch.from_numpy(np.packbits(bools, bitorder="little"))
    return pack_bits(bools)


def _taken(values: Any, bools: Any) -> Tensor:
    if isinstance(values, np.ndarray):  # much faster than indexing if many are taken
        return torch.from_numpy(np.compress(bools, values))
    taken: Tensor = values[bools]
    return taken
