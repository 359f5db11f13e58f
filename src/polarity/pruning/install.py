"""Choose among a model's weights by magnitude, and install any choice, in place."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from polarity.attach.masks import set_mask
from polarity.parametrizations.keep_where import BITS
from polarity.parametrizations.masked import MaskedWeight
from polarity.selection.chosen import Chosen, Entries
from polarity.targets.search import Target, parametrizations_of
from polarity.targets.torch_prune import torch_mask

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
def install(
    found: Mapping[str, Target],
    chosen: Chosen,
    values: Mapping[str, Tensor] | None = None,
) -> None:
    """Mask all but the chosen entries, as :func:`set_mask` does; every target has a mask.

    Masked weights are pruned in place in one pass, part by part.

    Args:
        found: the weights.
        chosen: what stays of them.
        values: new values for the survivors, by name. By default they keep theirs.
    """
    if chosen.signed and _scores_are_weights(found, chosen):
        masks = {name: chosen.new_mask(name) for name in found}
        for name, target in found.items():
            set_mask(target, masks[name])
            if values is not None:
                target.write(values[name])
        return
    in_place: dict[str, tuple[Any, Any]] = {}
    masked: dict[str, tuple[MaskedWeight, Tensor]] = {}
    sources: dict[str, Any] = {}
    later: list[str] = []  # values that are not laid out as the weight they are for
    for name, target in found.items():
        masking, leaf = _simple(target), target.stored[0]
        flat = None
        if masking is not None and chosen.in_place(name):
            flat = _flat(name, masking.mask, leaf, chosen)
        if masking is None or flat is None:
            set_mask(target, chosen.new_mask(name))
        else:
            in_place[name], masked[name] = flat, (masking, leaf)
        if values is not None:
            source = None if flat is None else _source(name, leaf, chosen, values[name])
            if source is not None:
                sources[name] = source
            else:
                later.append(name)

    def prune(name: str, part: slice, kept: Any, alive: Any) -> None:
        mask, bits = (each[part] for each in in_place[name])
        mask[...] = kept
        # The bits of a value times 0 or 1 are zero or the value, whatever it was.
        source = sources[name][part] if name in sources else bits
        if isinstance(kept, np.ndarray):
            np.multiply(source, kept.view(np.int8), out=bits)
        else:
            torch.mul(source, kept.view(torch.uint8), out=bits)

    chosen.visit(in_place, prune)
    for masking, leaf in masked.values():
        masking.enforce = True
        # numpy wrote to their memory behind autograd's back.
        increment_version(masking.mask)
        increment_version(leaf)
    for name in later:
        assert values is not None
        found[name].write(values[name])


def _entries(target: Target) -> Entries:
    """Return the effective weight and which of its entries compete."""
    leaf = target.stored[0]
    if is_plain(target):
        return Entries.of(leaf, None)
    simple = _simple(target)
    masking = simple or target.masking
    alive = None
    if masking is None:
        alive = target.mask
    elif masking.enforce:
        alive = masking.mask
    if simple is not None:
        return Entries.of(leaf, alive)
    return Entries(lambda: target.weight, alive, target.shape, leaf.dtype, leaf.device)


def is_plain(target: Target) -> bool:
    """Whether the weight is a parameter and nothing else."""
    first = target.uses[0]
    chain = parametrizations_of(first.module, first.tensor_name)
    return chain is None and torch_mask(first.module, first.tensor_name) is None


def _simple(target: Target) -> MaskedWeight | None:
    """Return the mask of a weight that is one stored tensor seen through it, and nothing else."""
    chain = parametrizations_of(target.uses[0].module, target.uses[0].tensor_name)
    if chain is not None and len(chain) == 1 and type(chain[0]) is MaskedWeight:
        return chain[0]
    return None


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


def _flat(name: str, mask: Tensor, leaf: Tensor, chosen: Chosen) -> tuple[Any, Any] | None:
    """Return mask and bits of a weight as they are visited, or None if it cannot be done so."""
    if leaf.dtype not in BITS or chosen.order(name) != Entries.of(leaf, mask).memory_order:
        return None
    bits = leaf.detach().view(BITS[leaf.dtype])
    return chosen.in_memory(name, mask), chosen.in_memory(name, bits)


def _source(name: str, leaf: Tensor, chosen: Chosen, values: Tensor) -> Any:
    """Return the bits of new values as a weight is visited, or None if they lie otherwise."""
    if type(values) not in (Tensor, torch.nn.Parameter):
        return None
    if values.stride() != leaf.stride() or (values.dtype, values.device) != (
        leaf.dtype,
        leaf.device,
    ):
        return None
    return chosen.in_memory(name, values.detach().view(BITS[leaf.dtype]))
