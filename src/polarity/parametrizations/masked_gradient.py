"""A leaf seen as it is, of which only the gradient is masked."""

from functools import cache, partial
from sys import getrefcount
from typing import Any, cast

import torch
from torch import Tensor

from polarity.parametrizations.keep_where import clear_outside, keep_where
from polarity.parametrizations.kept_zeros import KeptZeros, zeros_of

__all__ = ["product_of_zeros", "seen_directly"]


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
    _alone()  # found out now, not amid a backward pass
    seen = leaf.view_as(leaf)
    kept, node = zeros_of(leaf), cast(Any, seen.grad_fn)
    held = mask if kept is None else kept.mask_of_gradients(leaf, mask)
    # Behind the node: who asks for the gradient of the weight itself gets all of it.
    node.register_hook(partial(_masked, held, kept))
    return seen


def product_of_zeros(m: Tensor, v: Tensor) -> Tensor:
    """Return the product of two leaves that are zero in the same places.

    Zero times zero passes on no gradient, so nothing is left to mask; it is only noted which
    gradients the leaves get from here.
    """
    product = m * v
    node: Any = product.grad_fn
    node.register_hook(partial(_multiplied, zeros_of(m), zeros_of(v)))
    return product


def _multiplied(
    of_m: KeptZeros | None, of_v: KeptZeros | None, inputs: tuple[Tensor | None, ...], _: Any
) -> None:
    for kept, gradient in zip((of_m, of_v), inputs, strict=True):
        if kept is not None and gradient is not None:
            kept.masked = gradient.data_ptr(), gradient._version


def _masked(
    mask: Tensor,
    kept: KeptZeros | None,
    inputs: tuple[Tensor | None],
    outputs: tuple[Tensor | None],
) -> tuple[Tensor] | None:
    """Mask the gradient in place if nobody else will see it, else give a masked one instead.

    The mask is one of bools, or of integers 0 and -1 as wide as the entries. The gradient of the
    leaf, of the node's *inputs*, is a view of the gradient of its outputs, the weight.
    """
    (gradient,), (whole,) = inputs, outputs
    if gradient is None or whole is None:
        return None
    result = None
    if (
        torch.is_grad_enabled()
        or gradient.stride() != mask.stride()
        or _holders(gradient, whole) != _alone()[whole._base is None]
    ):
        gradient = keep_where(mask != 0, gradient)
        result = (gradient,)
    elif mask.dtype == torch.bool:
        clear_outside(mask, gradient)
    else:
        gradient.view(mask.dtype).bitwise_and_(mask)
    if kept is not None:
        kept.masked = gradient.data_ptr(), gradient._version
    return result


def _holders(gradient: Tensor, whole: Tensor) -> tuple[int, ...]:
    """Count who holds the gradient of a weight, in Python and below, and its memory.

    ``gradient`` is a view of ``whole``, which may be a view itself.
    """
    base, storage = gradient._base, whole.untyped_storage()
    return (
        getrefcount(whole),
        getrefcount(base),
        whole._use_count(),
        0 if base is None else base._use_count(),
        torch._C._storage_Use_Count(storage._cdata),
        storage.resizable(),  # not if it is the memory of an array
    )


@cache
def _alone() -> dict[bool, tuple[int, ...]]:
    """Count who holds a gradient that nobody else holds, when it is no view and when it is one.

    By trying: the numbers depend on the versions of Python and PyTorch.
    """
    counts = {}

    def note(inputs: tuple[Tensor], outputs: tuple[Tensor]) -> None:
        (gradient,), (whole,) = inputs, outputs
        counts[whole._base is None] = _holders(gradient, whole)

    with torch.enable_grad():
        leaf, factor = torch.zeros(2, 2, requires_grad=True), torch.ones(2, 2)
        for turned in (False, True):
            seen = leaf.view_as(leaf)
            node: Any = seen.grad_fn
            node.register_hook(note)
            product = torch.mul(seen.t() if turned else seen, factor)
            torch.autograd.backward(product.sum())
    return counts
