"""Install the chosen masks in a model, and zero what they prune."""

from collections.abc import Mapping

import torch
from torch import Tensor

from polarity.selection.chosen import Chosen
from polarity.targets.target import Target

__all__ = ["install"]


@torch.no_grad()
def install(
    found: Mapping[str, Target], chosen: Chosen, values: Mapping[str, Tensor] | None = None
) -> None:
    """Mask all but the chosen entries, enforce the masks, and zero what is stored outside them.

    All masks are written before any weight is zeroed: the scores that decide may be views of it.

    Args:
        found: the weights, every one masked.
        chosen: which of their entries stay.
        values: new values for the survivors, by name. By default they keep theirs.
    """
    for name, target in found.items():
        assert target.masking is not None
        chosen.write(name, target.masking.mask)
        target.masking.enforce = True
    for name, target in found.items():
        assert target.masking is not None
        if values is not None:
            target.write(values[name])
        target.masking.clear(target.stored, ones=chosen.kept[name])
