"""Masks that ``torch.nn.utils.prune`` keeps on a module."""

from collections.abc import Collection, Iterable, Sequence

import torch
from torch import Tensor, nn

from polarity._warnings import warn_caller
from polarity.targets.defaults import Use
from polarity.targets.state_keys import TORCH_MASK, TORCH_STORED

__all__ = ["refuse_uneven_masks", "torch_mask", "warn_of_torch_masks"]


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


def warn_of_torch_masks(uses: Iterable[Use], taken: Collection[str], call: str) -> None:
    """Warn of tensors that ``torch.nn.utils.prune`` goes on masking after a call.

    Args:
        uses: every use of every parameter of the model.
        taken: names of those whose masks the call takes over.
        call: the call, for the message.
    """
    left = [
        u for u in uses if u.name not in taken and torch_mask(u.module, u.tensor_name) is not None
    ]
    if not left:
        return
    first, more = left[0], f" and {len(left) - 1} more" if len(left) > 1 else ""
    path = first.name.rpartition(".")[0]
    module = f"model.get_submodule({path!r})" if path else "model"
    remove = f"torch.nn.utils.prune.remove({module}, {first.tensor_name!r})"
    warn_caller(
        f"torch.nn.utils.prune still holds a mask on {first.name!r}{more}, which {call} leaves as "
        f"it is, with its hook: {remove} makes it permanent, mask_weights(model, "
        f"targets={first.name!r}) takes it over"
    )
