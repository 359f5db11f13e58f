"""Which linear layers a model really calls, on what, and which follow each other directly."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Call", "followers", "recording"]

# Layers that keep the order of memory of what they are given, and care for none.
_ELEMENTWISE = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.Mish, nn.ELU, nn.SELU, nn.CELU),
    *(nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Softsign, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid),
    *(nn.Identity, nn.Dropout, nn.AlphaDropout),
)


@dataclass(frozen=True)
class Call:
    """One call of a linear layer: what its input looked like.

    Attributes:
        shape: of the input, features last.
        stride: of the input.
        dtype: of the input.
        device: of the input.
        dense_only: why no sparse product can stand in for this call; empty if one can.
    """

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    dense_only: str = ""

    @property
    def rows(self) -> int:
        """Vectors in the input."""
        return torch.Size(self.shape[:-1]).numel()


@contextmanager
def recording(layers: Mapping[str, nn.Linear]) -> Iterator[dict[str, list[Call]]]:
    """Write down every call of these layers, by name.

    Their ``forward`` is wrapped; a hook would turn off the fused path of
    ``nn.TransformerEncoderLayer``, which reads the weights of its layers and calls none.
    """
    calls: dict[str, list[Call]] = {name: [] for name in layers}

    def wrapped(forward: Callable[..., Tensor], seen: list[Call]) -> Callable[..., Tensor]:
        def record(*args: Any, **kwargs: Any) -> Tensor:
            x = args[0] if args else kwargs.get("input")
            if isinstance(x, Tensor):  # else the layer itself says what is wrong
                seen.append(_describe(x))
            return forward(*args, **kwargs)

        return record

    open_to_it = {name: layer for name, layer in layers.items() if "forward" not in vars(layer)}
    try:
        for name, layer in open_to_it.items():
            vars(layer)["forward"] = wrapped(layer.forward, calls[name])
        yield calls
    finally:
        for layer in open_to_it.values():
            vars(layer).pop("forward", None)


def _describe(x: Tensor) -> Call:
    dense_only = ""
    kind = x.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        dense_only = "called under autocast"
    elif x.is_nested or x.layout is not torch.strided:
        dense_only = "its input is not a strided tensor"
        return Call((), (), x.dtype, x.device, dense_only)
    return Call(tuple(x.shape), x.stride(), x.dtype, x.device, dense_only)


def followers(model: nn.Module) -> dict[nn.Module, nn.Module]:
    """Return pairs of layers of which the second reads the first one's output, and nothing else.

    Those are layers of one ``nn.Sequential`` with nothing but elementwise layers between them,
    each in one place of the model only. Between two such layers any order of memory will do.
    """
    places: dict[nn.Module, int] = {}
    for _, module in model.named_modules(remove_duplicate=False):
        places[module] = places.get(module, 0) + 1
    pairs: dict[nn.Module, nn.Module] = {}
    for parent in model.modules():
        if not isinstance(parent, nn.Sequential) or type(parent).forward is not (
            nn.Sequential.forward
        ):
            continue
        inner = [each for each in parent if type(each) not in _ELEMENTWISE]
        pairs.update(
            (first, second)
            for first, second in pairwise(inner)
            if places[first] == places[second] == 1
        )
    return pairs
