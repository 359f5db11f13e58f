"""A model, or a checkpoint of one, as if nothing were attached to it."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from polarity.attach.merge import dense_state_dict, merge
from polarity.rewind import RewindPoint

__all__ = ["plain_copy", "plain_state"]


def plain_copy(model: nn.Module) -> nn.Module:
    """Return a copy of a model with plain parameters, whatever polarity attached to the model."""
    plain = copy.deepcopy(model)
    kinds = (type(each).__module__ for each in plain.modules())
    if any(kind.startswith("polarity.parametrizations") for kind in kinds):
        merge(plain)
    return plain


def plain_state(state: nn.Module | RewindPoint | Mapping[str, Any], role: str) -> dict[str, Any]:
    """Return effective weights and buffers by plain name, of a model, a point or a checkpoint.

    The checkpoint of a model with masks, Sign-In or interpolated norms is read by its keys alone.

    Raises:
        TypeError: if ``state`` is of another type.
    """
    if isinstance(state, nn.Module):
        return dense_state_dict(state)
    if isinstance(state, RewindPoint):
        return dict(state.weights)
    if not isinstance(state, Mapping):
        raise TypeError(
            f"{role} must be a state_dict, a model or a RewindPoint, got {type(state).__name__}"
        )
    plain = dict(state)
    for key in state:
        path, dot, rest = key.rpartition("parametrizations.")
        tensor_name, _, what = rest.partition(".")
        inside = f"{path}{dot}{tensor_name}"
        if dot and what in ("original", "original0") and _is_ours(state, inside):
            plain[f"{path}{tensor_name}"] = _effective(state, inside)
            for each in [each for each in plain if each.startswith(f"{inside}.")]:
                del plain[each]
    return plain


def _is_ours(state: Mapping[str, Any], inside: str) -> bool:
    """Whether polarity parametrized a tensor: others (weight_norm, ...) keep the keys they have."""
    return any(f"{inside}.0.{buffer}" in state for buffer in ("mask", "initial"))


@torch.no_grad()
def _effective(state: Mapping[str, Any], inside: str) -> Tensor:
    stored = [state[key] for i in ("", "0", "1") if (key := f"{inside}.original{i}") in state]
    weight: Tensor = stored[0] if len(stored) == 1 else stored[0] * stored[1]
    mask = state.get(f"{inside}.0.mask")
    if mask is None or not bool(state.get(f"{inside}.0._extra_state", True)):
        return weight
    return weight.masked_fill(mask.to(weight.device) == 0, 0)
