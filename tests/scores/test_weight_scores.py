"""Scores: worked out by hand, drawn from generators, and refused when they cannot be computed."""

import math

import pytest
import torch
from torch import Tensor, nn

import polarity as pol
from polarity import scores

INITIAL = torch.tensor([1.0, -1.0, 1.0, -0.5, 0.0, -2.0])
TRAINED = torch.tensor([2.0, -3.0, -4.0, 0.25, 5.0, 0.0])
BY_HAND = {
    "magnitude": (scores.magnitude, [2, 3, 4, 0.25, 5, 0]),
    "large_final_same_sign": (scores.large_final_same_sign, [2, 3, 0, 0, 0, 0]),
    "large_final_diff_sign": (scores.large_final_diff_sign, [0, 0, 4, 0.25, 0, 0]),
    "magnitude_increase": (scores.magnitude_increase, [1, 2, 3, -0.25, 5, -2]),
}
OF_INITIAL = ["large_final_same_sign", "large_final_diff_sign", "magnitude_increase"]
each_of_initial = pytest.mark.parametrize("make", [getattr(scores, name) for name in OF_INITIAL])
FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
each_dtype = pytest.mark.parametrize("dtype", FLOATS, ids=str)


def row(values: Tensor) -> nn.Linear:
    """A layer of one row of weights."""
    layer = nn.Linear(values.numel(), 1, bias=False, dtype=values.dtype)
    with torch.no_grad():
        layer.weight.copy_(values)
    return layer


@each_dtype
@pytest.mark.parametrize("name", BY_HAND)
def test_scores_are_what_they_are_by_hand(name, dtype):
    score, expected = BY_HAND[name]
    score = score if name == "magnitude" else score({"w": INITIAL})
    computed = score("w", TRAINED.to(dtype))
    assert computed.dtype == dtype
    assert computed.tolist() == expected


@pytest.mark.parametrize("name", BY_HAND)
def test_scoring_changes_neither_the_weight_nor_the_initial_one(name):
    score, initial, trained = BY_HAND[name][0], INITIAL.clone(), TRAINED.clone()
    score = score if name == "magnitude" else score({"w": initial})
    score("w", trained).fill_(7)
    assert torch.equal(initial, INITIAL)
    assert torch.equal(trained, TRAINED)


@each_of_initial
def test_a_rewind_point_serves_as_the_initial_weights(make):
    point = pol.RewindPoint({"w": INITIAL})
    assert torch.equal(make(point)("w", TRAINED), make({"w": INITIAL})("w", TRAINED))


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("magnitude", [False, True, True, False, True, False]),
        ("large_final_same_sign", [True, True, True, False, False, False]),
        ("large_final_diff_sign", [True, False, True, True, False, False]),
        ("magnitude_increase", [False, True, True, False, True, False]),
    ],
)
def test_pruning_by_a_score_keeps_the_highest_and_breaks_ties_by_index(name, kept):
    layer = row(TRAINED)
    score = BY_HAND[name][0]
    score = score if name == "magnitude" else score({"weight": INITIAL[None]})
    pol.imp_prune(layer, 0.5, score=score)
    assert pol.masks(layer)["weight"].flatten().tolist() == kept


def test_any_function_of_name_and_weight_is_a_score():
    net = nn.Sequential(row(torch.tensor([3.0, 1.0])), row(torch.tensor([2.0])))

    def smallest_of_the_first(name: str, weight: Tensor) -> Tensor:
        return -weight.abs() if name == "0.weight" else weight.abs() - 10

    pol.imp_prune(net, density=2 / 3, score=smallest_of_the_first)
    assert [mask.tolist() for mask in pol.masks(net).values()] == [[[True, True]], [[False]]]


def test_a_score_sees_every_effective_weight_once_under_its_plain_name():
    net = nn.Sequential(row(torch.tensor([3.0, -1.0, 2.0])), row(torch.tensor([4.0])))
    pol.load_masks(pol.mask_weights(net), {"0.weight": torch.tensor([[0, 1, 1]])})
    with torch.no_grad():
        net[0].parametrizations.weight.original[0, 0] = 7.0
    seen = []

    def watching(name: str, weight: Tensor) -> Tensor:
        seen.append((name, weight.tolist(), weight.requires_grad, torch.is_grad_enabled()))
        return weight.abs()

    pol.imp_prune(net, 0.5, score=watching)
    assert seen == [
        ("0.weight", [[0, -1, 2]], False, False),
        ("1.weight", [[4]], False, False),
    ]


def test_a_score_may_have_another_floating_dtype_than_its_weight():
    layer = row(torch.tensor([1.0, 1.0, 1.0], dtype=torch.float16))
    fine = torch.tensor([[1.0, 1 + 1e-12, 1.0]], dtype=torch.float64)
    pol.imp_prune(layer, density=1 / 3, score=lambda name, weight: fine)
    assert pol.masks(layer)["weight"].tolist() == [[False, True, False]]


def test_the_generator_given_is_handed_to_the_score():
    generator, seen = torch.Generator().manual_seed(0), []

    def drawing(name: str, weight: Tensor, *, generator: torch.Generator) -> Tensor:
        seen.append(generator)
        return weight.abs()

    pol.imp_prune(row(TRAINED), 0.5, score=drawing, generator=generator)
    assert [each is generator for each in seen] == [True]


def test_a_score_that_does_not_draw_leaves_the_generator_alone():
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    pol.imp_prune(layer := row(TRAINED), 0.5, generator=generator)
    assert torch.equal(generator.get_state(), before)
    pol.imp_prune(other := row(TRAINED), 0.5)
    assert torch.equal(pol.masks(layer)["weight"], pol.masks(other)["weight"])


@pytest.mark.parametrize("prepare", [lambda layer: layer, pol.mask_weights])
def test_a_score_that_works_in_place_does_not_change_the_weights(prepare):
    layer = prepare(row(TRAINED))
    before = layer.weight.detach().clone()
    pol.imp_prune(layer, amount=0, score=lambda name, weight: weight.neg_())
    assert torch.equal(layer.weight, before)


@each_dtype
def test_random_masks_depend_on_the_seed_and_not_on_the_dtype(dtype):
    def mask_of(seed: int, dtype: torch.dtype) -> list:
        layer = nn.Linear(30, 40, bias=False).to(dtype)
        draw = torch.Generator().manual_seed(seed)
        pol.imp_prune(layer, 0.5, score=scores.random, generator=draw)
        return pol.masks(layer)["weight"].tolist()

    assert mask_of(3, dtype) == mask_of(3, torch.float32)
    assert mask_of(3, dtype) != mask_of(4, dtype)


def test_random_scores_are_uniform_and_leave_the_global_generator_alone():
    before = torch.get_rng_state()
    drawn = scores.random("w", torch.zeros(100, 100), generator=torch.Generator().manual_seed(1))
    assert torch.equal(torch.get_rng_state(), before)
    assert drawn.shape == (100, 100)
    shares = torch.histc(drawn, bins=10, min=0, max=1) / drawn.numel()
    # six standard deviations of a binomial share of 0.1
    assert (shares - 0.1).abs().max() < 6 * math.sqrt(0.1 * 0.9 / drawn.numel())


def test_random_scores_of_two_weights_are_two_draws():
    draw = torch.Generator().manual_seed(0)
    first, second = (scores.random(name, torch.zeros(8), generator=draw) for name in "ab")
    assert not torch.equal(first, second)


def test_random_scores_without_a_generator_follow_the_global_seed():
    torch.manual_seed(5)
    first = scores.random("w", torch.zeros(8))
    assert not torch.equal(first, scores.random("w", torch.zeros(8)))
    torch.manual_seed(5)
    assert torch.equal(first, scores.random("w", torch.zeros(8)))


@each_of_initial
@pytest.mark.parametrize(
    ("init", "error", "parts"),
    [
        ({"other": INITIAL}, ValueError, ["init", "'weight'"]),
        ({}, ValueError, ["init", "'weight'"]),
        ({"weight": INITIAL}, ValueError, ["init", "'weight'", "(6,)", "(1, 6)"]),
        (pol.RewindPoint({"weight": INITIAL}), ValueError, ["'weight'", "(6,)", "(1, 6)"]),
        ([INITIAL], TypeError, ["init", "list"]),
        (None, TypeError, ["init", "NoneType"]),
    ],
    ids=["other name", "empty", "shape", "shape in a point", "list", "none"],
)
def test_initial_weights_that_do_not_fit_are_refused_by_name_and_change_nothing(
    make, init, error, parts
):
    layer = row(TRAINED)
    with pytest.raises(error) as raised:
        pol.imp_prune(layer, 0.5, score=make(init))
    assert [part for part in parts if part not in str(raised.value)] == []
    assert list(layer.state_dict()) == ["weight"]
    assert torch.equal(layer.weight.flatten(), TRAINED)


@pytest.mark.gpu
def test_random_masks_do_not_depend_on_the_device():
    masks = []
    for device in ("cpu", "cuda"):
        layer = nn.Linear(30, 40, bias=False, device=device)
        pol.imp_prune(layer, 0.5, score=scores.random, generator=torch.Generator().manual_seed(0))
        masks.append(pol.masks(layer)["weight"].tolist())
    assert masks[0] == masks[1]
