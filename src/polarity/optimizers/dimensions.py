"""State of optimizers whose form depends on how many dimensions a parameter has."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from polarity._warnings import warn_caller
from polarity.optimizers.states import state_of

__all__ = ["bound_to_dimensions", "check_takes_vectors", "warn_of_fresh_state"]


def bound_to_dimensions(
    optimizer: torch.optim.Optimizer, state: Mapping[str, Any], shape: torch.Size
) -> list[str]:
    """Return the keys of what an optimizer keeps of a parameter in a form for its dimensions.

    These are tensors of another shape than the parameter's, and all that Adafactor keeps, which
    factors the moments of matrices alone.

    Args:
        optimizer: the one that keeps it.
        state: what it keeps of the parameter.
        shape: of the parameter.
    """
    factors = "Adafactor" in _names(optimizer)
    return [
        key
        for key, value in state.items()
        if isinstance(value, Tensor) and value.dim() > 0 and (factors or value.shape != shape)
    ]


def warn_of_fresh_state(
    optimizers: Iterable[torch.optim.Optimizer], leaves: Iterable[Tensor], form: str
) -> None:
    """Warn of state that follows no change of dimensions and is dropped.

    Args:
        optimizers: those that keep it.
        leaves: the parameters that get other dimensions.
        form: what they are stored as afterwards, in words.
    """
    leaves = list(leaves)
    for each in optimizers:
        keys = {
            key
            for leaf in leaves
            for key in bound_to_dimensions(each, state_of(each).get(leaf, {}), leaf.shape)
        }
        if keys:
            warn_caller(
                f"{type(each).__name__} remembers {', '.join(sorted(keys))}, which has no form for "
                f"{form}: its state of these weights starts afresh"
            )


def check_takes_vectors(optimizers: Sequence[torch.optim.Optimizer], leaves: set[int]) -> None:
    """Raise if an optimizer that takes matrices alone trains one of some parameters, by their ids.

    Raises:
        ValueError: naming the optimizer.
    """
    for each in optimizers:
        held = {id(p) for group in each.param_groups for p in group["params"]}
        if "Muon" in _names(each) and held & leaves:
            raise ValueError(
                f"optimizer={type(each).__name__} takes matrices alone, and a compact weight is "
                "stored as a vector, expected another optimizer for the weights that are compacted"
            )


def _names(optimizer: torch.optim.Optimizer) -> set[str]:
    """Return the names of an optimizer's class and of those that it extends."""
    return {each.__name__ for each in type(optimizer).__mro__}
