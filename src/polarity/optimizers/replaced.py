"""Replace parameters in a model and its optimizers; stale optimizers raise at their next step."""

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from polarity.optimizers.given import described
from polarity.optimizers.states import check_holds, is_divided

__all__ = ["Replacement", "check_replaceable", "check_together", "replace_parameter"]

States: TypeAlias = tuple[dict[str, Any], ...]

_MARK = "_polarity_replaced_by"
_generation = 0
_checked: weakref.WeakKeyDictionary[torch.optim.Optimizer, int] = weakref.WeakKeyDictionary()


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
        ValueError: if one has divided its parameters among ranks, or as :func:`check_together`.
    """
    check_together(optimizers, leaves)
    for each in optimizers:
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


def replace_parameter(optimizers: Sequence[torch.optim.Optimizer], change: Replacement) -> None:
    """Put the new parameters into the optimizers in place of the old ones, and mark the old ones.

    Groups, learning rates and options stay, and so do the Python attributes that others keep on
    the old parameters (``_no_weight_decay``, for instance). The next step of any optimizer that
    still holds an old parameter raises RuntimeError, as it would no longer train that weight.
    """
    global _generation
    for optimizer in optimizers:
        _replace(optimizer, change)
    for leaf in reversed(change.old):
        theirs = {key: value for key, value in vars(leaf).items() if key != _MARK}
        for parameter in change.new.values():
            vars(parameter).update(theirs)
    for leaf in change.old:
        setattr(leaf, _MARK, change.why)
    if _generation == 0:
        register_optimizer_step_pre_hook(_refuse_replaced)
    _generation += 1


def _replace(optimizer: torch.optim.Optimizer, change: Replacement) -> None:
    old = {id(leaf) for leaf in change.old}
    for group in optimizer.param_groups:
        places = [i for i, each in enumerate(group["params"]) if id(each) in old]
        if not places:
            continue
        for key, values in (("params", change.new.values()), ("param_names", change.new)):
            if key in group:
                kept = [each for i, each in enumerate(group[key]) if i not in places]
                group[key] = [*kept[: places[0]], *values, *kept[places[0] :]]
        states = change.carry(*(optimizer.state.get(leaf, {}) for leaf in change.old))
        for leaf in change.old:
            optimizer.state.pop(leaf, None)
        for parameter, state in zip(change.new.values(), states, strict=True):
            if state:
                optimizer.state[parameter] = state


def _refuse_replaced(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    """Raise if the optimizer holds a replaced parameter; check once for each replacement."""
    if torch.compiler.is_compiling() or _checked.get(optimizer) == _generation:
        return
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if hasattr(parameter, _MARK):
                raise RuntimeError(
                    f"{type(optimizer).__name__} holds a parameter that the model no longer has "
                    f"and would not train it: {getattr(parameter, _MARK)}"
                )
    _checked[optimizer] = _generation
