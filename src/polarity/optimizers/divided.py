"""An optimizer's state that is whole, divided among ranks as its parameters are."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from polarity._shards import is_sharded, rows_of, shard_like

__all__ = ["divided_state"]


def divided_state(optimizer: Any, held: Mapping[str, Any]) -> dict[str, Any]:
    """Return a ``state_dict`` in which sharded parameters have this rank's rows of whole state.

    Args:
        optimizer: the one that is to take it.
        held: a ``state_dict`` that fits it; what is divided already stays.
    """
    state = dict(held["state"])
    for group, theirs in zip(optimizer.param_groups, held["param_groups"], strict=True):
        for parameter, place in zip(group["params"], theirs["params"], strict=True):
            if is_sharded(parameter) and place in state:
                state[place] = {key: _rows(value, parameter) for key, value in state[place].items()}
    return {**held, "state": state}


def _rows(value: Any, parameter: Tensor) -> Any:
    """Return this rank's rows of a tensor of a parameter's whole shape, and anything else as is."""
    if not isinstance(value, Tensor) or is_sharded(value) or value.shape != parameter.shape:
        return value
    return shard_like(value[rows_of(parameter)].to(parameter.device), parameter)
