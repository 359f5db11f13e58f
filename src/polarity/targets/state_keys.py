"""Checkpoints with plain names load into a model whose weights carry masks."""

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.hooks import RemovableHandle

from polarity.parametrizations.masked import MaskedWeight
from polarity.parametrizations.sign_in import SignInMW, balanced_factors

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
            inside = f"{prefix}parametrizations.{tensor_name}."
            ours = {f"{inside}{key}" for key in chain.state_dict() if "." not in key}
            _match_dtype(chain, state_dict, f"{inside}0.mask")
            if not ours <= state_dict.keys():
                given = _taken(state_dict, inside, f"{prefix}{tensor_name}")
                if given is not None:
                    for key, value in _converted(chain, *given):
                        state_dict[f"{inside}{key}"] = value


def _match_dtype(chain: Any, state_dict: dict[str, Any], key: str) -> None:
    """Convert a mask of a checkpoint (bool in older ones) to the weight's dtype, for ``assign``."""
    if key in state_dict and isinstance(chain[0], MaskedWeight):
        state_dict[key] = state_dict[key].to(chain[0].mask.dtype)


def _taken(
    state_dict: dict[str, Any], inside: str, plain: str
) -> tuple[Tensor, Tensor | None, bool] | None:
    """Take a weight out of a checkpoint, whatever its form there: value, mask, enforced or not."""
    factors = [state_dict.pop(f"{inside}original{i}", None) for i in (0, 1)]
    if factors[0] is not None and factors[1] is not None:
        weight = factors[0] * factors[1]
    else:
        keys = (f"{inside}original", plain, f"{plain}_orig")
        found = [state_dict.pop(key) for key in keys if key in state_dict]
        if not found:
            return None
        weight = found[0]
    masks = [state_dict.pop(key, None) for key in (f"{inside}0.mask", f"{plain}_mask")]
    mask = masks[0] if masks[0] is not None else masks[1]
    enforced = bool(state_dict.pop(f"{inside}0._extra_state", True))
    for key in [key for key in state_dict if key.startswith(inside)]:
        del state_dict[key]
    return weight, mask, enforced


@torch.no_grad()
def _converted(
    chain: Any, weight: Tensor, mask: Tensor | None, enforced: bool
) -> Iterator[tuple[str, Any]]:
    """What the checkpoint of this chain would hold if it had this value, and this mask."""
    first = chain[0]
    for place, each in enumerate(chain):
        for key, value in each.state_dict().items():
            yield f"{place}.{key}", value
    if not isinstance(first, MaskedWeight):
        yield "original", weight
        return
    # A mask that comes with the checkpoint is enforced as it was there; ours stays as it is.
    enforced = first.enforce if mask is None else enforced
    mask = (first.mask if mask is None else (mask != 0).to(first.mask.dtype)).to(weight.device)
    yield "0.mask", mask
    yield "0._extra_state", torch.tensor(enforced)
    fits = weight.shape == mask.shape  # or else load_state_dict says so
    if fits and enforced:
        weight = weight.masked_fill(mask == 0, 0)
    if isinstance(first, SignInMW):
        m, v = balanced_factors(weight, first.beta.to(weight.device))
        yield "original0", m.masked_fill_(mask == 0, 0) if fits and enforced else m
        yield "original1", v
    else:
        yield "original", weight


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
