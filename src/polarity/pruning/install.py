"""Install the chosen masks in a model, and zero what they prune."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from polarity._shards import piece_of
from polarity.attach.masks import attach_masks
from polarity.selection.chosen import Chosen
from polarity.targets.target import Target
from polarity.targets.writing import write_all

__all__ = ["install"]


@torch.no_grad()
def install(
    found: Mapping[str, Target], chosen: Chosen, values: Sequence[tuple[Tensor, Tensor]] = ()
) -> None:
    """Mask all but the chosen entries, enforce the masks, and zero what is stored outside them.

    All masks are computed before any weight is written: the scores that decide may be views of it.
    Without ``values`` the masks that a model has are changed where they are, piece by piece, if
    that needs nothing that can fail.

    Args:
        found: the weights; those without a mask get one.
        chosen: which of their entries stay.
        values: (tensor, new values) to write, of the survivors and of other tensors. By default
            everything else keeps its values.
    """
    buffers: dict[str, Tensor] = {}
    for name, target in found.items():
        if target.masking is None:
            buffers[name] = torch.empty_like(target.pieces[0].detach())
            chosen.write(name, buffers[name])
    masks = {
        name: piece_of(target.masking.mask) for name, target in found.items() if target.masking
    }
    in_place = {
        name: mask
        for name, mask in masks.items()
        if not values and found[name].is_stored and chosen.writes_in_place(name, mask)
    }
    staged = [(mask, chosen.new_mask(name)) for name, mask in masks.items() if name not in in_place]
    write_all([*values, *staged])
    for name, mask in in_place.items():
        chosen.write(name, mask)
    attach_masks(found, buffers)
    for name, target in found.items():
        assert target.masking is not None
        target.masking.enforce = True
        target.masking.clear(target.stored, chosen.kept[name])
