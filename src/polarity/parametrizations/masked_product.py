"""The product of two tensors under a mask, in as few passes as autograd allows."""

from typing import Any

import torch
from torch import Tensor

from polarity.parametrizations.keep_where import (
    BITS,
    SMALL,
    clear_outside,
    is_transformed,
    keep_where,
)

__all__ = ["masked_product"]


def masked_product(mask: Tensor, m: Tensor, v: Tensor) -> Tensor:
    r"""Return :math:`m \odot v` where ``mask`` and ``+0.0`` elsewhere, differentiably.

    The same as ``torch.where(mask, m * v, 0.0)``, gradients included. The mask is applied to the
    product in place, and once to the incoming gradient; nothing is kept for the backward pass but
    the arguments themselves.

    Args:
        mask: bool tensor.
        m: floating tensor of the same shape.
        v: the other factor, of the shape and dtype of ``m``.

    Returns:
        A new tensor of the dtype of ``m``.

    Example:
        >>> import torch
        >>> mask = torch.tensor([True, False])
        >>> masked_product(mask, torch.tensor([2.0, 2.0]), torch.tensor([3.0, 3.0]))
        tensor([6., 0.])
    """
    small = m.numel() <= SMALL or m.dtype not in BITS or m.dtype != v.dtype
    if small or is_transformed(m) or is_transformed(v):
        return torch.where(mask, m * v, 0.0)
    result: Tensor = _MaskedProduct.apply(mask, m, v)
    return result


class _MaskedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mask: Tensor, m: Tensor, v: Tensor) -> Tensor:
        # One signature with ctx, not setup_context: that one inspects signatures at every call.
        ctx.save_for_backward(mask, m, v)
        ctx.save_for_forward(mask, m, v)
        product = m * v
        return clear_outside(mask, product)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        mask, m, v = ctx.saved_tensors
        living = keep_where(mask, grads[0])
        return (
            None,
            living * v if ctx.needs_input_grad[1] else None,
            living * m if ctx.needs_input_grad[2] else None,
        )

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        mask, m, v = ctx.saved_tensors
        _, along_m, along_v = tangents
        parts = [a * b for a, b in ((along_m, v), (along_v, m)) if a is not None]
        return keep_where(mask, sum(parts[1:], parts[0]))
