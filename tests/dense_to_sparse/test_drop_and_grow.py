"""The rule that SET and RigL share, on tensors: which entries are dropped, and which grow."""

import pytest
import torch
from torch import Tensor

import polarity as pol
from polarity.dense_to_sparse import drop_and_grow

# A layer of twelve weights, six of them live.
WEIGHT = torch.tensor([[0.5, -0.1, 0.0, 0.3], [0.0, -0.2, 0.0, 0.7], [0.0, 0.0, -0.4, 0.0]])
MASK = torch.tensor([[1, 1, 0, 1], [0, 1, 0, 1], [0, 0, 1, 0]]).bool()
GROWTH = torch.tensor([[9.0, 0.1, 0.8, 9.0], [0.3, 0.7, 0.2, 9.0], [0.6, 0.5, 9.0, 0.4]])


def bools(*rows: list[int]) -> Tensor:
    return torch.tensor(rows).bool()


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (0, MASK),
        (1, bools([1, 0, 1, 1], [0, 1, 0, 1], [0, 0, 1, 0])),  # -0.1 goes, 0.8 comes
        # -0.1 and -0.2 go; of what is outside then, 0.8 and the second one's own 0.7 come.
        (2, bools([1, 0, 1, 1], [0, 1, 0, 1], [0, 0, 1, 0])),
        # -0.1, -0.2 and 0.3 go; 0.3's own 9, 0.8 and 0.7 come.
        (3, bools([1, 0, 1, 1], [0, 1, 0, 1], [0, 0, 1, 0])),
        (6, bools([1, 0, 1, 1], [0, 1, 0, 1], [0, 0, 1, 0])),
    ],
)
def test_the_smallest_go_and_the_highest_growth_comes(n: int, expected: Tensor) -> None:
    assert torch.equal(drop_and_grow(WEIGHT, MASK, GROWTH, n), expected)


def test_what_was_dropped_comes_back_only_by_its_growth() -> None:
    growth = torch.where(MASK, torch.zeros(()), GROWTH)
    expected = bools([1, 0, 1, 0], [0, 0, 0, 1], [1, 1, 1, 0])  # 0.8, 0.6 and 0.5 come
    assert torch.equal(drop_and_grow(WEIGHT, MASK, growth, 3), expected)


def test_of_equal_ones_the_lower_index_survives_and_grows() -> None:
    mask = torch.tensor([1, 1, 1, 0, 0, 0]).bool()
    ones = torch.ones(6)
    growth = torch.tensor([0.0, 0, 0, 1, 1, 1])
    new = drop_and_grow(ones, mask, growth, 2)
    assert torch.equal(new, torch.tensor([1, 0, 0, 1, 1, 0]).bool())


def test_random_ties_are_drawn_from_the_generator_alone() -> None:
    mask, growth = torch.arange(40) < 20, (torch.arange(40) >= 20).float()
    before = torch.get_rng_state()
    draws = [
        drop_and_grow(
            torch.ones(40),
            mask,
            growth,
            10,
            ties="random",
            generator=torch.Generator().manual_seed(seed),
        )
        for seed in (0, 0, 1)
    ]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert all(int(each[:20].sum()) == int(each[20:].sum()) == 10 for each in draws)
    kept, grown = draws[0][:20], draws[0][20:]
    assert not torch.equal(kept, grown), "the two choices share their random words"


@pytest.mark.parametrize("size", [1, 70, 100_000])
def test_the_count_is_exact_and_equals_a_slow_rule(size: int) -> None:
    draw = torch.Generator().manual_seed(size)
    weight = (torch.randn(size, generator=draw) * 4).round() / 4  # ties
    mask = torch.rand(size, generator=draw) < 0.5
    growth = (torch.randn(size, generator=draw) * 4).round().abs()
    live = int(mask.sum())
    for n in {0, live // 3, live}:
        order = [i for i in weight.abs().argsort(descending=True, stable=True) if mask[i]]
        kept = set(map(int, order[: live - n]))
        outside = [
            i for i in map(int, growth.argsort(descending=True, stable=True)) if i not in kept
        ]
        expected = torch.zeros(size, dtype=torch.bool)
        expected[[*kept, *outside[:n]]] = True
        new = drop_and_grow(weight, mask, growth, n)
        assert torch.equal(new, expected)
        assert int(new.sum()) == live


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"n": 7}, ["n=7", "6"]),
        ({"n": -1}, ["n=-1"]),
        ({"n": 1.0}, ["n=1.0", "int"]),
        ({"growth": GROWTH.view(4, 3)}, ["growth", "(4, 3)", "(3, 4)"]),
        ({"mask": MASK.view(-1)}, ["mask", "(12,)"]),
        ({"mask": MASK * 0.5}, ["mask", "zeros and ones"]),
        ({"growth": GROWTH * torch.nan}, ["NaN"]),
        ({"weight": WEIGHT / 0}, ["NaN"]),
        ({"ties": "first"}, ["ties='first'"]),
        ({"weight": None}, ["weight", "tensor"]),
    ],
)
def test_bad_arguments_are_named_and_draw_nothing(change: dict, parts: list[str]) -> None:
    generator = torch.Generator().manual_seed(3)
    before = generator.get_state()
    arguments = {"weight": WEIGHT, "mask": MASK, "growth": GROWTH, "n": 1, "ties": "random"}
    with pytest.raises((TypeError, ValueError)) as raised:
        drop_and_grow(**(arguments | change), generator=generator)
    assert not [part for part in parts if part not in str(raised.value)], raised.value
    assert torch.equal(generator.get_state(), before)


def test_it_is_a_public_name() -> None:
    assert pol.dense_to_sparse.drop_and_grow is drop_and_grow
