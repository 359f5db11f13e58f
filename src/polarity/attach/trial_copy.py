"""A copy of a model to try something on: its own modules and tensors, all else shared."""

import copy
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

__all__ = ["trial_copy"]

# What a load_state_dict changes or looks at; hooks hold a reference to their module.
_COPIED = {"_parameters", "_buffers", "_modules", "_load_state_dict_pre_hooks"}


@torch.no_grad()
def trial_copy(model: nn.Module) -> nn.Module:
    """Return a copy into which a checkpoint can be loaded to see whether it fits.

    Attributes of the modules that are neither tensors nor modules (loggers, locks, process groups)
    are shared, because many of them cannot be copied; their lists and dicts are copied one deep.
    """
    memo: dict[int, Any] = {}
    kept: list[Any] = []  # ids are those of these objects only while they exist
    for module in model.modules():
        for tensor in (*module._parameters.values(), *module._buffers.values()):
            if isinstance(tensor, Tensor) and not tensor.is_leaf:
                memo[id(tensor)] = tensor.detach().clone()
        # A class that says how it is copied knows better, unless it is one of parametrize's.
        if hasattr(type(module), "__deepcopy__") and not parametrize.is_parametrized(module):
            continue
        for key, value in vars(module).items():
            if key not in _COPIED:
                memo[id(value)] = _shared(value)
                kept.append(value)
    return copy.deepcopy(model, memo)


def _shared(value: Any) -> Any:
    """Return a value itself, or a copy of a container that holds the same values."""
    return copy.copy(value) if type(value) in (list, dict, set, OrderedDict) else value
