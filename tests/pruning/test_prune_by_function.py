"""Pruning by a function of name and weight, instead of by tensors of scores."""

import pytest
import torch
from torch import nn

import polarity as pol
from tests.pruning.test_prune import alive, row


@pytest.fixture
def two_rows() -> nn.Sequential:
    """Eight weights, of which the larger ones are in the second layer."""
    return nn.Sequential(row(0.1, -0.4, 0.2, -0.3), row(5.0, -8.0, 7.0, -6.0))


def test_scores_may_be_a_function_of_name_and_weight(two_rows):
    masked = pol.mask_weights(two_rows)
    pol.prune(masked, lambda name, w: -w.abs() if name[0] == "1" else w - 100, density=0.5)
    assert alive(masked) == [[], [0, 1, 2, 3]]
    pol.prune(masked, pol.scores.magnitude, amount=0.5)
    assert alive(masked) == [[], [1, 2]]


def test_a_random_mask_in_one_line():
    def drawn_mask(seed: int) -> list[list[int]]:
        model = nn.Sequential(nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, 30), nn.Linear(30, 8))
        draw = torch.Generator().manual_seed(seed)
        densities = pol.densities.balanced(model, 0.3)
        pol.prune(model, pol.scores.random, densities=densities, generator=draw)
        return alive(model)

    # 174 of 580: 40 are dense, 67 each of 300 and 240
    assert [len(each) for each in drawn_mask(0)] == [40, 67, 67]
    assert drawn_mask(0) == drawn_mask(0)
    assert drawn_mask(0)[1:] != drawn_mask(1)[1:]


def test_a_function_scores_what_the_densities_name_or_else_all(two_rows):
    pol.prune(two_rows, pol.scores.magnitude, densities={"1.weight": 0.5})
    assert list(pol.masks(two_rows)) == ["1.weight"]
    assert alive(two_rows) == [[1, 2]]
    other = nn.Sequential(row(1, 2), nn.BatchNorm1d(1), row(3, 4))
    pol.prune(other, lambda name, weight: weight, density=0.5)
    assert list(pol.masks(other)) == ["0.weight", "2.weight"]
    assert alive(other) == [[], [0, 1]]


def test_a_function_of_scores_prunes_as_imp_prune_does():
    net = nn.Sequential(nn.Linear(20, 30), nn.Linear(30, 10))
    other = nn.Sequential(nn.Linear(20, 30), nn.Linear(30, 10))
    pol.imp_prune(net, 0.3, score=pol.scores.random, generator=torch.Generator().manual_seed(1))
    draw = torch.Generator().manual_seed(1)
    pol.prune(other, pol.scores.random, amount=0.3, generator=draw)
    for one, two in zip(pol.masks(net).values(), pol.masks(other).values(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize(
    ("scores", "given", "error", "parts"),
    [
        (0.5, {"density": 0.5}, TypeError, ["scores", "float", "(name, weight)"]),
        (None, {"density": 0.5}, TypeError, ["scores", "NoneType"]),
        ({"7.weight": torch.ones(1)}, {"density": 0.5}, ValueError, ["scores", "'7.weight'"]),
        (
            pol.scores.random,
            {"densities": {"7.weight": 1}},
            ValueError,
            ["densities", "'7.weight'"],
        ),
        (pol.scores.random, {"densities": 0.5}, TypeError, ["densities", "float"]),
        (pol.scores.random, {"densities": {}}, ValueError, ["densities", "no prunable"]),
        (pol.scores.random, {}, ValueError, ["density=None"]),
        (lambda name, weight: 1.0, {"density": 0.5}, TypeError, ["float", "'0.weight'", "tensor"]),
        (lambda name, weight: weight[0], {"density": 0.5}, ValueError, ["'0.weight'", "(1, 4)"]),
        (lambda name, weight: weight / 0, {"density": 0.5}, ValueError, ["'0.weight'", "infinite"]),
    ],
    ids=[
        "number",
        "none",
        "unknown score",
        "unknown density",
        "one density",
        "no densities",
        "how many",
        "no tensor",
        "shape",
        "infinite",
    ],
)
def test_scores_that_do_not_fit_a_plain_model_leave_it_plain(two_rows, scores, given, error, parts):
    before = {name: value.clone() for name, value in two_rows.state_dict().items()}
    with pytest.raises(error) as raised:
        pol.prune(two_rows, scores, **given)
    assert [part for part in parts if part not in str(raised.value)] == []
    assert list(two_rows.state_dict()) == list(before)
    assert [
        n for n, value in two_rows.state_dict().items() if not torch.equal(value, before[n])
    ] == []
