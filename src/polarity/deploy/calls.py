"""Record which linear layers a model calls, and on what."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Call", "recording"]


@dataclass(frozen=True)
class Call:
    """One call of a linear layer, described by its input.

    Attributes:
        shape: of the input, features last.
        stride: of the input.
        dtype: of the input.
        device: of the input.
        dense_only: why no sparse product can replace this call; empty if one can.
        needs_gradient: whether a gradient of the input was asked for.
        autocast: the dtype of the products under autocast; None outside it.
    """

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    dense_only: str = ""
    needs_gradient: bool = False
    autocast: torch.dtype | None = None

    @property
    def rows(self) -> int:
        """Number of vectors in the input."""
        return torch.Size(self.shape[:-1]).numel()


@contextmanager
def recording(layers: Mapping[str, nn.Linear]) -> Iterator[dict[str, list[Call]]]:
    """Record every call of these layers, by name.

    Wrap ``forward``: a hook would switch off the fused path of ``nn.TransformerEncoderLayer``,
    which reads the weights of its layers without calling them.
    """
    calls: dict[str, list[Call]] = {name: [] for name in layers}

    def wrapped(forward: Callable[..., Tensor], seen: list[Call]) -> Callable[..., Tensor]:
        def record(*args: Any, **kwargs: Any) -> Tensor:
            x = args[0] if args else kwargs.get("input")
            if isinstance(x, Tensor):  # otherwise the layer itself raises
                seen.append(_describe(x))
            return forward(*args, **kwargs)

        return record

    wrapped_layers = {name: layer for name, layer in layers.items() if "forward" not in vars(layer)}
    try:
        for name, layer in wrapped_layers.items():
            vars(layer)["forward"] = wrapped(layer.forward, calls[name])
        yield calls
    finally:
        for layer in wrapped_layers.values():
            vars(layer).pop("forward", None)


def _describe(x: Tensor) -> Call:
    kind = x.device.type
    if x.is_nested or x.layout is not torch.strided:
        return Call((), (), x.dtype, x.device, "its input is not a strided tensor")
    autocast = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return Call(
        tuple(x.shape),
        x.stride(),
        x.dtype,
        x.device,
        needs_gradient=x.requires_grad and torch.is_grad_enabled(),
        autocast=torch.get_autocast_dtype(kind) if autocast else None,
    )
