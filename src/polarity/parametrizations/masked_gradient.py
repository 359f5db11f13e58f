"""A leaf seen as it is, of which only the gradient is masked."""

from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from polarity.parametrizations.keep_where import clear_outside, keep_where
from polarity.parametrizations.kept_zeros import bits_of

__all__ = ["seen_directly"]


def seen_directly(leaf: Tensor, mask: Tensor) -> Tensor:
    """Return a leaf's own values, as a tensor that passes on no gradient outside the mask.

    Equal to :func:`keep_where` for a leaf that is zero outside the mask, without a pass over it.

    Args:
        leaf: floating tensor that requires a gradient.
        mask: bool tensor of its shape.

    Example:
        >>> import torch
        >>> leaf = torch.tensor([1.0, 0.0], requires_grad=True)
        >>> seen_directly(leaf, torch.tensor([True, False])).sum().backward()
        >>> leaf.grad
        tensor([1., 0.])
    """
    seen = leaf.view_as(leaf)
    node: Any = seen.grad_fn
    # Behind the node: who asks for the gradient of the weight itself gets all of it.
    node.register_hook(partial(_masked, bits_of(leaf, mask)))
    return seen


def _masked(
    mask: Tensor, inputs: tuple[Tensor | None], outputs: tuple[Tensor | None]
) -> tuple[Tensor] | None:
    """Mask the gradient in place if nobody else will see it, else give a masked one instead.

    The mask is one of bools, or of integers 0 and -1 as wide as the entries. The gradient of the
    leaf, of the node's *inputs*, is a view of the gradient of its outputs, the weight.
    """
    (gradient,), (whole,) = inputs, outputs
    if gradient is None or whole is None:
        return None
    if torch.is_grad_enabled() or gradient.stride() != mask.stride() or not _own(gradient, whole):
        return (keep_where(mask != 0, gradient),)
    if mask.dtype == torch.bool:
        clear_outside(mask, gradient)
    else:
        gradient.view(mask.dtype).bitwise_and_(mask)
    return None


def _own(gradient: Tensor, whole: Tensor) -> bool:
    """Whether only the node at work holds ``whole``, of which ``gradient`` is a view.

    One use of each tensor is that of Python, one that of the engine; what they are views of is used
    by both views and by Python, and the storage by all of them.
    """
    base, uses = gradient._base, _uses_of_a_new_storage() + 1
    if base is None or base._use_count() > 3:
        return False
    if base is not whole:
        uses += 1
        if whole._use_count() > 2 or whole._base is not base:
            return False
    return torch._C._storage_Use_Count(gradient.untyped_storage()._cdata) <= uses


@cache
def _uses_of_a_new_storage() -> int:
    """Whether the storage object that is made to ask counts depends on the version of PyTorch."""
    return torch._C._storage_Use_Count(torch.empty(1).untyped_storage()._cdata)
