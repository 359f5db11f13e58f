"""Masks that ``torch.nn.utils.prune`` keeps on a module."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from polarity.targets.selectors import Use
from polarity.targets.state_keys import TORCH_MASK, TORCH_STORED

__all__ = ["refuse_uneven_masks", "torch_mask"]


def torch_mask(module: nn.Module, tensor_name: str) -> Tensor | None:
    """Return the mask that ``torch.nn.utils.prune`` holds on a tensor, or None."""
    if f"{tensor_name}{TORCH_STORED}" not in module._parameters:
        return None
    return module._buffers.get(f"{tensor_name}{TORCH_MASK}")


def refuse_uneven_masks(owners: Sequence[Use]) -> None:
    """Raise if ``torch.nn.utils.prune`` masks a tied weight for one of its users alone."""
    first, *others = owners
    theirs = torch_mask(first.module, first.tensor_name)
    for other in others:
        its = torch_mask(other.module, other.tensor_name)
        same = its is None if theirs is None else its is not None and torch.equal(theirs, its)
        if not same:
            raise ValueError(
                f"{first.name} and {other.name} are one tensor, but torch.nn.utils.prune does not "
                "mask them alike: give both the same mask, or exclude both"
            )
