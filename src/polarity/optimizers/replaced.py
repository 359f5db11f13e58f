"""Replace parameters in a model and its optimizers; stale optimizers raise at their next step."""

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from polarity.optimizers.given import described
from polarity.optimizers.states import check_holds, is_divided, state_of

__all__ = [
    "Replacement",
    "carried_states",
    "check_replaceable",
    "check_together",
    "former_shape",
    "note_resized",
    "replace_parameter",
]

States: TypeAlias = tuple[dict[str, Any], ...]

# What Adafactor, torch's and transformers', keeps of a matrix and not of a vector.
_FACTORED = ("row_var", "col_var", "exp_avg_sq_row", "exp_avg_sq_col")

_MARK, _RESIZED = "_polarity_replaced_by", "_polarity_resized"
_generation = 0
# After which generation an optimizer was checked, and the state that it had then, by its id.
_checked: weakref.WeakKeyDictionary[torch.optim.Optimizer, tuple[int, int]]
_checked = weakref.WeakKeyDictionary()
# State of parameters whose entries are others now, in the same number, and why, by optimizer.


@dataclass(frozen=True)
class Replacement:
    """Parameters that leave a model together, and those that take their place.

    Attributes:
        old: the parameters that leave.
        new: the parameters that replace them, by the names they have in the model.
        carry: returns an optimizer's state of each new parameter from its state of the old ones;
            empty to start afresh.
        why: what happened and what to call, for the error of an optimizer that did not follow.
    """

    old: tuple[Tensor, ...]
    new: Mapping[str, nn.Parameter]
    carry: Callable[..., States]
    why: str


def check_replaceable(
    optimizers: Sequence[torch.optim.Optimizer], leaves: Mapping[str, tuple[Tensor, ...]]
) -> None:
    """Raise unless the parameters of some weights can be replaced in optimizers.

    Raises:
        ValueError: if one has divided its parameters among ranks, or keeps one state of them all
            (LBFGS), or as :func:`check_together`.
    """
    check_together(optimizers, leaves)
    for each in optimizers:
        if isinstance(each, torch.optim.LBFGS):
            raise ValueError(
                "optimizer=LBFGS keeps one flat state of all its parameters and cannot take "
                "others, expected an optimizer with a state for each: build it after this call"
            )
        if is_divided(each):
            raise ValueError(
                f"optimizer={type(each).__name__} has divided its parameters among ranks and "
                "cannot take others, expected one that keeps them all: build it after this call"
            )


def check_together(
    optimizers: Sequence[torch.optim.Optimizer], leaves: Mapping[str, tuple[Tensor, ...]]
) -> None:
    """Raise unless optimizers hold some of these weights, each of them in one group.

    Args:
        optimizers: those that train the weights; it is no error if there are none.
        leaves: the parameters of each weight, by plain name.

    Raises:
        ValueError: if they hold none of them, or the parameters of one in different groups or
            optimizers; or if the state of one has another shape than its parameter.
    """
    check_holds(optimizers, leaves)
    groups = [group for each in optimizers for group in each.param_groups]
    places: dict[int, set[int]] = {}
    for place, group in enumerate(groups):
        for each in group["params"]:
            places.setdefault(id(each), set()).add(place)
    for name, stored in leaves.items():
        first, *others = (places.get(id(leaf), set()) for leaf in stored)
        if any(other != first for other in others):
            raise ValueError(
                f"optimizer={described(optimizers)} holds the {len(stored)} parameters of "
                f"{name!r} in different groups, expected one"
            )


def carried_states(
    optimizers: Sequence[torch.optim.Optimizer], change: Replacement
) -> list[States]:
    """Return the state of each new parameter in each optimizer, without changing anything."""
    return [
        change.carry(*(optimizer.state.get(leaf, {}) for leaf in change.old))
        for optimizer in optimizers
    ]


def replace_parameter(
    optimizers: Sequence[torch.optim.Optimizer], change: Replacement, states: Sequence[States]
) -> None:
    """Put the new parameters into the optimizers in place of the old ones, and mark the old ones.

    Groups, learning rates and options stay, and so do the Python attributes that others keep on
    the old parameters (``_no_weight_decay``, for instance). The next step of any optimizer that
    still holds an old parameter raises RuntimeError, as it would no longer train that weight.

    Args:
        optimizers: those that follow.
        change: the old and the new parameters.
        states: what :func:`carried_states` returned for them.
    """
    for optimizer, state in zip(optimizers, states, strict=True):
        _replace(optimizer, change, state)
    for leaf in reversed(change.old):
        theirs = {k: value for k, value in vars(leaf).items() if k not in (_MARK, _RESIZED)}
        for parameter in change.new.values():
            vars(parameter).update(theirs)
    for leaf in change.old:
        setattr(leaf, _MARK, change.why)
    _look_at_every_optimizer()


def note_resized(parameter: Tensor, shape: torch.Size, why: str) -> None:
    """Let graphs to come, and optimizers, know that a parameter no longer has this shape.

    A backward pass expects gradients of the new one; an optimizer whose state has this one raises.

    Args:
        parameter: one that optimizers may hold.
        shape: the one that it had.
        why: what happened and what to call, for the error of an optimizer that did not follow.
    """
    _forget_former_shape(parameter)
    before: dict[torch.Size, str] = getattr(parameter, _RESIZED, {})
    setattr(parameter, _RESIZED, {**before, shape: why})
    _look_at_every_optimizer()


def _forget_former_shape(parameter: Tensor) -> None:
    """Let backward passes to come expect gradients of the shape that a parameter has now.

    As long as a graph from before exists (a loss that was not deleted), PyTorch gives later graphs
    the same node to accumulate into, which knows the former shape. A change of dtype replaces it.
    """
    data = parameter.data
    other = torch.float16 if data.dtype == torch.float32 else torch.float32
    parameter.data = torch.empty(0, dtype=other, device=data.device)
    parameter.data = data


def former_shape(parameter: Tensor, shape: torch.Size) -> str | None:
    """Return why a parameter no longer has a shape that it had once, or None."""
    shapes: dict[torch.Size, str] = getattr(parameter, _RESIZED, {})
    return shapes.get(shape)


def _look_at_every_optimizer() -> None:
    """Let every optimizer be checked at its next step."""
    global _generation
    if _generation == 0:
        register_optimizer_step_pre_hook(_refuse_replaced)
    _generation += 1


def _replace(optimizer: torch.optim.Optimizer, change: Replacement, states: States) -> None:
    old = {id(leaf) for leaf in change.old}
    for group in optimizer.param_groups:
        places = [i for i, each in enumerate(group["params"]) if id(each) in old]
        if not places:
            continue
        for key, values in (("params", change.new.values()), ("param_names", change.new)):
            if key in group:
                kept = [each for i, each in enumerate(group[key]) if i not in places]
                group[key] = [*kept[: places[0]], *values, *kept[places[0] :]]
        for leaf in change.old:
            optimizer.state.pop(leaf, None)
        for parameter, state in zip(change.new.values(), states, strict=True):
            if state:
                optimizer.state[parameter] = state


def _refuse_replaced(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    """Raise if the optimizer holds a replaced parameter, or state of a resized one; check once."""
    if torch.compiler.is_compiling():
        return
    now = _generation, id(optimizer.state)  # load_state_dict gives it another one
    if _checked.get(optimizer) == now:
        return
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if hasattr(parameter, _MARK):
                raise RuntimeError(
                    f"{type(optimizer).__name__} holds a parameter that the model no longer has "
                    f"and would not train it: {getattr(parameter, _MARK)}"
                )
            if (why := _stale(optimizer, parameter)) is not None:
                raise RuntimeError(
                    f"{type(optimizer).__name__} remembers a parameter as it no longer is and "
                    f"cannot train it: {why}"
                )
    _checked[optimizer] = now


def _stale(optimizer: torch.optim.Optimizer, parameter: Tensor) -> str | None:
    """Return why the state of a parameter is that of a former shape, or None if not."""
    shapes: dict[torch.Size, str] = getattr(parameter, _RESIZED, {})
    if not shapes:
        return None
    state = state_of(optimizer)
    if isinstance(optimizer, torch.optim.LBFGS) and state:
        return next(iter(shapes.values()))  # it keeps one flat state of all its parameters
    for key, value in state.get(parameter, {}).items():
        if key in _FACTORED and parameter.dim() == 1:
            return next(reversed(shapes.values()))
        per_entry = isinstance(value, Tensor) and value.dim() > 0
        if per_entry and value.shape != parameter.shape and value.shape in shapes:
            return shapes[value.shape]
    return None
