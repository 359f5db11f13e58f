"""Public calls as data: every argument's kind and a right value, and the bad calls made of them."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from types import ModuleType
from typing import Any

import polarity as pol
from polarity import parametrizations
from tests.laws.world import World
from tests.laws.wrong_values import Kind, Make, Wrong


@dataclass(frozen=True)
class Arg:
    """One argument of a call.

    Attributes:
        kind: its wrong values.
        good: makes a right one.
        also: other arguments that are given with it.
        without: arguments that are always given, except with it.
        named: its name in messages, where that is not its own.
    """

    kind: Kind
    good: Make
    also: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    named: str = ""


@dataclass(frozen=True)
class Call:
    """A public function or method: how to get it, its arguments, and those that are always given.

    Arguments without a default are always given.
    """

    function: Make
    args: Mapping[str, Arg]
    always: tuple[str, ...] = ()

    def given(self, world: World, tested: str) -> dict[str, Any]:
        """Return right arguments for a call in which one of them is tested."""
        names = inspect.signature(self.function(world)).parameters
        needed = [n for n, p in names.items() if p.default is p.empty or n in self.always]
        wanted = {*needed, tested, *self.args[tested].also} - {*self.args[tested].without}
        return {name: self.args[name].good(world) for name in names if name in wanted}


@dataclass(frozen=True)
class Case:
    """A call with one wrong argument."""

    call: Call
    name: str
    parameter: str
    label: str
    wrong: Wrong

    def __str__(self) -> str:
        return f"{self.name}-{self.parameter}-{self.label}"

    @property
    def named(self) -> str:
        return self.call.args[self.parameter].named or self.parameter


def just(value: Any) -> Make:
    return lambda world: value


def the(path: str) -> Make:
    return attrgetter(path)


def bare(call: Callable[..., Any], /, *, always: tuple[str, ...] = (), **args: Arg) -> Call:
    """Return a call that needs no object."""
    return Call(just(call), args, always)


def method(path: str, /, *, always: tuple[str, ...] = (), **args: Arg) -> Call:
    """Return a call of a method of something in the world."""
    return Call(the(path), args, always)


def cases(table: Mapping[str, Call]) -> Iterator[Case]:
    """Yield every call with every wrong value of each of its arguments."""
    for name, call in table.items():
        for parameter, arg in call.args.items():
            for label, wrong in arg.kind.wrong.items():
                yield Case(call, name, parameter, label, wrong)


# What calls return: users read them, and build none.
RETURNED = {"CompactReport", "CompressReport", "DecaySearch", "ErrorBarrier", "FlipReport",
            "LayerDecision", "LayerThreshold", "LayerUpdate", "PruneReport", "SignReport",
            "StartReport", "StepEnforcement", "Summary", "ThresholdReport",
            "UpdateReport"}  # fmt: skip
# Called by PyTorch, with what it computed, or made by other calls alone.
NOT_CALLED = {"forward", "train", "clear", "clear_gradients", "notice", "take_as_written",
              "applies", "among", "of_pieces", "to_store", "staged", "staged_schedule", "draw_",
              "extra_repr", "get_extra_state", "set_extra_state"}  # fmt: skip
NO_CONSTRUCTOR = {"SparseLinear", "SharedAlpha", "SurvivorWeight"}
SPACES = (pol, pol.densities, pol.dense_to_sparse, pol.deploy, pol.scores, parametrizations)


def public_calls() -> dict[str, Callable[..., Any]]:
    """Return every public function, constructor and method by name, as the table spells it."""
    found: dict[str, Callable[..., Any]] = {}
    for space in SPACES:
        prefix = "" if space in (pol, parametrizations) else f"{space.__name__.split('.')[-1]}."
        for name in space.__all__:
            thing = getattr(space, name)
            if isinstance(thing, type):
                found |= _calls_of(prefix + name, thing)
            elif callable(thing) and not isinstance(thing, ModuleType) and name != "Score":
                found[prefix + name] = thing
    return found


def _calls_of(name: str, kind: type) -> dict[str, Callable[..., Any]]:
    short = name.rpartition(".")[2]
    found: dict[str, Callable[..., Any]] = {}
    if short not in RETURNED | NO_CONSTRUCTOR:
        found[name] = kind
    for method_name, held in vars(kind).items():
        public = not method_name.startswith("_") or method_name == "__call__"
        plain = held.__func__ if isinstance(held, (classmethod, staticmethod)) else held
        made_by_users = short not in RETURNED | NO_CONSTRUCTOR or short == "StepEnforcement"
        called = inspect.isfunction(plain) and method_name not in NOT_CALLED
        if public and called and made_by_users:
            found[f"{name}.{method_name}"] = getattr(kind, method_name)
    return found


def parameters_of(name: str, call: Callable[..., Any]) -> set[str]:
    """Return the parameters of a public call, without ``self``."""
    return {each for each in inspect.signature(call).parameters if each != "self"}
