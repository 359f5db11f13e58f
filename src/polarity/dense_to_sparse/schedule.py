"""What every schedule has: a count of optimizer steps, the steps at which it acts, and its state.

A training loop calls ``.step()`` of a schedule after each ``optimizer.step()``. Steps are numbered
from 1, so that "step t" is the t-th time that the optimizer wrote to the weights.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from polarity._checks import check_integer, check_mapping, check_names, check_shape, check_type
from polarity.optimizers.states import check_holds, parameters_of
from polarity.targets.search import attached, find_targets
from polarity.targets.target import Target, count_survivors
from polarity.targets.wrappers import refuse_ddp, unwrapped

__all__ = [
    "Every",
    "StepCount",
    "check_bools",
    "check_state",
    "computed_share",
    "share",
    "trained_weights",
    "was_skipped",
]

Optimizers = tuple[torch.optim.Optimizer, ...]


@dataclass(frozen=True)
class Every:
    """Steps ``begin``, ``begin + every``, ``begin + 2 every``, … up to and including ``end``.

    Attributes:
        every: the distance of two of them.
        begin: the first, if it is not 0: steps are numbered from 1.
        end: no later one is due; None for no end.
    """

    every: int
    begin: int
    end: int | None

    def __post_init__(self) -> None:
        check_integer("every", self.every, at_least=1)
        check_integer("begin", self.begin, at_least=0)
        if self.end is not None:
            check_integer("end", self.end, at_least=1)
            if self.end < self.begin:
                raise ValueError(
                    f"end={self.end}, expected a step not before begin={self.begin}: nothing would "
                    "ever happen"
                )

    def due(self, step: int) -> bool:
        """Return whether a step is one of them.

        Example:
            >>> [step for step in range(12) if Every(3, begin=2, end=8).due(step)]
            [2, 5, 8]
        """
        if step < self.begin or (self.end is not None and step > self.end):
            return False
        return (step - self.begin) % self.every == 0


class StepCount:
    """Count the steps that an optimizer took; those that a GradScaler skipped are none.

    Attributes:
        taken: the number of steps counted.
        due: whether an optimizer step was taken that is not counted yet.

    Example:
        >>> sgd = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
        >>> steps = StepCount(sgd)
        >>> sgd.step()
        >>> steps.due, steps.count(), steps.due
        (True, 1, False)
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.taken = 0
        self.due = False
        self._hook: Any = optimizer.register_step_post_hook(self._note)

    def count(self) -> int:
        """Count the step that is due, and return the number of steps taken."""
        self.taken += self.due
        self.due = False
        return self.taken

    def restart(self, taken: int) -> None:
        """Continue from another number of steps."""
        self.taken, self.due = taken, False

    def remove(self) -> None:
        """Take the hook off the optimizer; nothing is counted any more."""
        self._hook.remove()
        self.due = False

    def __deepcopy__(self, memo: Any) -> "StepCount":
        """Refuse: the optimizer of a copy has no hook that would count its steps."""
        raise TypeError(
            "a schedule cannot be copied, expected a new one for the copied model and optimizer: "
            "build it, and give it the state with load_state_dict(schedule.state_dict())"
        )

    def _note(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        if not was_skipped(optimizer):
            self.due = True


def was_skipped(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether the step being made changes nothing, because a GradScaler saw an overflow.

    It does not call the step of most optimizers then. A fused one is called, with ``found_inf``.
    """
    found_inf = getattr(optimizer, "found_inf", None)
    return found_inf is not None and bool(found_inf)


def trained_weights(model: nn.Module, optimizers: Sequence[Any], what: str) -> dict[str, Target]:
    """Return the masked weights that optimizers train; all prunable ones where none is masked.

    Args:
        model: the model, which may be wrapped.
        optimizers: those that train it.
        what: the name of the schedule, for errors.

    Raises:
        ValueError: if there is none.
        TypeError: if no optimizer is given, or a model without masks is wrapped by
            DistributedDataParallel.
    """
    inner = unwrapped(model)
    if not optimizers:
        raise TypeError("optimizer=None, expected the optimizer that trains the model")
    found = attached(inner) or dict(find_targets(inner))
    if any(target.masking is None for target in found.values()):
        refuse_ddp(model, what)
    check_holds(optimizers, {name: target.stored for name, target in found.items()})
    held = set().union(*(parameters_of(each) for each in optimizers))
    trained = {
        name: target
        for name, target in found.items()
        if all(leaf.requires_grad and id(leaf) in held for leaf in target.stored)
    }
    if not trained:
        raise ValueError(
            f"model has {len(found)} weights that can be masked (the first is "
            f"{next(iter(found))!r}), expected one that is trained: all of them are frozen"
        )
    return trained


def share(counts: Iterable[tuple[int, int]]) -> float:
    """Return the sum of the first numbers over that of the second ones; 1 for nothing at all.

    Example:
        >>> share([(1, 4), (3, 4)])
        0.5
    """
    some = total = 0
    for part, whole in counts:
        some, total = some + part, total + whole
    return some / total if total else 1.0


def computed_share(found: Iterable[Target]) -> float:
    """Return the fraction of entries that forward computes with: all where no mask is applied."""
    found = list(found)
    survivors = count_survivors(each for each in found if each.enforced_mask is not None)
    totals = ((each.name, each.shape.numel()) for each in found)
    return share((survivors.get(name, total), total) for name, total in totals)


def check_state(state: Mapping[str, Any], kind: str, keys: Sequence[str]) -> int:
    """Return the number of steps that a schedule's state holds, after a look at all of its keys.

    Raises:
        TypeError: if it is not a mapping, or the number is not an int.
        ValueError: if it is another schedule's, a key is missing or unknown, or the number is
            negative.
    """
    check_type("state", state, Mapping, f"the state_dict() of a {kind} schedule")
    if state.get("schedule") != kind:
        raise ValueError(
            f"state is that of schedule {state.get('schedule')!r}, expected one of {kind!r}: load "
            "it into the schedule that saved it"
        )
    known = ("schedule", "step", *keys)
    check_names("state", state, known, what=f"in the state of {kind}")
    check_integer("state['step']", state["step"], at_least=0)
    return int(state["step"])


def check_bools(parameter: str, given: Any, shapes: Mapping[str, Sequence[int]]) -> None:
    """Raise unless a mapping holds a bool tensor of the right shape under each name, no others."""
    check_mapping(parameter, given, "{name: bool tensor}")
    check_names(parameter, given, shapes)
    for name, shape in shapes.items():
        mask = given[name]
        check_type(f"{parameter}[{name!r}]", mask, Tensor, "a tensor")
        if mask.dtype != torch.bool:
            raise ValueError(
                f"{parameter} holds {name!r} in dtype {mask.dtype}, expected torch.bool"
            )
        check_shape(parameter, name, mask.shape, shape)


def check_seed(seed: Any, present: int | None) -> None:
    """Raise unless a state's seed is an int where this schedule draws, and None where not."""
    if (seed is None) != (present is None):
        expected = "None: this schedule draws nothing" if present is None else "an int"
        raise ValueError(f"state['seed']={seed!r}, expected {expected}; check ties=")
    if seed is not None:
        check_integer("state['seed']", seed, at_least=0)
