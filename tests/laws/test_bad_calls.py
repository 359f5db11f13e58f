"""Every public call, with every wrong value of each argument: refused in the caller's words.

The cases come from ``calls_that_*.py``, where every public parameter has a kind and a right value;
what is wrong of a kind is in ``wrong_values.py`` and ``wrong_mappings.py``.
"""

import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from tests.laws.calls import Case, cases, parameters_of, public_calls
from tests.laws.calls_that_attach import ATTACH, BY_NAME
from tests.laws.calls_that_look import DEPLOY, LOOK
from tests.laws.calls_that_prune import PRUNE
from tests.laws.calls_that_schedule import SCHEDULE
from tests.laws.calls_that_threshold import THRESHOLD
from tests.laws.world import World

TABLE = ATTACH | PRUNE | LOOK | DEPLOY | SCHEDULE | THRESHOLD
CASES = [*cases(TABLE), *cases({f"{name}, by name": call for name, call in BY_NAME.items()})]
# One test for each parameter: its cases share what refused calls leave as it was.
BY_PARAMETER = {
    f"{name}-{parameter}": list(group)
    for (name, parameter), group in groupby(CASES, lambda each: (each.name, each.parameter))
}
ERRORS = (TypeError, ValueError, FileNotFoundError, IsADirectoryError)
REMEDY = r"expected|\b(call|give|pass|choose|compute|create|capture|make|run|build)\b"


@pytest.mark.parametrize("wrong", BY_PARAMETER.values(), ids=BY_PARAMETER)
def test_a_bad_call_names_parameter_value_and_remedy_and_changes_nothing(
    wrong: list[Case], tmp_path: Path
):
    world = World(lambda: tmp_path)
    found = {str(case): list(faults(case, world)) for case in wrong}
    found = {case: each for case, each in found.items() if each}
    assert not found, "\n" + "\n".join(f"{case}: {'; '.join(each)}" for case, each in found.items())


def faults(case: Case, world: World) -> Iterator[str]:
    """Make a bad call, and yield what its error does not say and what it changed."""
    given = case.call.given(world, case.parameter)
    given[case.parameter] = case.wrong.make(world)
    call = case.call.function(world)
    before = world.everything(given)
    try:
        call(**given)
    except ERRORS as error:
        message, kind = str(error), type(error)
        if kind not in ERRORS:
            yield f"raises {kind.__name__}"
        if not re.search(rf"\b{case.named}\b", message):
            yield f"no {case.named!r} in: {message}"
        if not any(re.search(each, message) for each in shown(case, given)):
            yield f"no value in: {message}"
        if not re.search(REMEDY, message):
            yield f"no remedy in: {message}"
    except Exception as error:
        yield f"raises {error!r}"
    else:
        yield "is accepted"
    if world.everything(given) != before:
        yield "changes something"


def shown(case: Case, given: dict[str, Any]) -> Iterator[str]:
    """Yield what stands for a wrong value in a message: itself, or its type."""
    if case.wrong.shows:
        yield case.wrong.shows
        return
    value = given[case.parameter]
    yield re.escape(repr(value))
    yield rf"\b(a|an|the class) {type(value).__name__}\b"
    if isinstance(value, (list, tuple)):
        yield from (re.escape(f"={each!r}") for each in value)
        yield from (re.escape(f"holds {each!r}") for each in value)
    if isinstance(value, dict):
        yield from (re.escape(f"holds {key!r}: {each!r}") for key, each in value.items())


RIGHT = [(name, parameter) for name, call in TABLE.items() for parameter in call.args]


@pytest.mark.parametrize(("name", "parameter"), RIGHT, ids=[f"{a}-{b}" for a, b in RIGHT])
def test_the_right_value_is_accepted_in_all_its_forms(name: str, parameter: str, tmp_path: Path):
    call = TABLE[name]
    for form in (lambda value: value, *call.args[parameter].kind.forms):
        world = World(lambda: tmp_path)
        given = call.given(world, parameter)
        given[parameter] = form(given[parameter])
        call.function(world)(**given)


def test_every_public_call_and_parameter_is_in_the_table():
    public = public_calls()
    assert {*public} == {*TABLE}
    other = {
        name: {*TABLE[name].args} ^ parameters_of(name, call)
        for name, call in public.items()
        if {*TABLE[name].args} != parameters_of(name, call)
    }
    assert not other


def test_there_are_enough_bad_calls_and_each_parameter_has_some():
    assert len(CASES) >= 500
    assert len({str(case) for case in CASES}) == len(CASES)
    without = [
        f"{name}-{parameter}"
        for name, call in TABLE.items()
        for parameter, arg in call.args.items()
        if not arg.kind.wrong
    ]
    assert without == [
        "scores.magnitude-name",
        "RewindPoint.check_schedule-names",
        "Epsilon.__call__-magnitudes",
    ]
