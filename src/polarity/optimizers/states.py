"""What optimizers remember of parameters: where it is, and whether it has their shapes."""

from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor

from polarity._shards import is_sharded, piece_of
from polarity.optimizers.given import described
from polarity.parametrizations.arithmetic import is_expanded

__all__ = [
    "PER_ENTRY",
    "check_holds",
    "check_state_shapes",
    "entries_of",
    "is_divided",
    "misshapen",
    "note_of_divided",
    "parameters_of",
    "state_of",
]

# The state that PyTorch's optimizers keep for each entry, under the names that others use too.
# Step counts, and the factored moments of Adafactor, have other names and shapes of their own.
PER_ENTRY = (
    "momentum_buffer",
    "exp_avg",
    "exp_avg_sq",
    "max_exp_avg_sq",
    "grad_avg",
    "square_avg",
    "acc_delta",
    "sum",
    "exp_inf",
    "prev",
    "ax",
)


def parameters_of(optimizer: torch.optim.Optimizer) -> set[int]:
    """Return the ids of the parameters that an optimizer trains."""
    return {id(each) for group in optimizer.param_groups for each in group["params"]}


def is_divided(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimizer keeps each parameter's state on one rank only."""
    names = {each.__name__ for each in type(optimizer).__mro__}
    return "ZeroRedundancyOptimizer" in names


def state_of(optimizer: torch.optim.Optimizer) -> MutableMapping[Any, Any]:
    """Return what an optimizer remembers by parameter, as far as it is on this rank."""
    if is_divided(optimizer):
        return optimizer.optim.state  # type: ignore[attr-defined, no-any-return]
    return optimizer.state


def entries_of(state: Mapping[str, Any], shape: torch.Size) -> Iterator[tuple[str, Tensor]]:
    """Yield what a parameter's state keeps for each of its entries: tensors of its shape.

    State of another shape (step counts, factored moments) belongs to no single entry.
    """
    for key, value in state.items():
        if isinstance(value, Tensor) and value.shape == shape and value.dim() > 0:
            yield key, value


def note_of_divided(optimizers: Iterable[torch.optim.Optimizer]) -> tuple[str, ...]:
    """Return a report's note on state that other ranks keep; none where all of it is here."""
    return tuple(
        f"not zeroed: the state that {type(each).__name__} keeps on other ranks; make this call on "
        "every rank"
        for each in optimizers
        if is_divided(each)
    )


def check_holds(
    optimizers: Sequence[torch.optim.Optimizer], leaves: Mapping[str, tuple[Tensor, ...]]
) -> None:
    """Raise unless optimizers together train one of some weights, and their state has its shapes.

    Args:
        optimizers: one or several.
        leaves: the parameters that each weight is stored as, by plain name.

    Raises:
        ValueError: if they hold none of them, or as :func:`check_state_shapes`.
    """
    if not optimizers:
        return
    held = set().union(*(parameters_of(each) for each in optimizers))
    if not any(id(leaf) in held for stored in leaves.values() for leaf in stored):
        raise ValueError(
            f"optimizer={described(optimizers)} holds none of the {len(leaves)} weights "
            f"(the first is {next(iter(leaves))!r}), expected the optimizer that trains them: was "
            "it built for another model?"
        )
    check_state_shapes(optimizers, leaves)


def check_state_shapes(
    optimizers: Iterable[torch.optim.Optimizer], leaves: Mapping[str, tuple[Tensor, ...]]
) -> None:
    """Raise if state that an optimizer keeps for each entry is not as its parameter is.

    An optimizer's checkpoint goes by the position of its parameters: one that was saved before
    something was attached, and loaded afterwards, gives the moments of one to another.

    Raises:
        ValueError: naming the parameter, the state, and both shapes; or if entries of the state
            cannot be set to zero (sparse, of 8-bit floats, or made by expand).
    """
    for optimizer in optimizers:
        remembered = state_of(optimizer)
        for name, stored in leaves.items():
            for leaf in stored:
                here = piece_of(leaf).shape
                if key := misshapen(remembered.get(leaf, {}), leaf.shape, here):
                    shape = tuple(remembered[leaf][key].shape)
                    raise ValueError(
                        f"optimizer={type(optimizer).__name__} keeps {key!r} of {name!r} in shape "
                        f"{shape}, expected the parameter's {tuple(leaf.shape)}: was a checkpoint "
                        "loaded whose parameters had another order? Attach masks and Sign-In "
                        "before building the optimizer, in the run that saves and the one that "
                        "resumes"
                    )
                if key := _unwritable(remembered.get(leaf, {}), leaf.shape):
                    value = remembered[leaf][key]
                    raise ValueError(
                        f"optimizer={type(optimizer).__name__} keeps {key!r} of {name!r} as a "
                        f"tensor of layout {value.layout}, dtype {value.dtype} and stride "
                        f"{value.stride() if value.layout is torch.strided else None}, expected "
                        "one whose entries can be set to zero: leave optimizer= out"
                    )


def _unwritable(state: Mapping[str, Any], shape: torch.Size) -> str | None:
    """Return a key whose value belongs to single entries that cannot be zeroed, or None."""
    for key, value in state.items():
        if isinstance(value, Tensor) and value.shape == shape:
            eight_bits = value.dtype.is_floating_point and value.dtype.itemsize == 1
            if value.layout is not torch.strided or eight_bits or is_expanded(value):
                return key
    return None


def misshapen(
    state: Mapping[str, Any], shape: torch.Size, here: torch.Size | None = None
) -> str | None:
    """Return a key whose value belongs to single entries but has another shape, or None.

    Args:
        state: what is remembered of a parameter.
        shape: the parameter's.
        here: that of this rank's piece of a sharded parameter, which plain tensors have.

    Example:
        >>> state = {"step": torch.tensor(1.0), "exp_avg": torch.ones(3)}
        >>> misshapen(state, torch.Size([2])), misshapen(state, torch.Size([3]))
        ('exp_avg', None)
    """
    for key in PER_ENTRY:
        value = state.get(key)
        if isinstance(value, Tensor):
            expected = shape if here is None or is_sharded(value) else here
            if value.shape != expected:
                return key
    return None
