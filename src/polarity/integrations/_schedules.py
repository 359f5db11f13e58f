"""What every callback does with the schedules that its user asked for, in any framework."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import torch
from torch import nn

import polarity as pol

__all__ = ["Attach", "Build", "Schedule", "Schedules", "check_attach", "check_flag", "numbers"]

# What reports say in numbers, by the names of their attributes.
_NUMBERS = ("density", "survivors", "dropped", "grown")


class Schedule(Protocol):
    """What is stepped: every schedule of the library, and any object with these methods."""

    def step(self) -> Any:
        """Count a step or an epoch, and do what is due."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must hold."""

    def load_state_dict(self, state: Any) -> None:
        """Continue from a state of :meth:`state_dict`."""


Attach: TypeAlias = Callable[[nn.Module], object]
# Called with the model, its optimizer (a list of several) and its scheduler (likewise, or None).
Build: TypeAlias = Callable[[nn.Module, Any, Any], "Schedule | Sequence[Schedule] | None"]


class Schedules:
    """The schedules of one run, built when its optimizers exist, stepped and saved together."""

    def __init__(self, each_step: Build | None, each_epoch: Build | None) -> None:
        for name, build in (("each_step", each_step), ("each_epoch", each_epoch)):
            if build is not None and not callable(build):
                raise TypeError(
                    f"{name}={build!r}, expected a function (model, optimizer, scheduler) -> "
                    "schedule or list of schedules, such as "
                    "lambda model, optimizer, scheduler: pol.RescaleSchedule(model, every=5)"
                )
        self._builds = {"each_step": each_step, "each_epoch": each_epoch}
        self._built: dict[str, list[Schedule]] = {}
        # A checkpoint is loaded before the optimizers exist.
        self._pending: Mapping[str, Sequence[Any]] | None = None

    @property
    def are_built(self) -> bool:
        """Whether :meth:`build` was called."""
        return bool(self._built)

    @property
    def are_kept(self) -> bool:
        """Whether states of a checkpoint are kept for :meth:`resume`."""
        return self._pending is not None

    def build(
        self,
        model: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        schedulers: Sequence[Any],
    ) -> None:
        """Build what was asked for, and take the hooks of what was built before."""
        self.remove()
        optimizer = optimizers[0] if len(optimizers) == 1 else list(optimizers)
        scheduler = (schedulers[0] if len(schedulers) == 1 else list(schedulers)) or None
        self._built = {
            name: _listed(name, build and build(model, optimizer, scheduler))
            for name, build in self._builds.items()
        }

    def step(self, when: str) -> list[Any]:
        """Step those of ``"each_step"`` or ``"each_epoch"``, and return what they report.

        None and False, which say that nothing was due, are left out.
        """
        reports = [schedule.step() for schedule in self._built.get(when, [])]
        return [report for report in reports if report is not None and report is not False]

    def switch(self) -> None:
        """Make switches that are pending, where a loop does not call the model as a whole."""
        for schedule in self._built.get("each_step", []):
            if callable(switch := getattr(schedule, "switch", None)):
                switch()

    def density(self, model: nn.Module) -> float:
        """Return the density that a schedule tells, which knows of dense phases, or the model's."""
        built = [schedule for each in self._built.values() for schedule in each]
        told = [tell for each in built if callable(tell := getattr(each, "density", None))]
        return float(told[-1]()) if told else pol.dense_to_sparse.soft_density(model)

    def remove(self) -> None:
        """Take the hooks of what was built off model and optimizers; the states stay readable."""
        for built in self._built.values():
            for schedule in built:
                if callable(remove := getattr(schedule, "remove", None)):
                    remove()

    def state_dict(self) -> dict[str, list[Any]]:
        """Return the states of all schedules, in the order in which they were built."""
        if self._pending is not None:
            return {name: list(states) for name, states in self._pending.items()}
        return {
            name: [schedule.state_dict() for schedule in built]
            for name, built in self._built.items()
        }

    def load_state_dict(self, state: Mapping[str, Sequence[Any]]) -> None:
        """Keep states for :meth:`resume`: schedules may not be built yet."""
        self._pending = state

    def drop(self) -> None:
        """Forget states that were kept for :meth:`resume`."""
        self._pending = None

    def resume(self) -> None:
        """Load the kept states, if there are any, into what was built.

        Raises:
            ValueError: if there are more or fewer of them than schedules, or one does not fit.
        """
        if self._pending is None:
            return
        for name, built in self._built.items():
            states = self._pending.get(name, [])
            if len(states) != len(built):
                raise ValueError(
                    f"the checkpoint holds {len(states)} schedules of {name}=, and this run builds "
                    f"{len(built)}: build the same ones, in the same order"
                )
            for schedule, state in zip(built, states, strict=True):
                schedule.load_state_dict(state)
        self._pending = None


def numbers(reports: Iterable[Any]) -> dict[str, float]:
    """Return what reports say in numbers, for a logger."""
    return {
        name: float(value)
        for report in reports
        for name in _NUMBERS
        if isinstance(value := getattr(report, name, None), (int, float))
    }


def check_attach(attach: object) -> None:
    """Raise unless what attaches is a function, and not the model itself."""
    if attach is not None and (not callable(attach) or isinstance(attach, nn.Module)):
        raise TypeError(
            f"attach={attach!r}, expected a function of the model, such as pol.mask_weights, "
            "or None"
        )


def check_flag(name: str, value: Any) -> None:
    """Raise unless a value is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name}={value!r}, expected True or False")


def _listed(name: str, built: Any) -> list[Schedule]:
    """Return what a function built as a list of schedules."""
    listed = [] if built is None else list(built) if isinstance(built, (list, tuple)) else [built]
    for each in listed:
        for method in ("step", "state_dict", "load_state_dict"):
            if not callable(getattr(each, method, None)):
                raise TypeError(
                    f"{name} returned a {type(each).__name__} without {method}(), expected "
                    "schedules: objects with step, state_dict and load_state_dict"
                )
    return listed
