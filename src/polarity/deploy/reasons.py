"""Why a linear layer keeps its dense product, whatever its density is."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from torch.nn.utils import parametrize

from polarity.deploy.calls import Call

__all__ = ["LINEAR", "why_no_product", "why_not_called", "why_not_linear"]

# The second is the output projection of attention.
LINEAR = (nn.Linear, NonDynamicallyQuantizableLinear)


def why_not_linear(layer: nn.Module) -> str:
    """Return why a module may compute something else than a linear map, or an empty string."""
    kind = parametrize.type_before_parametrizations(layer)
    if kind not in LINEAR:
        return f"a {kind.__name__} may compute something else than a linear map"
    return "its forward was replaced" if "forward" in vars(layer) else ""


def why_not_called(calls: Sequence[Call], *, autocast: bool) -> str:
    """Return why the recorded calls of a layer have no sparse product, or an empty string.

    Args:
        calls: what was recorded.
        autocast: whether there is a sparse product under autocast.
    """
    if not calls:
        return "not called (its weight may be read directly)"
    if sum(call.rows for call in calls) == 0:
        return "called with no rows"
    for call in calls:
        if call.autocast is not None and not autocast:
            return "called under autocast"
        if call.dense_only:
            return call.dense_only
    return ""


def why_no_product(
    weight: Tensor, dtype: torch.dtype, supported: Callable[[str, torch.dtype], bool]
) -> str:
    """Return why a weight has no sparse product, or an empty string.

    Args:
        weight: as the layer computes with it.
        dtype: of the product.
        supported: whether there is one on a device of some type, in some dtype.
    """
    if not supported(weight.device.type, dtype):
        name = str(dtype).removeprefix("torch.")
        return f"PyTorch has no sparse product in {name} on {weight.device.type}"
    if weight.numel() == 0 or weight.numel() >= 2**31:
        return "empty" if weight.numel() == 0 else "too large for indices of 32 bits"
    return "" if bool(torch.isfinite(weight).all()) else "its weight is not finite"
