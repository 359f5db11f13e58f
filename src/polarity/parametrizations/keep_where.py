"""Zero the entries outside a mask, in one integer multiplication."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["BITS", "SMALL", "clear_outside", "is_transformed", "keep_where"]

# The integer type as wide as a floating one: multiplying bits by 0 or 1 keeps or clears them.
BITS = {
    torch.float16: torch.int16,
    torch.bfloat16: torch.int16,
    torch.float32: torch.int32,
    torch.float64: torch.int64,
}
# Up to this many entries torch's own operations cost least, and Python most.
SMALL = 2**11
# Below this many entries numpy costs more to call than it saves.
_WORTH_NUMPY = 2**15


def keep_where(mask: Tensor, values: Tensor) -> Tensor:
    """Return ``values`` where ``mask`` and ``+0.0`` elsewhere, differentiably and bit for bit.

    The same as ``torch.where(mask, values, 0.0)``, gradient included: an entry outside the mask is
    a clean zero whatever it holds (``NaN`` and negative values too), and so is its gradient. The
    bits of the values are multiplied by the mask's 0 or 1 as integers, which vectorises on a CPU
    where a selection by bool does not.

    Args:
        mask: bool tensor.
        values: floating tensor of the same shape.

    Returns:
        A new tensor of the dtype of ``values``.

    Example:
        >>> import torch
        >>> keep_where(torch.tensor([True, False, False]), torch.tensor([-1.0, -2.0, torch.nan]))
        tensor([-1.,  0.,  0.])
    """
    if values.numel() <= SMALL or is_transformed(values):
        # A compiler fuses this well, and vmap cannot look inside the function below, whose Python
        # costs more than it saves where there is little to mask.
        return torch.where(mask, values, 0.0)
    result: Tensor = _KeepWhere.apply(values, mask)
    return result


def clear_outside(mask: Tensor, values: Tensor) -> Tensor:
    """Set ``values`` to ``+0.0`` outside ``mask``, in place, bit for bit, and return them.

    Args:
        mask: bool tensor.
        values: floating tensor of the same shape, of which autograd keeps no record.

    Example:
        >>> import torch
        >>> clear_outside(torch.tensor([True, False]), torch.tensor([-1.0, torch.nan]))
        tensor([-1.,  0.])
    """
    bits = BITS.get(values.dtype)
    if bits is None:
        return values.masked_fill_(~mask, 0)
    held = values.view(bits)
    _multiply(held, mask.view(torch.uint8), held)
    return values


def is_transformed(values: Tensor) -> bool:
    """Whether a compiler, torch.func, or autograd's own batching is at work."""
    return (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or torch._C._functorch.is_legacy_batchedtensor(values)
    )


def _multiply(bits: Tensor, ones: Tensor, out: Tensor) -> None:
    """Write ``bits * ones`` to ``out``; ``ones`` is a uint8 tensor of zeros and ones."""
    if _numpy_can(bits):
        # One pass in pieces that fit the cache; torch first widens all of ``ones``, in fresh pages.
        np.multiply(bits.numpy(), ones.numpy(), out=out.numpy())
        torch.autograd.graph.increment_version(out)
    else:
        torch.mul(bits, ones, out=out)


def _numpy_can(values: Tensor) -> bool:
    return (
        values.numel() >= _WORTH_NUMPY
        and values.is_cpu
        and type(values) is Tensor
        and torch.get_num_threads() == 1
        and torch._C._len_torch_dispatch_stack() == 0
        and torch._C._get_tracing_state() is None
    )


class _KeepWhere(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, mask: Tensor) -> Tensor:
        # One signature with ctx, not setup_context: that one inspects signatures at every call.
        ctx.save_for_backward(mask)
        ctx.save_for_forward(mask)
        bits = BITS.get(values.dtype)
        if bits is None:
            return torch.where(mask, values, 0.0)
        ones = mask.view(torch.uint8)
        if not _numpy_can(values.view(bits)):
            return (values.view(bits) * ones).view(values.dtype)
        kept = torch.empty_like(values)
        _multiply(values.view(bits), ones, kept.view(bits))
        return kept

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (mask,) = ctx.saved_tensors
        return keep_where(mask, grads[0]), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        (mask,) = ctx.saved_tensors
        return keep_where(mask, tangents[0])
