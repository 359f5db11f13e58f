"""Replace parameters in a model and its optimizer; stale optimizers raise at their next step."""

import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from polarity.optimizers.pruned_state import check_holds

__all__ = ["Replacement", "check_replaceable", "replace_parameter"]

_MARK = "_polarity_replaced_by"
_generation = 0
_checked: weakref.WeakKeyDictionary[torch.optim.Optimizer, int] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Replacement:
    """Parameters that leave a model together, and those that take their place.

    Attributes:
        old: the parameters that leave.
        new: the parameters that replace them, by the names they have in the model.
        states: the optimizer's state of each new parameter; empty to start afresh.
        why: what happened and what to call, for the error of an optimizer that did not follow.
    """

    old: tuple[Tensor, ...]
    new: Mapping[str, nn.Parameter]
    states: tuple[dict[str, Any], ...]
    why: str


def check_replaceable(
    optimizer: torch.optim.Optimizer, leaves: Mapping[str, tuple[Tensor, ...]]
) -> None:
    """Raise unless the optimizer holds some of these weights, each of them in one group.

    Args:
        optimizer: the optimizer that is to follow.
        leaves: the parameters of each weight, by plain name.

    Raises:
        ValueError: if it holds none of them, or the parameters of one in different groups.
    """
    check_holds(optimizer, leaves)
    group_of = {
        id(each): number
        for number, group in enumerate(optimizer.param_groups)
        for each in group["params"]
    }
    for name, stored in leaves.items():
        if len({group_of.get(id(leaf)) for leaf in stored}) > 1:
            raise ValueError(
                f"optimizer={type(optimizer).__name__} holds the {len(stored)} parameters of "
                f"{name!r} in different groups, expected one"
            )


def replace_parameter(optimizer: torch.optim.Optimizer | None, change: Replacement) -> None:
    """Put the new parameters into the optimizer in place of the old ones, and mark the old ones.

    Groups, learning rates and options stay. The next step of any optimizer that still holds an old
    parameter raises RuntimeError, as it would no longer train that weight.
    """
    global _generation
    if optimizer is not None:
        _replace(optimizer, change)
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
        for leaf in change.old:
            optimizer.state.pop(leaf, None)
        for parameter, state in zip(change.new.values(), change.states, strict=True):
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
