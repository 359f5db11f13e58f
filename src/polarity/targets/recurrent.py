"""Keep the list of weights that RNN, LSTM and GRU hold in step with computed weights."""

from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

__all__ = ["refresh_flat_weights", "release_flat_weights"]

_ATTRIBUTE = "_polarity_release"


class _MoveAndRelease:
    """``_apply`` of one recurrent module, which collects the weights in ``_flat_weights`` again."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, *args: Any, **kwargs: Any) -> nn.Module:
        type(self.module)._apply(self.module, *args, **kwargs)  # type: ignore[no-untyped-call]
        _detach_flat_weights(self.module)
        return self.module


def release_flat_weights(module: nn.Module) -> None:
    """Keep a recurrent module with computed weights copyable, and its graph collectable.

    ``RNNBase.forward`` and ``.to()`` leave the tensors they computed in ``_flat_weights``; for
    parametrized weights these hang on the autograd graph, which ``deepcopy`` and swapping refuse
    and which would live until the next forward pass.
    """
    if isinstance(module, nn.RNNBase) and not hasattr(module, _ATTRIBUTE):
        setattr(module, _ATTRIBUTE, module.register_forward_hook(_detach_flat_weights))
        module._apply = _MoveAndRelease(module)  # type: ignore[method-assign]
        _detach_flat_weights(module)


def refresh_flat_weights(module: nn.Module) -> None:
    """Undo :func:`release_flat_weights` once the weights are plain parameters again."""
    if hasattr(module, _ATTRIBUTE) and not parametrize.is_parametrized(module):
        getattr(module, _ATTRIBUTE).remove()
        delattr(module, _ATTRIBUTE)
        del module._apply
        module._init_flat_weights()  # type: ignore[operator]


def _detach_flat_weights(module: nn.Module, *_: Any) -> None:
    weights: list[torch.Tensor | None] = module._flat_weights  # type: ignore[assignment]
    module._flat_weights = [None if each is None else each.detach() for each in weights]  # type: ignore[assignment]
    # The module compares these with its weights, and collects the weights again if one differs.
    module._flat_weight_refs = [_nothing for _ in weights]  # type: ignore[assignment]


def _nothing() -> None:
    """Stand for a weak reference whose tensor is gone."""
