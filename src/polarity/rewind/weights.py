"""Captured weights: whether they fit a model, and what is to be written to it."""

from collections.abc import Collection, Mapping
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from polarity._checks import check_entries, check_names, check_shape, check_type
from polarity.targets.search import all_targets, plain_buffers

__all__ = ["Only", "check_weights", "staged_weights"]

Only: TypeAlias = Literal["all", "masked", "unmasked"]

_POINT = "the rewind point"


def check_weights(held: Mapping[str, Tensor], model: nn.Module) -> None:
    """Raise unless captured tensors fit a model.

    Raises:
        ValueError: naming the first tensor that is missing, unknown, of another shape, of another
            kind (a floating parameter from integers), or, for a parameter, NaN or infinite. Buffers
            may be infinite, as additive attention masks are.
        TypeError: if something else than a tensor is held.
    """
    parameters = {use.name: t for t in all_targets(model) for use in t.uses}
    buffers = plain_buffers(model)
    shapes = {name: target.shape for name, target in parameters.items()}
    shapes |= {name: value.shape for name, value in buffers.items()}
    check_names(_POINT, held, shapes)
    for name, shape in shapes.items():
        check_type(f"{_POINT}'s {name!r}", held[name], Tensor, "a tensor")
        if not (name in parameters and parameters[name].is_sharded):
            check_shape(_POINT, name, held[name].shape, shape)
        now = parameters[name].stored[0] if name in parameters else buffers[name]
        if _kind(held[name]) != _kind(now):
            raise ValueError(
                f"{_POINT} holds {name!r} in {held[name].dtype}, expected {_kind(now)} values as "
                f"the model's {now.dtype}"
            )
        if held[name].is_meta and not now.is_meta:
            raise ValueError(f"{_POINT} holds {name!r} on the meta device, expected values")
    checked: set[int] = set()
    for name, target in parameters.items():
        here = target.piece(held[name], _POINT)
        if id(held[name]) not in checked and not held[name].is_meta:
            check_entries(f"{_POINT}'s {name!r}", here)
            dtype = target.stored[0].dtype
            if here.dtype != dtype:
                check_entries(f"{_POINT}'s {name!r}, converted to {dtype},", here.to(dtype))
        checked.add(id(held[name]))


@torch.no_grad()
def staged_weights(
    held: Mapping[str, Tensor], model: nn.Module, only: Only, pruned: Collection[str] = ()
) -> list[tuple[Tensor, Tensor]]:
    """Return (tensor of the model, captured value) for all that is to be rewound, unwritten.

    Args:
        held: tensors that :func:`check_weights` accepts.
        model: the model that they go to.
        only: as for :meth:`polarity.RewindPoint.restore_weights`.
        pruned: weights whose entries outside the mask the caller zeroes after writing, so that no
            masked copy of their values is needed.

    Raises:
        ValueError: if a weight has another parametrization that cannot be inverted.
    """
    pairs: list[tuple[Tensor, Tensor]] = []
    for target in all_targets(model):
        here = target.piece(held[target.name], _POINT)
        if target.name in pruned and (target.is_stored or not target.chain):
            pairs.append((target.pieces[0], here))
        elif only == "all" or (only == "masked") == (target.masking is not None):
            pairs += target.staged(here)
    if only != "masked":
        pairs += [(value, held[name]) for name, value in plain_buffers(model).items()]
    return pairs


def _kind(value: Tensor) -> str:
    """Return what kind of numbers a tensor holds."""
    if value.is_complex():
        return "complex"
    if value.is_floating_point():
        return "floating-point"
    return "bool" if value.dtype == torch.bool else "integer"
