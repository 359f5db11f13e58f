"""For each kind of argument, values that a user would call wrong, and other forms of a right one.

A value that needs a model or an optimizer is made from the world of its case (see ``world.py``).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import polarity as pol
from tests.laws.refusals import wide

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
PROGRESS = Kind(
    values(None, 1, 0, "yes", [], 0.5)
    | {"of one that returns nothing": Wrong(lambda w: lambda items: None, "a NoneType")}
)
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
        "a typo in a list": value(["no.such"], "no.such"),
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
    values(3, "x", True, 0.5)
    | FUNCTION
    | CLASS
    | {
        "a model": Wrong(lambda w: w.model, "a Sequential"),
        "an array": value(np.ones(6), "ndarray"),
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
NAME = Kind(values(3, ["init"], True) | CLASS | FUNCTION)
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
REWIND_TYPES = Kind(
    {label: each for label, each in REWIND.wrong.items() if label != "of another model"}
)
PERTURB = Kind(
    values(3, 0.1, "epsilon", [0.1], [3], {"epsilon": 0.1}, True)
    | {
        "a class": value(pol.Epsilon, "class .*Epsilon"),
        "a class in a list": value([pol.Delta], "class .*Delta"),
        "a value in a list and one that is right": value([pol.Epsilon(0.1), 0.5], "holds 0.5"),
        "two centres": value([pol.Phi(0.1), pol.Phi(0.2)], "2 Phi"),
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
ONCE = {"an iterator": Wrong(lambda w: iter(w.batches), "an iterator")}
SEEDS = Kind(
    values(None, 3, "01", (1,), (1, 1), (0, 1, 2), ("a", "b"), (0.5, 1), (0, True), {0, 1})
    | FUNCTION
)
MARGIN = Kind(_UNREAL | values(math.nan, 0.5, -1.0), _REAL)
TOLERANCE = Kind(_UNREAL | values(math.nan, -0.5), _REAL)
