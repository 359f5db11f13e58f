"""Whether a captured state fits the optimizer or the scheduler that is to take it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from polarity._checks import check_entries
from polarity.optimizers.replaced import former_shape
from polarity.optimizers.states import PER_ENTRY, misshapen, state_of

__all__ = ["check_optimizer_fits", "check_scheduler_fits"]

# What schedulers add to the groups of their optimizer.
_SCHEDULED = {"initial_lr", "max_lr", "min_lr", "max_momentum", "base_momentum", "swa_lr"}
# What load_state_dict adds to groups without it, so that two states of one optimizer differ in it.
_FILLED_IN = {"capturable", "differentiable", "foreach", "fused", "maximize"}
_OF_EVERY_GROUP = {"params", "param_names"}
# An option that makes one class of another.
_DECOUPLED = "decoupled_weight_decay"


def check_optimizer_fits(
    role: str,
    optimizer: torch.optim.Optimizer,
    held: Mapping[str, Any],
    names: Mapping[int, str] | None = None,
) -> None:
    """Raise unless an optimizer can take a captured state and step with it.

    Args:
        role: the argument's name, for errors.
        optimizer: the one that is to take it.
        held: a ``state_dict``, of the same class and number of parameters.
        names: plain names of parameters by their ids, for errors.

    Raises:
        ValueError: naming the first difference: group sizes, options, keys of the state, shapes; or
            if an option is NaN, or averages hold NaN or infinite entries.
    """
    what = f"{role}={type(optimizer).__name__}"
    groups = _groups_of(what, held)
    sizes = [len(group["params"]) for group in optimizer.param_groups]
    held_sizes = [len(group["params"]) for group in groups]
    if sizes != held_sizes:
        raise ValueError(
            f"{what} has parameter groups of {sizes}, expected those of the rewind point, "
            f"{held_sizes}: capture it with this optimizer"
        )
    for group, theirs in zip(optimizer.param_groups, groups, strict=True):
        _check_options(what, optimizer, group, theirs)
        for place, parameter in zip(theirs["params"], group["params"], strict=True):
            name = (names or {}).get(id(parameter), f"parameter {place}")
            own = state_of(optimizer).get(parameter, {})
            _check_state(what, name, parameter, held["state"].get(place, {}), own)


def check_scheduler_fits(role: str, scheduler: Any, held: Mapping[str, Any]) -> None:
    """Raise unless a scheduler can take a captured state: of the same class, for as many groups.

    Raises:
        ValueError: naming the first setting that one of them has and the other has not.
    """
    _check_schedule(f"{role}={type(scheduler).__name__}", scheduler.state_dict(), held)


def _groups_of(what: str, held: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return the parameter groups of a state_dict, after a look at its form."""
    sound = isinstance(held, Mapping) and isinstance(held.get("state"), Mapping)
    groups = held.get("param_groups") if sound else None
    if (
        not isinstance(groups, Sequence)
        or not all(isinstance(each, Mapping) for each in groups)
        or not all(isinstance(each.get("params"), Sequence) for each in groups)
    ):
        raise ValueError(
            f"{what} is given, but the rewind point's {what.split('=')[0]} is no state_dict of an "
            "optimizer, expected what RewindPoint.capture keeps"
        )
    return groups


def _check_options(
    what: str,
    optimizer: torch.optim.Optimizer,
    own: Mapping[str, Any],
    held: Mapping[str, Any],
) -> None:
    """Raise unless a group's options are those of the optimizer's class, and numbers."""
    missing = optimizer.defaults.keys() - held.keys() - _FILLED_IN
    known = _FILLED_IN | _OF_EVERY_GROUP | _SCHEDULED
    strange = held.keys() - optimizer.defaults.keys() - own.keys() - known
    if missing or strange:
        one = min(missing) if missing else min(strange)
        which = "is missing" if missing else "holds"
        raise ValueError(
            f"{what} is given, but the rewind point's state {which} the option {one!r}, expected "
            "that of an optimizer of the same class: capture it with this one"
        )
    if own.get(_DECOUPLED, held.get(_DECOUPLED)) != held.get(_DECOUPLED):
        raise ValueError(
            f"{what} has {_DECOUPLED}={own[_DECOUPLED]}, the rewind point's state "
            f"{held[_DECOUPLED]}, expected the same: that is the difference of Adam and AdamW"
        )
    for key, value in held.items():
        if isinstance(value, float) and math.isnan(value):
            raise ValueError(f"the rewind point holds {key}=nan for {what}, expected a number")


def _check_state(
    what: str, name: str, parameter: Tensor, held: Mapping[str, Any], own: Mapping[str, Any]
) -> None:
    """Raise unless the captured state of one parameter has the right keys, shapes and numbers."""
    # Others come with time, as LBFGS's do.
    if held and own and (held.keys() ^ own.keys()) & set(PER_ENTRY):
        raise ValueError(
            f"{what} remembers {sorted(own)} of {name!r}, the rewind point {sorted(held)}, "
            "expected the same keys: capture it with this optimizer"
        )
    key = misshapen(held, parameter.shape)
    if key and former_shape(parameter, held[key].shape):
        raise ValueError(
            f"the rewind point holds {key!r} of {name!r} in the dense shape "
            f"{tuple(held[key].shape)} for {what}, and the weight is compact: pass "
            "imp_prune or lrr_step the point and the optimizer, or call expand(model, "
            "optimizer=optimizer) before restore_schedule and compact after it"
        )
    if key:
        raise ValueError(
            f"the rewind point holds {key!r} of {name!r} in shape {tuple(held[key].shape)} for "
            f"{what}, expected the parameter's {tuple(parameter.shape)}: its parameters have "
            "another order"
        )
    for key in PER_ENTRY:
        value = held.get(key)
        if isinstance(value, Tensor) and not value.is_meta:
            check_entries(f"the rewind point's {key!r} of {name!r}", value)


def _check_schedule(what: str, own: Mapping[str, Any], held: Mapping[str, Any]) -> None:
    """Compare the settings of two schedulers, and of those that they hold."""
    if not isinstance(held, Mapping):
        raise ValueError(
            f"{what} is given, but the rewind point's scheduler is a {type(held).__name__}, "
            "expected what RewindPoint.capture keeps"
        )
    # Names with an underscore differ between versions of PyTorch.
    differ = {key for key in own.keys() ^ held.keys() if not key.startswith("_")}
    if differ:
        one = min(differ)
        which = "holds" if one in held else "is missing"
        raise ValueError(
            f"{what} is given, but the rewind point's state {which} the setting {one!r}, expected "
            "that of a scheduler of the same class: capture it with this one"
        )
    if len(own.get("base_lrs", ())) != len(held.get("base_lrs", ())):
        raise ValueError(
            f"{what} has {len(own['base_lrs'])} learning rates, the rewind point's state "
            f"{len(held['base_lrs'])}, expected as many: capture it with this scheduler"
        )
    inside, theirs = own.get("_schedulers", ()), held.get("_schedulers", ())
    if len(inside) != len(theirs):
        raise ValueError(
            f"{what} is made of {len(inside)} schedulers, the rewind point's of {len(theirs)}"
        )
    for each, other in zip(inside, theirs, strict=True):
        _check_schedule(what, each, other)
