"""A model, or a checkpoint of one, as if nothing were attached to it."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from polarity._checks import check_mapping
from polarity._running import tensors_in
from polarity.attach.forms import make_plain
from polarity.attach.merge import merge
from polarity.attach.norms import attached_norms
from polarity.rewind import RewindPoint
from polarity.targets.search import all_targets, attached
from polarity.targets.state_keys import plain_checkpoint
from polarity.targets.torch_prune import refuse_uneven_masks
from polarity.targets.wrappers import unwrapped

__all__ = ["full_copy", "plain_copy", "plain_state"]


def full_copy(model: nn.Module) -> nn.Module:
    """Return a deepcopy of a model, without wrappers, with all that is attached to it.

    ``copy.deepcopy`` alone refuses tensors that were computed with gradients, which the hooks of
    ``torch.nn.utils.prune`` and ``weight_norm`` keep as attributes; the copy holds their values.
    """
    model = unwrapped(model)
    return copy.deepcopy(model, {id(each): each.detach().clone() for each in _computed(model)})


def plain_copy(model: nn.Module) -> nn.Module:
    """Return a copy of a model with its effective weights as plain parameters.

    Masks (also those of ``torch.nn.utils.prune``), Sign-In and interpolated norms come off the
    copy. What others attached, such as ``weight_norm``, is part of the network and stays.

    Raises:
        ValueError: if ``torch.nn.utils.prune`` masks a tied weight for one of its users alone.
    """
    plain = full_copy(model)
    for target in all_targets(plain):
        refuse_uneven_masks(target.owners)
        if target.torch_mask is not None:
            make_plain(target)
    if attached(plain) or attached_norms(plain):
        merge(plain)
    return plain


def plain_state(
    state: nn.Module | RewindPoint | Mapping[str, Any], role: str, network: nn.Module
) -> dict[str, Any]:
    """Return what the ``state_dict`` of a plain network would hold of a model, point or checkpoint.

    The checkpoint of a model with masks, Sign-In or interpolated norms is read by its keys alone.

    Args:
        state: what is read.
        role: the argument's name, for errors.
        network: a plain copy of the model that ``state`` belongs to.

    Raises:
        TypeError: if ``state`` is of another type.
        ValueError: if a RewindPoint does not fit the network.
    """
    if isinstance(state, nn.Module):
        return plain_copy(state).state_dict()
    if isinstance(state, RewindPoint):
        twin = full_copy(network)
        try:
            state.restore_weights(twin)
        except ValueError as error:
            raise ValueError(f"{role}: {error}") from None
        return twin.state_dict()
    check_mapping(role, state, "a state_dict, a model or a RewindPoint")
    return plain_checkpoint(state, network.state_dict())


def _computed(model: nn.Module) -> Iterator[Tensor]:
    """Yield the tensors with a graph that modules keep as ordinary attributes."""
    for module in model.modules():
        yield from (each for each in tensors_in(vars(module)) if not each.is_leaf)
