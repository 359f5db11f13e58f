"""Wrong mappings: of tensors, masks, numbers, states and names."""

import math
from dataclasses import dataclass
from typing import Any

import torch

from tests.laws.refusals import W0, W2, wide
from tests.laws.wrong_values import (
    CLASS,
    FUNCTION,
    MODULE,
    NONE,
    SCORE,
    STATE,
    Kind,
    Make,
    Wrong,
    function,
    value,
    values,
)


@dataclass(frozen=True)
class Tensors:
    """Wrong mappings of tensors, made from a right one by name."""

    right: Make

    def with_value(self, each: Any, shows: str) -> Wrong:
        return Wrong(lambda w: self.right(w) | {W2: each}, rf"{W2}.*({shows})")


def mapping(right: Make, *, whole: bool = True, empty: bool = True) -> Kind:
    """Return the kind of mappings of one tensor for each weight.

    Args:
        right: a right one.
        whole: whether it must hold all weights.
        empty: whether an empty one is wrong.
    """
    tensors = Tensors(right)
    wrong = (
        values(3, "masks", [1], True)
        | FUNCTION
        | CLASS
        | {
            "a tensor": value(torch.ones(5, 6), "a Tensor"),
            "pairs": Wrong(lambda w: list(right(w).items()), "a list"),
            "of lists": tensors.with_value([[1.0]], "a list"),
            "of None": tensors.with_value(None, "NoneType"),
            "of functions": tensors.with_value(len, "builtin_function"),
            "of another shape": tensors.with_value(torch.ones(5, 3), r"\(5, 3\)"),
        }
    )
    if whole:
        wrong["without one"] = Wrong(lambda w: {W0: right(w)[W0]}, W2)
    if empty:
        wrong["empty"] = value({}, f"empty|{W0}|missing")
    return Kind(wrong)


def floating(right: Make, **how: bool) -> Kind:
    """Return the kind of mappings of a floating-point tensor for each weight."""
    tensors = Tensors(right)
    return mapping(right, **how) | {
        "of integers": tensors.with_value(torch.ones(3, 5, dtype=torch.int64), "torch.int64"),
        "of bools": tensors.with_value(torch.ones(3, 5) > 0, "torch.bool"),
        "of complex": tensors.with_value(torch.ones(3, 5) * 1j, "torch.complex64"),
        "of NaN": tensors.with_value(wide(math.nan, (3, 5)), "NaN"),
        "of infinity": tensors.with_value(wide(math.inf, (3, 5)), "infinite"),
    }


UNKNOWN = "7.weight"


def unknown_name(right: Make) -> dict[str, Wrong]:
    return {
        "an unknown name": Wrong(lambda w: right(w) | {UNKNOWN: torch.ones(1)}, UNKNOWN),
        "a number for a name": Wrong(lambda w: right(w) | {3: torch.ones(1)}, "holds 3"),
    }


def zeros_and_ones(right: Make, **how: bool) -> Kind:
    """Return the kind of mappings of a mask for each weight."""
    tensors = Tensors(right)
    return mapping(right, **how) | {
        "of halves": tensors.with_value(wide(0.5, (3, 5)), "zeros and ones"),
        "of twos": tensors.with_value(torch.full((3, 5), 2), "zeros and ones"),
        "of NaN": tensors.with_value(wide(math.nan, (3, 5)), "zeros and ones"),
    }


def numbers(right: Make, low: float) -> Kind:
    """Return the kind of mappings of one number for each weight."""
    tensors = Tensors(right)
    return Kind(
        values([1], "x", True)
        | FUNCTION
        | {
            "without one": Wrong(lambda w: {W0: right(w)[W0]}, W2),
            "an unknown name": Wrong(lambda w: right(w) | {UNKNOWN: 0.1}, UNKNOWN),
            "of text": tensors.with_value("0.5", "0.5"),
            "of bools": tensors.with_value(True, "True"),
            "of NaN": tensors.with_value(math.nan, "nan"),
            "of None": tensors.with_value(None, "None"),
            "out of range": tensors.with_value(low, f"{low}"),
        }
    )


def _initial(world: Any) -> dict[str, Any]:
    return dict(world.initial_norms)


INITIAL_NORMS = Kind(
    values(3, "start", [1], True)
    | FUNCTION
    | {
        "a model": Wrong(lambda w: w.model, "a Sequential"),
        "empty": value({}, "1.weight"),
        "of lists": Wrong(lambda w: _initial(w) | {"1.bias": [0.0]}, r"1.bias.*a list"),
        "of integers": Wrong(
            lambda w: _initial(w) | {"1.bias": torch.ones(5, dtype=torch.int64)}, "torch.int64"
        ),
        "of another shape": Wrong(lambda w: _initial(w) | {"1.bias": torch.ones(3)}, r"\(3,\)"),
        "of NaN": Wrong(lambda w: _initial(w) | {"1.bias": wide(math.nan, (5,))}, "NaN"),
        "of another model": Wrong(lambda w: w.other_point, "1.weight"),
    }
)
STREAM = Kind(
    STATE.wrong
    | {
        "empty": value({}, "'1'"),
        "an unknown layer": value({"1": torch.ones(2, dtype=torch.int64), "9": 1}, "'9'"),
        "a list": value({"1": [1, 1]}, "'1'.*a list"),
        "floats": value({"1": torch.ones(2)}, "torch.float32"),
        "of three": value({"1": torch.ones(3, dtype=torch.int64)}, r"\(3,\)"),
        "zeros": value({"1": torch.zeros(2, dtype=torch.int64)}, r"\[0, 0\]"),
    }
)


def _scores(world: Any) -> dict[str, Any]:
    return dict(world.scores)


SCORES = Kind(
    floating(_scores).wrong
    | {label: each for label, each in SCORE.wrong.items() if label != "computed scores"}
    | unknown_name(_scores)
    | NONE
    | {"a function": Wrong(function, r"takes \(\)")}
)
OTHER_WEIGHTS = {
    "a model": MODULE["a model"],
    "of another model": Wrong(lambda w: w.other_point, W2),
}
# Checked by name when it is used; what it is at once.
REFERENCE = Kind(values(3, "init", [1], True) | FUNCTION | CLASS)
POINT_WEIGHTS = Kind(
    values(None, 3, "x", [1])
    | FUNCTION
    | MODULE
    | {"of lists": value({W0: [1.0]}, rf"{W0}.*a list"), "of None": value({W0: None}, "NoneType")}
)
POINT_STATE = Kind(
    values(3, "x")
    | FUNCTION
    | {"an optimizer": Wrong(lambda w: w.optimizer, "an Adam"), "numbers": value([1], "an int")}
)
BOOL_MASKS = Kind(
    values(3, "masks", [1])
    | FUNCTION
    | {
        "a tensor": value(torch.ones(2, 2) > 0, "a Tensor"),
        "of lists": value({W0: [True]}, "a list"),
        "of floats": value({W0: torch.ones(2, 2)}, "torch.float32"),
        "of other survivors": value({W0: torch.ones(3, 3) > 0}, "9"),
    }
)
_PLAIN_SIGNS = torch.zeros(5, 6, dtype=torch.int8)


def _ticket(role: str, label: str, each: Any, shows: str) -> dict[str, Wrong]:
    return {label: Wrong(lambda w: getattr(w.ticket, role) | {W0: each}, shows)}


TICKET_SIGNS = Kind(
    values(None, 3, "x", [1])
    | FUNCTION
    | MODULE
    | {"without a masked one": Wrong(lambda w: {W0: w.ticket.signs[W0]}, W2)}
    | _ticket("signs", "of lists", [1], "a list")
    | _ticket("signs", "of floats", torch.zeros(5, 6), "torch.float32")
    | _ticket("signs", "of twos", _PLAIN_SIGNS + 2, "from 2 to 2")
    | _ticket("signs", "outside the mask", _PLAIN_SIGNS + 1, "outside the mask")
    | _ticket("signs", "of another shape", _PLAIN_SIGNS.T, r"\(6, 5\)")
)
TICKET_MASKS = Kind(
    values(None, 3, "x", [1])
    | FUNCTION
    | MODULE
    | _ticket("masks", "of lists", [1], "a list")
    | _ticket("masks", "of floats", torch.ones(5, 6), "torch.float32")
    | _ticket("masks", "of another shape", torch.ones(6, 5) > 0, r"\(6, 5\)")
    | {"of another weight": Wrong(lambda w: w.ticket.masks | {UNKNOWN: torch.ones(1) > 0}, UNKNOWN)}
)
SHAPES = Kind(
    values(None, 3, "x", [1])
    | FUNCTION
    | MODULE
    | _ticket("network", "of numbers", 30, "an int")
    | _ticket("network", "of another shape", (6, 5), r"\(6, 5\)")
    | _ticket("network", "of text", "5x6", "a str")
    | {"of one": value({W0: (5, 6)}, W2)}
)
RECIPE = Kind(
    values(3, "IMP", [1], {"method": 3}, {3: "IMP"}, {"method": None}) | FUNCTION | MODULE
)


def _record(label: str, shows: str, **entries: Any) -> dict[str, Wrong]:
    return {label: Wrong(lambda w: w.tracker.state_dict() | entries, shows)}


TRACKER_STATE = Kind(
    STATE.wrong
    | {"empty": value({}, "'shapes'")}
    | _record("an unknown entry", "'lr'", lr=1)
    | _record("shapes in a list", "'shapes'.*a list", shapes=[1])
    | _record("shapes of other weights", f"'shapes'.*{W0}", shapes={UNKNOWN: [1]})
    | _record("numbers for shapes", f"'shapes'.*{W0}.*an int", shapes={W0: 3, W2: 3})
    | _record("other shapes", r"\(3, 3\)", shapes={W0: [3, 3], W2: [3, 5]})
    | _record("a flag in words", "'keep_steps'.*'yes'", keep_steps="yes")
    | _record("marks in a list", "'marks'.*a list", marks=[1])
    | _record("no first mark", "'marks'.*'init'", marks={})
    | _record("a mark of numbers", "'marks'.*'init'.*an int", marks={"init": 3})
    | _record("a mark of another weight", f"{W0}", marks={"init": {UNKNOWN: 3}})
    | _record("a mark of lists", "a list", marks={"init": {W0: [1], W2: [1]}})
    | _record("a mark of floats", "float32", marks={"init": {W0: torch.ones(8), W2: torch.ones(4)}})
    | _record("steps in words", "'kept'.*a str", kept="steps")
    | _record("a step of numbers", "'kept'.*an int", kept=[3])
    | _record("counts in words", "'counted'.*a str", counted="none")
    | _record("counts of numbers", "'counted'.*an int", counted=[3])
    | _record("short rows", r"'counted'.*\['a', 1\]", counted=[[["a", 1]]])
    | _record("rows of text", "'counted'.*'x'", counted=[[["a", "x", 1, 1]]])
)
MODEL_STATE = Kind(
    values(None, 3, "x", [1])
    | FUNCTION
    | CLASS
    | {
        "empty": value({}, "0.weight"),
        "of another model": Wrong(lambda w: w.other_point, "0.weight"),
        "of another shape": Wrong(
            lambda w: w.plain.state_dict() | {W0: torch.ones(6, 5)}, r"\(6, 5\)"
        ),
        "an unknown name": Wrong(
            lambda w: w.plain.state_dict() | {UNKNOWN: torch.ones(1)}, UNKNOWN
        ),
        "of lists": Wrong(lambda w: w.plain.state_dict() | {W0: [1.0]}, W0),
    }
)
COMPRESSED = {
    "of indices alone": value({"0.crow_indices": torch.ones(1)}, "0.values"),
    "of no layer": value({"7.crow_indices": torch.ones(1)}, "'7'|7.crow"),
}
