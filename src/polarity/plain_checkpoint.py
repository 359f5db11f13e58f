"""Checkpoints with plain names load into a model whose weights carry masks."""

from typing import Any, cast

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.utils.hooks import RemovableHandle

from polarity.parametrizations.masked import MaskedWeight

__all__ = ["accept_plain_checkpoints", "forget_plain_checkpoints", "original_order"]

_ATTRIBUTE = "_polarity_plain_checkpoints"


class _PlainCheckpoints:
    """A ``load_state_dict`` pre-hook of one module, and its parameters' order before attaching."""

    def __init__(self, module: nn.Module) -> None:
        self.order = tuple(module._parameters)
        self.handle: RemovableHandle = module.register_load_state_dict_pre_hook(  # type: ignore[no-untyped-call]
            self
        )

    def __call__(
        self, module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: object
    ) -> None:
        """Rename ``weight`` (dense) or ``weight_orig`` and ``weight_mask`` (torch's pruning)."""
        if not parametrize.is_parametrized(module):
            return
        for tensor_name, chain in module.parametrizations.items():  # type: ignore[union-attr, operator]
            masking = chain[0]
            inside = f"{prefix}parametrizations.{tensor_name}"
            plain = f"{prefix}{tensor_name}"
            if not isinstance(masking, MaskedWeight) or f"{inside}.original" in state_dict:
                continue
            weight = state_dict.pop(plain, None)
            if weight is None:
                weight = state_dict.pop(f"{plain}_orig", None)
            if weight is None:
                continue
            # A mask that comes with the checkpoint was enforced there; ours stays as it is.
            enforce = masking.enforce or f"{plain}_mask" in state_dict
            mask = state_dict.pop(f"{plain}_mask", masking.mask).to(weight.device) != 0
            if weight.shape == mask.shape and enforce:
                weight = torch.where(mask, weight, 0.0)
            state_dict[f"{inside}.original"] = weight
            state_dict[f"{inside}.0.mask"] = mask
            state_dict[f"{inside}.0._extra_state"] = torch.tensor(enforce)


def accept_plain_checkpoints(module: nn.Module) -> None:
    """Let a module take dense checkpoints, and those of ``torch.nn.utils.prune``, once masked.

    A dense checkpoint leaves the masks as they are; what it holds outside them is dropped.
    """
    if not hasattr(module, _ATTRIBUTE):
        setattr(module, _ATTRIBUTE, _PlainCheckpoints(module))


def original_order(module: nn.Module) -> tuple[str, ...]:
    """Return the order of a module's parameters before masks were attached, or none if unknown."""
    return getattr(module, _ATTRIBUTE).order if hasattr(module, _ATTRIBUTE) else ()


def forget_plain_checkpoints(module: nn.Module) -> None:
    """Undo :func:`accept_plain_checkpoints` when the last mask is gone, and restore the order."""
    if _is_masked(module) or not hasattr(module, _ATTRIBUTE):
        return
    hook: _PlainCheckpoints = getattr(module, _ATTRIBUTE)
    hook.handle.remove()
    delattr(module, _ATTRIBUTE)
    # Parametrizing moves a parameter behind its siblings, and optimizer checkpoints go by order.
    for name in hook.order:
        if name in module._parameters:
            module._parameters[name] = module._parameters.pop(name)


def _is_masked(module: nn.Module) -> bool:
    if not parametrize.is_parametrized(module):
        return False
    chains = cast(nn.ModuleDict, module.parametrizations).values()
    return any(
        isinstance(each, MaskedWeight) for chain in chains for each in cast(nn.ModuleList, chain)
    )
