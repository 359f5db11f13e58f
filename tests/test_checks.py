"""One check for each kind of argument; every error says what was given and what was expected."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from polarity import _checks, _inputs

X = torch.tensor([1.0, math.nan, math.inf])


def pair(a, b, *, key=None):
    return a, b, key


class TheirScheduler:
    """A scheduler that is not PyTorch's, as timm has."""

    def step(self):
        pass

    state_dict = load_state_dict = step


GOOD = [
    lambda: _checks.check_number("x", np.float32(0.5), below=1),
    lambda: _checks.check_number("x", Fraction(1, 2), below=1),
    lambda: _checks.check_integer("x", np.int64(2), at_least=2),
    lambda: _checks.check_flag("x", np.bool_(True)),
    lambda: _checks.check_callable("x", torch.nn.MSELoss()),
    lambda: _checks.check_callable("x", torch.nn.Identity, classes=True),
    lambda: _inputs.check_arguments("x", pair, ("a", "b"), ("key",), remedy=""),
    lambda: _inputs.check_arguments("x", min, ("a", "b", "c"), remedy=""),  # has no signature
    lambda: _checks.check_dtype("x", torch.bfloat16),
    lambda: _checks.check_dtype("x", None),
    lambda: _checks.check_mapping("x", {}),
    lambda: _inputs.check_batches("x", []),  # a model without statistics needs none
    lambda: _inputs.check_batches("x", iter([X])),
    lambda: _inputs.check_batches("x", torch.utils.data.DataLoader([X])),
    lambda: _inputs.check_inputs("x", ()),
    lambda: _inputs.check_scheduler(TheirScheduler()),
    lambda: _checks.check_floating("x", X.half()),
    lambda: _checks.check_number("x", 1),
    lambda: _checks.check_number("x", 1.5, at_least=1.5, below=2),
    lambda: _checks.check_number("x", math.inf, above=0),
    lambda: _checks.check_finite("x", -3),
    lambda: _checks.check_fraction("x", 0),
    lambda: _checks.check_fraction("x", 1, zero=False),
    lambda: _checks.check_integer("x", 2, at_least=2),
    lambda: _checks.check_choice("x", "a", ("a", "b")),
    lambda: _checks.check_scope("layer"),
    lambda: _checks.check_callable("x", len),
    lambda: _checks.check_generator(None),
    lambda: _checks.check_generator(torch.Generator()),
    lambda: _checks.check_shape("masks", "w", torch.Size((2, 3)), [2, 3]),
    lambda: _checks.check_names("masks", {"a": 1}, {"a": 2, "b": 3}, needed=("a",)),
    lambda: _checks.check_tensors("init", {"a": X, "b": 3}, {"a": (3,)}),
    lambda: _checks.check_type("x", 3, (str, int), "a string or an int"),
    lambda: _checks.check_module(torch.nn.Identity()),
    lambda: _checks.check_optimizer(torch.optim.SGD([X])),
    lambda: _checks.check_entries("weight 'w'", X[:1]),
    lambda: _checks.check_entries("weight 'w'", X[:0]),
]
BAD = [
    (
        lambda: _checks.check_number("x", torch.ones(1)),
        TypeError,
        "x=tensor([1.]) is a Tensor, expected a number: .item() gives it",
    ),
    (
        lambda: _checks.check_number("x", torch.ones(99)),
        TypeError,
        "x is a Tensor, expected a number",
    ),
    (
        lambda: _checks.check_number("x", float),
        TypeError,
        "x is the class float, expected a number",
    ),
    (lambda: _checks.check_flag("x", 1), TypeError, "x=1 is an int, expected True or False"),
    (
        lambda: _checks.check_choice("x", ["a"], ("a", "b")),
        ValueError,
        "x=['a'] is a list, expected 'a' or 'b'",
    ),
    (
        lambda: _checks.check_callable("x", torch.nn.MSELoss),
        TypeError,
        "x is the class MSELoss, expected a function: MSELoss(…) makes one",
    ),
    (
        lambda: _inputs.check_arguments("x", pair, ("a",), remedy="give both"),
        TypeError,
        "x=pair takes (a, b, key), expected a function of (a): give both",
    ),
    (
        lambda: _inputs.check_arguments("x", pair, ("a", "b"), ("other",), remedy="no"),
        TypeError,
        "x=pair takes (a, b, key), expected a function of (a, b): no",
    ),
    (
        lambda: _checks.check_dtype("x", torch.int32),
        ValueError,
        "x=torch.int32 is a dtype, expected a floating-point torch.dtype or None",
    ),
    (
        lambda: _checks.check_mapping("x", [1]),
        TypeError,
        "x is a list, expected {name: tensor}",
    ),
    (
        lambda: _inputs.check_batches("x", X),
        TypeError,
        "x is a Tensor, expected batches: a list of them or a DataLoader, [batch] for a single one",
    ),
    (
        lambda: _inputs.check_inputs("x", "text"),
        TypeError,
        "x is a str, expected a tensor, a tuple or list of arguments, or a dict of keyword "
        "arguments",
    ),
    (
        lambda: _inputs.check_scheduler(torch.optim.SGD([X])),
        TypeError,
        "scheduler is a SGD, expected a learning-rate scheduler: "
        "torch.optim.lr_scheduler.StepLR(optimizer, 30), for instance",
    ),
    (
        lambda: _checks.check_floating("x", torch.ones(1, dtype=torch.int64)),
        TypeError,
        "x has dtype torch.int64, expected a floating-point tensor",
    ),
    (lambda: _checks.check_number("x", "1"), TypeError, "x='1' is a str, expected a number"),
    (lambda: _checks.check_number("x", True), TypeError, "x=True is a bool, expected a number"),
    (lambda: _checks.check_number("x", math.nan), ValueError, "x=nan, expected a number"),
    (
        lambda: _checks.check_number("x", 0, at_least=1),
        ValueError,
        "x=0, expected a number of at least 1",
    ),
    (
        lambda: _checks.check_number("x", 1, above=0, below=1),
        ValueError,
        "x=1, expected a number above 0 and below 1",
    ),
    (lambda: _checks.check_finite("x", math.inf), ValueError, "x=inf, expected a finite number"),
    (
        lambda: _checks.check_fraction("x", math.nan),
        ValueError,
        "x=nan is out of range, expected a number in [0, 1]",
    ),
    (
        lambda: _checks.check_fraction("x", 0, zero=False),
        ValueError,
        "x=0 is out of range, expected a number in (0, 1]",
    ),
    (lambda: _checks.check_integer("x", 2.0, 1), TypeError, "x=2.0 is a float, expected an int"),
    (lambda: _checks.check_integer("x", 0, 1), ValueError, "x=0, expected an int of at least 1"),
    (
        lambda: _checks.check_choice("x", "d", ("a", "b", "c")),
        ValueError,
        "x='d', expected 'a', 'b' or 'c'",
    ),
    (
        lambda: _checks.check_scope("all"),
        ValueError,
        "scope='all', expected 'global' or 'layer'",
    ),
    (lambda: _checks.check_callable("x", 3), TypeError, "x=3 is an int, expected a function"),
    (
        lambda: _checks.check_generator(3),
        TypeError,
        "generator=3 is an int, expected a torch.Generator: "
        "torch.Generator().manual_seed(0), for instance",
    ),
    (
        lambda: _checks.check_shape("mask", None, (2,), (3, 2), "weight"),
        ValueError,
        "mask has shape (2,), expected the weight's (3, 2)",
    ),
    (
        lambda: _checks.check_shape("masks", "w", (2,), (3, 2)),
        ValueError,
        "masks holds 'w' in shape (2,), expected the model's (3, 2)",
    ),
    (
        lambda: _checks.check_names("masks", {"a": 1}, {"a": 2, "b": 3}),
        ValueError,
        "masks is missing 'b', which is in the model: expected 'a', 'b'",
    ),
    (
        lambda: _checks.check_names("masks", {"a": 1}, (), what="masked"),
        ValueError,
        "masks holds 'a', which is not masked: expected nothing",
    ),
    (
        lambda: _checks.check_names("masks", {"a": 1}, "bcdefghij", needed=()),
        ValueError,
        "masks holds 'a', which is not in the model: expected 'b', 'c', 'd', 'e', 'f', 'g', 'h', "
        "'i', …",
    ),
    (
        lambda: _checks.check_tensors("init", {"a": X}, {"a": (3,), "b": (3,)}, what="masked"),
        ValueError,
        "init is missing 'b', which is masked: expected 'a', 'b'",
    ),
    (
        lambda: _checks.check_tensors("init", {"a": [1]}, {"a": (1,)}),
        TypeError,
        "init['a'] is a list, expected a tensor",
    ),
    (
        lambda: _checks.check_tensors("init", {"a": X}, {"a": (4,)}),
        ValueError,
        "init holds 'a' in shape (3,), expected the model's (4,)",
    ),
    (
        lambda: _checks.check_type("x", 3, str, "a string"),
        TypeError,
        "x is an int, expected a string",
    ),
    (
        lambda: _checks.check_module(torch.nn.Identity),
        TypeError,
        "model is the class Identity, expected a torch.nn.Module",
    ),
    (
        lambda: _checks.check_optimizer([X], "optimizer[1]"),
        TypeError,
        "optimizer[1] is a list, expected a torch.optim.Optimizer: "
        "torch.optim.SGD(model.parameters(), lr=0.1), for instance",
    ),
    (
        lambda: _checks.check_entries("weight 'w'", X),
        ValueError,
        "weight 'w' holds 2 NaN or infinite entries, expected finite ones",
    ),
    (
        lambda: _checks.check_entries("weight 'w'", X[1:], "rewind first"),
        ValueError,
        "weight 'w' holds 2 NaN or infinite entries, expected finite ones: rewind first",
    ),
]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 3, 6])
def test_one_bad_entry_anywhere_makes_a_tensor_not_finite(dtype, bad, place):
    values = torch.full((7,), torch.finfo(dtype).max, dtype=dtype)
    assert _checks.all_finite(values)
    values[place] = bad
    assert not _checks.all_finite(values)
    assert _checks.all_finite(values[:0])


@pytest.mark.parametrize("call", GOOD)
def test_what_fits_passes(call):
    call()


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=[each[-1][:40] for each in BAD])
def test_what_does_not_fit_is_named_with_what_would(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert str(raised.value) == message
