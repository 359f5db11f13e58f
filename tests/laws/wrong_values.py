"""For each kind of argument, values that a user would call wrong, and other forms of a right one.

A value that needs a model or an optimizer is made from the world of its case (see ``world.py``).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import polarity as pol
from tests.laws.refusals import W0, W2, wide

Make = Callable[[Any], Any]


@dataclass(frozen=True)
class Wrong:
    """How a wrong value is made, and what of it the message must show if not itself or its type."""

    make: Make
    shows: str = ""


@dataclass(frozen=True)
class Kind:
    """A kind of argument.

    Attributes:
        wrong: wrong values by what they are.
        forms: functions that give a right value another form that must be accepted too.
    """

    wrong: dict[str, Wrong]
    forms: tuple[Callable[[Any], Any], ...] = ()

    def __or__(self, wrong: dict[str, Wrong]) -> "Kind":
        return Kind(self.wrong | wrong, self.forms)


def value(given: Any, shows: str = "") -> Wrong:
    """Return a wrong value that needs no world."""
    return Wrong(lambda world: given, shows)


def function(world: Any) -> Callable[[], int]:
    return lambda: 3


def values(*given: Any) -> dict[str, Wrong]:
    return {repr(each): value(each) for each in given}


# What None is depends on the parameter: it is wrong where it is not the default.
NONE = {"None": value(None)}
FUNCTION = {"a function": Wrong(function, "a function")}
CLASS = {"a class": value(nn.Linear, "class Linear")}
MODULE = {"a model": Wrong(lambda w: w.model, "a Sequential|of class|class Sequential")}

ANYTHING = Kind({})
_UNREAL = values("0.5", [0.5], True, np.True_, 1j, {"a": 1}) | FUNCTION | CLASS
_UNREAL |= {"a tensor": value(torch.tensor(0.5), "a Tensor|tensor\\(0.5")}
_REAL = (np.float64, lambda x: x if isinstance(x, str) else Fraction(x))
NUMBER = Kind(_UNREAL | values(math.nan, math.inf, -math.inf), _REAL)
POSITIVE = NUMBER | values(0, -1.0)
FRACTION = NUMBER | values(-0.1, 1.1, 20)
INTEGER = Kind(_UNREAL | values(2.0, math.nan, -1), (np.int64,))
COUNT = INTEGER | values(0)
FLAG = Kind(values(None, 1, 0, "yes", "False", [], 1.0) | CLASS | FUNCTION, (np.bool_,))
CHOICE = Kind(
    values("typo", "", 3, True, ["global"], b"global")
    | CLASS
    | FUNCTION
    | {"an array": value(np.array(["global", "layer"]), "array|ndarray")}
)
GENERATOR = Kind(
    values(0, "seed", True, [1])
    | FUNCTION
    | {
        "a class": value(torch.Generator, "class Generator"),
        "numpy's": value(np.random.default_rng(0), "Generator"),
        "its state": value(torch.Generator().get_state(), "a Tensor"),
    }
)
DTYPE = Kind(
    values("float64", 64, [torch.float64])
    | {"an int dtype": value(torch.int32, "torch.int32"), "Python's": value(float, "class float")}
    | {"complex": value(torch.complex64, "torch.complex64")}
    | {"numpy's": value(np.float32, "class float32")}
)

MODEL = Kind(
    NONE
    | values(3, "model", 0.5)
    | CLASS
    | FUNCTION
    | {
        "a state_dict": Wrong(lambda w: w.model.state_dict(), "an OrderedDict"),
        "a list of layers": Wrong(lambda w: list(w.model), "a list"),
        "its parameters": Wrong(lambda w: w.model.parameters(), "a generator"),
        "a tensor": value(torch.ones(5, 6), "a Tensor"),
        "an optimizer": Wrong(lambda w: w.optimizer, "an Adam"),
    }
)
OPTIMIZER = Kind(
    values(3, "sgd", True, {"lr": 0.1})
    | FUNCTION
    | {
        "a class": value(torch.optim.SGD, "class SGD"),
        "parameters": Wrong(lambda w: w.model.parameters(), "a generator"),
        "a scheduler": Wrong(lambda w: w.scheduler, "a StepLR"),
        "a model": Wrong(lambda w: w.model, "a Sequential"),
        "its state_dict": Wrong(lambda w: w.optimizer.state_dict(), "a dict"),
    },
)
# Where the optimizer has to train something of the model.
OF_ANOTHER_MODEL = {"of another model": Wrong(lambda w: w.other_optimizer, "SGD")}
SCHEDULER = Kind(
    values(3, "step", {"gamma": 0.1})
    | FUNCTION
    | {
        "a class": value(torch.optim.lr_scheduler.StepLR, "class StepLR"),
        "an optimizer": Wrong(lambda w: w.optimizer, "an Adam"),
        "a model": Wrong(lambda w: w.model, "a Sequential"),
        "its state_dict": Wrong(lambda w: w.scheduler.state_dict(), "a dict"),
    }
)
REWIND = Kind(
    values(3, "start", True)
    | FUNCTION
    | {
        "a class": value(pol.RewindPoint, "class RewindPoint"),
        "a state_dict": Wrong(lambda w: w.model.state_dict(), "OrderedDict"),
        "a model": Wrong(lambda w: w.model, "a Sequential"),
        "of another model": Wrong(lambda w: w.other_point, "'0.weight'|'0.bias'"),
    }
)
SELECTOR = Kind(
    values(3, 0.5, True, [3], [None])
    | {
        "a typo": value("0.wieght", "0.wieght"),
        "a typo in a list": value(["0.weight", "no.such"], "no.such"),
        "a glob of nothing": value("head.*", r"head\.\*"),
        "an instance": Wrong(lambda w: w.model[0], "a .*Linear"),
        "another class": value(int, "class int"),
        "bytes": value(b"0.weight", "bytes|int|48"),
        "an optimizer": Wrong(lambda w: w.optimizer, "an? Adam"),
    }
)
PATH = Kind(
    values(None, 3, True, [], b"ticket", {"a": 1})
    | CLASS
    | FUNCTION
    | MODULE
    | {"a folder": Wrong(lambda w: str(w.folder), "is a folder"), "empty": value("", "''")},
    (Path,),
)
NEW_FILE = {"in no folder": Wrong(lambda w: w.folder / "none" / "a.safetensors", "none")}
OLD_FILE = {
    "no file": Wrong(lambda w: w.folder / "none.safetensors", "none.safetensors"),
    "another file": Wrong(lambda w: w.text_file, "notes.txt"),
}
_UNCALLABLE = values(3, "magnitude", [1], 0.5, {"a": 1})
CALLABLE = Kind(_UNCALLABLE | {"a class": value(nn.CrossEntropyLoss, "class CrossEntropyLoss")})
BUILDER = Kind(_UNCALLABLE | NONE)
SCORE = Kind(
    values(3, "magnitude", 0.5)
    | {
        "computed scores": Wrong(lambda w: w.scores, "a dict"),
        "a class": value(nn.Linear, "class Linear"),
        "snip": value(pol.scores.snip, r"snip takes \(model, loss_fn, batches"),
        "grasp": value(pol.scores.grasp, r"grasp takes \(model, loss_fn, batches"),
        "synflow": value(pol.scores.synflow, r"synflow takes \(model, example_inputs"),
        "without its init": value(pol.scores.large_final_same_sign, r"takes \(init\)"),
        "of the weight alone": value(lambda weight: weight, r"takes \(weight\)"),
    }
)
BATCHES = Kind(
    values(3, "batches", True)
    | FUNCTION
    | CLASS
    | {
        "a tensor": value(torch.ones(4, 6), "a Tensor"),
        "one dict": value({"x": torch.ones(4, 6)}, "a dict"),
        "a dataset": value(torch.utils.data.TensorDataset(torch.ones(4, 6)), "a TensorDataset"),
        "nothing": value([], "batches is empty"),
        "nothing left": value(iter(()), "batches is empty|a tuple_iterator|is an iterator"),
        "a model": Wrong(lambda w: w.model, "a Sequential"),
    }
)
PAIRS = {
    "inputs alone": value([torch.ones(4, 6)], "a tensor of shape|a Tensor"),
    "triples": value([(1, 2, 3)], "a tuple"),
}
INPUTS = Kind(
    values(None, 3, "x", True, 0.5)
    | FUNCTION
    | CLASS
    | {
        "a model": Wrong(lambda w: w.model, "a Sequential"),
        "an array": value(np.ones(6), "ndarray"),
    }
)


@dataclass(frozen=True)
class Tensors:
    """Wrong mappings of tensors, made from a right one by name."""

    right: Make
    wrong: dict[str, Wrong] = field(default_factory=dict)

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


TENSOR = Kind(values(None, 3, "x", [1.0], True) | CLASS | FUNCTION)
FLOATING = TENSOR | {
    "integers": value(torch.ones(5, 6, dtype=torch.int64), "torch.int64"),
    "bools": value(torch.ones(5, 6) > 0, "torch.bool"),
}
MASK = TENSOR | {
    "of halves": value(wide(0.5, (5, 6)), "zeros and ones"),
    "of NaN": value(wide(math.nan, (5, 6)), "zeros and ones"),
}
NAME = Kind(values(3, None, ["init"], True) | CLASS | FUNCTION)
STATE = Kind(values(None, 3, "state", [1]) | CLASS | FUNCTION | MODULE)
WEIGHT = FLOATING | {"of another shape": value(torch.ones(3, 5), r"\(3, 5\)")}
# A number, or one of two words.
ALPHA = Kind(FRACTION.wrong | values("hold on", "", ["hold"]) | NONE, (np.float64,))
# A number, or a tensor that is kept.
PLAIN_ALPHA = Kind(
    {label: each for label, each in FRACTION.wrong.items() if label != "a tensor"}
    | {"a vector": value(torch.ones(2), r"\(2,\)"), "an integer": value(torch.tensor(1), "int64")},
    _REAL,
)
FACTOR = Kind({label: each for label, each in POSITIVE.wrong.items() if label != "a tensor"}, _REAL)


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

SCORE_ALONE = {
    label: each for label, each in SCORE.wrong.items() if label not in ("computed scores",)
}


def _scores(world: Any) -> dict[str, Any]:
    return dict(world.scores)


SCORES = Kind(
    floating(_scores).wrong
    | {label: each for label, each in SCORE.wrong.items() if label != "computed scores"}
    | unknown_name(_scores)
    | NONE
    | {"a function": Wrong(function, r"takes \(\)")}
)
REWIND_TYPES = Kind(
    {label: each for label, each in REWIND.wrong.items() if label != "of another model"}
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
    values(3, "x", [1]) | FUNCTION | {"an optimizer": Wrong(lambda w: w.optimizer, "an Adam")}
)
PERTURB = Kind(
    values(3, 0.1, "epsilon", [0.1], [3], {"epsilon": 0.1}, True)
    | {
        "a class": value(pol.Epsilon, "class .*Epsilon"),
        "a class in a list": value([pol.Delta], "class .*Delta"),
        "two centres": value([pol.Phi(0.1), pol.Phi(0.2)], "2 Phi"),
        "None in a list": value([None], "None"),
        "an iterator": value(iter([pol.Epsilon(0.1)]), "iterator"),
        "of no arguments": Wrong(function, r"takes \(\)"),
    }
)
SIGNS = TENSOR | {
    "a matrix": value(torch.ones(2, 2, dtype=torch.int8), r"\(2, 2\)"),
    "a number": value(torch.tensor(1, dtype=torch.int8), r"\(\)"),
}
MAGNITUDES = TENSOR | {
    "of integers": value(torch.ones(4, dtype=torch.int64), "torch.int64"),
    "of another length": value(torch.ones(5), r"\(5,\)"),
}
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
ONCE = {"an iterator": Wrong(lambda w: iter(w.batches), "an iterator")}
BATCHES_AGAIN = ONCE
SEEDS = Kind(
    values(None, 3, "01", (1,), (1, 1), (0, 1, 2), ("a", "b"), (0.5, 1), (0, True), {0, 1})
    | FUNCTION
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
MARGIN = Kind(_UNREAL | values(math.nan, 0.5, -1.0), _REAL)
TOLERANCE = Kind(_UNREAL | values(math.nan, -0.5), _REAL)
COMPRESSED = {
    "of indices alone": value({"0.crow_indices": torch.ones(1)}, "0.values"),
    "of no layer": value({"7.crow_indices": torch.ones(1)}, "'7'|7.crow"),
}
