"""A plain copy of a model to compute scores on, so that the model itself is never touched."""

import copy
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from polarity.attach.masks import attach_masks
from polarity.attach.merge import merge
from polarity.targets.search import Target, all_targets


def merged_copy(
    model: nn.Module, found: Mapping[str, Target], dtype: torch.dtype | None = None
) -> tuple[nn.Module, dict[str, Tensor]]:
    """Return a copy whose weights are plain parameters, and those of ``found`` by name.

    The copy computes with the effective weights. Only the weights of ``found`` require gradients.

    Args:
        model: any module, whatever is attached to it.
        found: the weights that will be scored.
        dtype: what floating parameters and buffers of the copy are cast to; None leaves them.
    """
    # deepcopy refuses tensors that were computed, which pruning hooks and recurrent modules keep.
    computed = {id(each): each.detach().clone() for each in _computed_tensors(model)}
    twin = copy.deepcopy(model, computed)
    attach_masks({target.name: target for target in all_targets(twin) if target.name in found})
    merge(twin)
    if dtype is not None:
        twin.to(dtype)
    twin.requires_grad_(False)
    plain = {target.name: target.stored[0] for target in all_targets(twin)}
    return twin, {name: plain[name].requires_grad_() for name in found}


def _computed_tensors(model: nn.Module) -> Iterator[Tensor]:
    """Tensors with a graph that modules keep as ordinary attributes, alone or in lists."""
    for module in model.modules():
        for value in vars(module).values():
            several = value if isinstance(value, (list, tuple)) else (value,)
            yield from (each for each in several if isinstance(each, Tensor) and not each.is_leaf)
