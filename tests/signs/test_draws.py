"""Random choices: exact counts, every subset equally probable, every coin fair."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from polarity._bits import random_bits
from polarity._bits.random_bits import bernoulli, choose_exactly, distinct, fair_coins


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def fits(counts: Tensor, expected: float) -> bool:
    """Whether chi-square of equally probable cells is within six deviations of its mean."""
    cells = counts.numel()
    chi = float(((counts - expected) ** 2 / expected).sum())
    return abs(chi - (cells - 1)) < 6 * math.sqrt(2 * (cells - 1))


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks so small that every draw crosses some, and no shortcut for small numbers."""
    monkeypatch.setattr(random_bits, "_BLOCK", 3)
    monkeypatch.setattr(random_bits, "_FEW", 0)


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 700), st.floats(0, 1), st.integers(0, 5), st.sampled_from([8, 50, 1 << 18]))
def test_exactly_so_many_are_chosen(n, share, seed, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(random_bits, "_BLOCK", block)
        patch.setattr(random_bits, "_FEW", 0)
        k = round(share * n)
        chosen = choose_exactly(n, k, seeded(seed))
    assert chosen.shape == (n,)
    assert int(chosen.sum()) == k


@pytest.mark.parametrize("k", [1, 2, 999_999, 1_000_000, 1_999_999])
def test_exactly_so_many_of_many_are_chosen(k):
    assert int(choose_exactly(2_000_000, k, seeded()).sum()) == k


@pytest.mark.parametrize("k", [1, 3, 5, 6])
def test_every_subset_is_equally_probable(small_blocks, k):
    generator, n, draws = seeded(), 7, 2500
    order = {subset: place for place, subset in enumerate(itertools.combinations(range(n), k))}
    counts = torch.zeros(len(order), dtype=torch.float64)
    for _ in range(draws):
        counts[order[tuple(choose_exactly(n, k, generator).nonzero().flatten().tolist())]] += 1
    assert fits(counts, draws / len(order))


@pytest.mark.parametrize("k", [40, 500, 960])
def test_every_place_of_a_long_field_is_chosen_equally_often(monkeypatch, k):
    monkeypatch.setattr(random_bits, "_BLOCK", 96)
    monkeypatch.setattr(random_bits, "_FEW", 0)
    generator, n, draws = seeded(), 1000, 800
    times = sum(choose_exactly(n, k, generator).double() for _ in range(draws))
    share = k / n
    # The places of one draw exclude each other a little; scaled so, it is chi-square as usual.
    scaled = (times - draws * share) / math.sqrt(draws * share * (1 - share)) * math.sqrt(1 - 1 / n)
    assert abs(float(scaled.square().sum()) - (n - 1)) < 6 * math.sqrt(2 * (n - 1))


def test_neighbours_are_chosen_independently_within_a_block_and_across():
    n, k, block = 3 * random_bits._BLOCK, random_bits._BLOCK, random_bits._BLOCK
    chosen = choose_exactly(n, k, seeded())
    for distance in (1, 2, 8, block, 2 * block):
        pairs = n - distance
        both = int((chosen[distance:] & chosen[:-distance]).sum())
        assert abs(both - pairs / 9) < 6 * math.sqrt(pairs / 9 * 8 / 9)


@pytest.mark.parametrize("p", [0.0, 1e-4, 0.001, 1 / 256, 0.3, 0.5, 0.5 + 1 / 512, 0.9999, 1.0])
def test_a_probability_is_kept_far_below_the_byte_it_is_drawn_from(p):
    n = 1_000_000
    drawn = bernoulli(n, p, seeded())
    assert abs(int(drawn.sum()) - n * p) <= 6 * math.sqrt(n * p * (1 - p))


@pytest.mark.parametrize(("n", "k"), [(12, 3), (40, 9), (40, 39)])
def test_distinct_numbers_are_distinct_and_all_equally_frequent(small_blocks, n, k):
    generator, draws = seeded(), 2000
    times = torch.zeros(n, dtype=torch.float64)
    for _ in range(draws):
        numbers = distinct(n, k, generator)
        assert numbers.tolist() == sorted(set(numbers.tolist()))
        assert len(numbers) == k
        times[numbers] += 1
    assert float((times - draws * k / n).abs().max()) < 6 * math.sqrt(draws * k / n * (1 - k / n))


def test_coins_are_fair_in_every_bit_and_follow_each_other_freely():
    n = 1 << 20
    coins = fair_coins(n, seeded())
    assert fits(coins.view(-1, 64).sum(0, dtype=torch.float64), n / 128)
    for distance in (1, 7, 8, 64, random_bits._BLOCK):
        alike = int((coins[distance:] == coins[:-distance]).sum())
        assert abs(alike - (n - distance) / 2) < 6 * math.sqrt(n / 4)


@pytest.mark.parametrize("n", [0, 1, 7, 9, 63, 65])
def test_any_number_of_coins_is_tossed(n):
    assert fair_coins(n, seeded()).shape == (n,)


@pytest.mark.parametrize(
    "draw",
    [
        lambda g: choose_exactly(3000, 1000, g),
        lambda g: bernoulli(3000, 0.3, g),
        lambda g: fair_coins(3000, g),
        lambda g: distinct(10**6, 300, g),
    ],
    ids=["choose_exactly", "bernoulli", "fair_coins", "distinct"],
)
def test_the_generator_alone_decides(draw):
    before = torch.get_rng_state()
    first, again, other = draw(seeded(1)), draw(seeded(1)), draw(seeded(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    generator = seeded(1)
    assert not torch.equal(draw(generator), draw(generator))
