"""Take the signed mask of a pruned network."""

from collections.abc import Collection, Iterable, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from polarity._checks import check_entries
from polarity._running import outside_inference_mode
from polarity.attach.masks import masked_weights
from polarity.targets.selectors import Selector, select
from polarity.targets.shards import ranks_of_model, together
from polarity.targets.target import Target, check_has_values
from polarity.tickets.signed_mask import SignedMask, targets_by_name

__all__ = ["signed_mask"]


@outside_inference_mode
@torch.no_grad()
def signed_mask(model: nn.Module, *, include: Selector | None = None) -> SignedMask:
    r"""Take the mask and the signs of a pruned network, and nothing else.

    .. math:: s = \operatorname{sign}(\theta) \odot m

    Signs are read through the mask: what is stored outside it is not part of the ticket. This is
    also true of a mask that is remembered without being enforced (strategy ``standard``): its
    pruned entries are pruned in the ticket, even where they have a value again. A survivor that is
    exactly zero (+0 or −0) stays a survivor, without a sign.

    Args:
        model: a network with masked weights.
        include: parameters whose signs are taken although they carry no mask: a module type (all
            that modules of this type hold themselves), a parameter name, a module name or glob
            (all below), a predicate ``(name, parameter) -> bool``, or several of these. None by
            default. The paper's code takes the signs of the classifier and the biases too,
            ``include=(nn.Linear, nn.Conv2d)``, and leaves normalisation alone.

    Returns:
        The :class:`SignedMask`, on the CPU. The model is not changed. Of a model that
        ``fully_shard`` has divided its tensors are DTensors, divided like it; all ranks call.

    Raises:
        ValueError: if the model carries no mask, ``include`` matches nothing, or a tensor holds
            NaN or infinite survivors, is lazy, or is not floating point; it is named.
        TypeError: if ``model`` is not a module, or a selector is of another type.

    Example:
        >>> from torch import nn
        >>> import polarity as pol
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
        >>> _ = pol.mask_weights(model, exclude="2")
        >>> signed_mask(model).names
        ('0.weight',)
        >>> signed_mask(model, include=nn.Linear).names
        ('0.weight', '0.bias', '2.weight', '2.bias')

    Source: *Find A Winning Sign*, section 3.1; its official code for ``include``.
    """
    masked = masked_weights(model)
    check_has_values(masked.values())
    everything = targets_by_name(model)
    ranks = ranks_of_model(model)

    def taken() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return _taken(everything, masked, include)

    signs, masks = together(ranks, taken, list(everything))
    network = {name: tuple(target.shape) for name, target in everything.items()}
    return SignedMask(signs, masks, network)


def _taken(
    everything: Mapping[str, Target], masked: Collection[str], include: Selector | None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the signs and masks of a ticket, of a sharded model as DTensors."""
    included = _included(everything.values(), include) | set(masked)
    signs, masks = {}, {}
    for name, target in everything.items():
        if name not in included:
            continue
        weight = target.weight
        if not weight.is_floating_point():
            raise ValueError(
                f"{name!r} is of dtype {weight.dtype}, expected a floating-point one: leave it out "
                "of include"
            )
        if name in masked:
            weight = weight.masked_fill(~target.mask, 0)
            masks[name] = _on_cpu(target, target.mask)
        check_entries(f"weight {name!r}", weight)
        signs[name] = _on_cpu(target, weight.sign().to(torch.int8))
    return signs, masks


def _on_cpu(target: Target, values: Tensor) -> Tensor:
    """Return values on the CPU; a piece divided as its weight is, on the devices of the ranks."""
    return target.as_given(values) if target.is_sharded else values.cpu().contiguous()


def _included(everything: Collection[Target], include: Selector | None) -> set[str]:
    """Return the names of the targets with a use that ``include`` selects."""
    if include is None:
        return set()
    uses = [use for target in everything for use in target.uses]
    one = isinstance(include, (str, type, nn.Module)) or not isinstance(include, Iterable)
    chosen: set[str] = set()
    for each in cast(Iterable[object], (include,) if one else include):
        if isinstance(each, type) and issubclass(each, nn.Module):
            # Everything that such a module holds, biases included: select would take weights only.
            found = {use.name for use in uses if isinstance(use.module, each)}
            if not found:
                raise ValueError(
                    f"include={each.__name__} matches nothing, expected the type of a module"
                )
        else:
            found = select(uses, cast(Selector, (each,)), "include")
        chosen |= found
    return {target.name for target in everything if chosen & {use.name for use in target.uses}}
