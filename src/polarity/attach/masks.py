"""Attach masks to the weights of any model."""

from collections.abc import Iterable, Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

from polarity.parametrizations.lean_chain import register_lean
from polarity.parametrizations.masked import MaskedWeight, as_mask
from polarity.targets.recurrent import release_flat_weights
from polarity.targets.search import Target, all_targets, find_targets
from polarity.targets.selectors import Selector
from polarity.targets.state_keys import accept_plain_checkpoints
from polarity.targets.torch_prune import torch_mask

__all__ = ["attach_masks", "mask_weights", "masked_leaves", "own_class", "set_mask"]


def mask_weights(
    model: nn.Module,
    *,
    targets: Selector | None = None,
    exclude: Selector | None = None,
    masks: Mapping[str, Tensor] | None = None,
    verbose: bool = False,
) -> nn.Module:
    """Put a :class:`MaskedWeight` on every prunable weight of a model, in place.

    The masks start as all ones, so nothing changes until something is pruned. The parameters stay
    the objects they are: an optimizer built earlier keeps training them. A weight that is masked
    already is left as it is, so calling this twice does no harm. A weight pruned by
    ``torch.nn.utils.prune`` is taken over with its mask.

    Call it before wrapping the model in ``DistributedDataParallel`` and before ``torch.compile``.

    Args:
        model: any module.
        targets: which weights, see :func:`find_targets`; by default all it finds, or those that
            ``masks`` names.
        exclude: which weights to leave out, in the same forms.
        masks: masks to start from, ``{name: mask}`` under plain names (a ``torch.nn.utils.prune``
            buffer's name, ``layer.weight_mask``, is understood too); bool, or zeros and ones of any
            dtype, in the shape of their weight.
        verbose: print the table of what was masked and what was skipped, and why.

    Returns:
        The model.

    Raises:
        ValueError: if there is nothing to prune (see :func:`find_targets`), or a mask has an
            unknown name, another shape, or values besides zeros and ones; the model is unchanged.

    Example:
        >>> from torch import nn
        >>> model = mask_weights(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))
        >>> model[0].parametrizations.weight[0]
        MaskedWeight((3, 4), density=1)
    """
    if masks is not None:
        masks = _checked_masks(model, masks)
        targets = tuple(masks) if targets is None else targets
    found = find_targets(model, targets, exclude)
    if masks is not None and (stray := [name for name in masks if name not in found]):
        why = found.skipped.get(stray[0], "not among the selected weights")
        raise ValueError(f"masks holds {stray[0]!r}, which is {why}")
    attach_masks(found)
    for name, mask in (masks or {}).items():
        set_mask(found[name], mask)
    if verbose:
        print(found)
    return model


def attach_masks(found: Mapping[str, Target]) -> None:
    """Register one MaskedWeight per target, shared by all its owners; masked ones are left."""
    for target in found.values():
        masking, owners = target.masking, target.owners
        as_it_is = True
        if masking is None:
            masking = MaskedWeight(torch.empty(0, dtype=torch.bool))
            masking.mask = target.mask  # nobody else has it: no need to copy it
            for use in owners:
                if torch_mask(use.module, use.tensor_name) is not None:
                    prune.remove(use.module, use.tensor_name)  # type: ignore[no-untyped-call]
                    as_it_is = False
        for use in owners:
            accept_plain_checkpoints(use.module)
            release_flat_weights(use.module)
            if not parametrize.is_parametrized(use.module, use.tensor_name):
                own_class(use.module)
                _register(use.module, use.tensor_name, masking, as_it_is)


def _register(module: nn.Module, tensor_name: str, masking: MaskedWeight, as_it_is: bool) -> None:
    """Register a masking; with ``as_it_is`` the weight is stored without being copied."""
    if not as_it_is:
        register_lean(module, tensor_name, masking)
        return
    # Under a mask of all ones the weight itself is what is stored: no need to compute it twice.
    chain = register_lean(module, tensor_name, nn.Identity())
    masking.train(module.training)
    chain[0] = masking


@torch.no_grad()
def set_mask(target: Target, mask: Tensor) -> None:
    """Install a mask and zero what is stored outside it; revived entries start at zero."""
    masking = cast(MaskedWeight, target.masking)
    mask = mask.to(masking.mask.device)
    born = mask & ~masking.mask if masking.enforce else torch.zeros_like(mask)
    masking.mask.copy_(mask)
    masking.enforce = True
    masking.clear(target.stored, born)


def masked_leaves(found: Iterable[Target]) -> list[tuple[Tensor, Tensor]]:
    """Return (trained leaf, mask) of every target, for its optimizer's state."""
    return [(leaf, target.mask) for target in found for leaf in target.stored]


def own_class(module: nn.Module) -> None:
    """Give a parametrized module a class that no other module has.

    ``parametrize`` keeps a tensor as a property of a class made for the module. A deepcopy has
    that class too: changing one of the two would break the other.
    """
    if parametrize.is_parametrized(module):
        shared = type(module)
        contents = {k: v for k, v in vars(shared).items() if k not in ("__dict__", "__weakref__")}
        module.__class__ = type(shared.__name__, shared.__bases__, contents)


def _checked_masks(model: nn.Module, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the masks under the targets' own names, as bool tensors of the right shape."""
    by_name = {use.name: target for target in all_targets(model) for use in target.uses}
    checked: dict[str, Tensor] = {}
    for given, mask in masks.items():
        target = by_name.get(given) or by_name.get(given.removesuffix("_mask"))
        if target is None:
            raise ValueError(f"masks holds {given!r}, which the model lacks")
        if isinstance(mask, Tensor) and mask.shape != target.shape:
            raise ValueError(
                f"mask of {given!r} has shape {tuple(mask.shape)}, "
                f"expected the weight's {tuple(target.shape)}"
            )
        try:
            bools = as_mask(mask)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{given!r}: {error}") from None
        if not torch.equal(checked.setdefault(target.name, bools), bools):
            raise ValueError(f"masks holds {given!r} and another mask of the same tensor")
    return checked
