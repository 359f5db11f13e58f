"""What a summary adds up and prints: totals, columns, and multiply-adds of one example."""

import pytest
import torch
from torch import nn

import polarity as pol
from tests.analysis.summed import MASK, layer, only
from tests.models import (
    mlp,
)


def test_totals_by_hand() -> None:
    # 2 of 8 and 2 of 4 entries live; two of the four are positive.
    first = torch.tensor([[1.0, -1.0, 0, 0], [0, 0, 0, 0]])
    second = torch.tensor([[0.0, 0.0], [2.0, -2.0]])
    model = nn.Sequential(layer(first), nn.ReLU(), nn.Linear(2, 2))
    with torch.no_grad():
        model[2].weight.copy_(second)
    found = pol.summary(model, torch.ones(5, 3, 4))  # 3 vectors for each of 5 examples
    assert (found.survivors, found.total, found.density, found.positive) == (4, 12, 4 / 12, 0.5)
    assert (found.dense_multiply_adds, found.sparse_multiply_adds) == (3 * 12, 3 * 4)
    assert (found.other_entries, found.other_multiply_adds) == (2, 0)


def test_the_table_by_hand() -> None:
    model = nn.Sequential(pol.mask_weights(layer(), masks={"weight": MASK}), nn.Embedding(3, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]]))
    assert str(pol.summary(model)).splitlines() == [
        "weight    shape    form  density      +  std of survivors  left out",
        "-" * 100,
        "0.weight    2x4  masked   0.7500  0.800             2.267",
        "1.weight    3x2   plain   1.0000  0.500                 1"
        "  an embedding: targets='1.weight' takes it",
        "total        14           0.8571  0.636",
        "0 entries in other parameters",
        "in reach: 8 of 14 matrix entries",
    ]


def test_columns_appear_with_their_content() -> None:
    model = pol.sign_in(mlp(6, 5))
    assert "mean m²−v²" in str(pol.summary(model))
    assert "multiply-adds" not in str(pol.summary(model))
    counted = str(pol.summary(model, torch.ones(3, 6)))
    assert "multiply-adds  of live entries" in counted
    assert "\nmultiply-adds of one example\n" in counted
    attention = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    shown = str(pol.summary(attention, torch.ones(1, 3, 8)))
    assert "multiply-adds of one example, 144 of them in products without a weight" in shown


def test_examples_says_how_many_the_inputs_are() -> None:
    lstm, inputs = nn.LSTM(4, 6), torch.ones(5, 2, 4)  # 5 moments of 2 examples
    assert pol.summary(lstm, inputs)["weight_ih_l0"].dense_multiply_adds == 2 * 96
    assert pol.summary(lstm, inputs, examples=2)["weight_ih_l0"].dense_multiply_adds == 5 * 96
    assert pol.summary(lstm, inputs, examples=3)["weight_ih_l0"].dense_multiply_adds == 320.0
    assert pol.summary(lstm, inputs, examples=7).dense_multiply_adds == pytest.approx(2400 / 7)
    with pytest.raises(ValueError, match="examples=2 needs inputs="):
        pol.summary(lstm, examples=2)


def test_inputs_may_be_a_tuple_or_a_dict() -> None:
    model = nn.Bilinear(3, 4, 2)
    one = (torch.ones(2, 3), torch.ones(2, 4))
    for inputs in (one, {"input1": one[0], "input2": one[1]}):
        row = only(model, inputs)
        assert row.dense_multiply_adds is None  # PyTorch has no formula for it
