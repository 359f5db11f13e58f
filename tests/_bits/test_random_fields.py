"""Choices among living entries: exact counts, every subset equally probable; and packed bools."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polarity._bits import bits as bits_module
from polarity._bits.bits import Bits
from polarity._bits.random_fields import chances, choose_living, coins

CPU = torch.device("cpu")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def bits_of(bools: np.ndarray) -> Bits:
    bits = Bits.zeros(len(bools), CPU)
    bits.put(slice(0, len(bools)), bools)
    return bits


def bools_of(bits: Bits) -> np.ndarray:
    return np.asarray(bits.get(slice(0, bits.size)))


@pytest.fixture(params=["packed", "tensor"])
def either_way(request, monkeypatch):
    """As in main memory, and as on an accelerator."""
    if request.param == "tensor":
        monkeypatch.setattr(bits_module, "array_of", lambda tensor: tensor)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.booleans(), max_size=300), st.data())
def test_slices_of_bits_are_those_of_an_array(bools, data):
    expected = np.array(bools, dtype=bool)
    bits = bits_of(expected)
    for _ in range(3):
        start, stop = sorted(data.draw(st.integers(0, len(bools))) for _ in range(2))
        assert np.array_equal(bits.get(slice(start, stop)), expected[start:stop])
        new = np.random.default_rng(start).random(stop - start) < 0.5
        expected[start:stop] = new
        bits.put(slice(start, stop), new)
        assert np.array_equal(bools_of(bits), expected)
    assert bits.count() == expected.sum()
    ranks = np.arange(expected.sum())
    assert np.array_equal(bits.find(ranks), np.flatnonzero(expected))
    bits.flip(ranks)
    expected[ranks] ^= True
    assert np.array_equal(bools_of(bits), expected)


def test_bits_are_counted_and_found_without_the_newest_numpy(monkeypatch):
    bools = np.random.default_rng(0).random(70_001) < 0.3
    expected = bits_of(bools)
    count, found = expected.count(), expected.find(np.arange(20_000))
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    assert expected.count() == count == bools.sum()
    assert np.array_equal(expected.find(np.arange(20_000)), found)
    assert np.array_equal(found, np.flatnonzero(bools)[:20_000])


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(0, 300), min_size=1, max_size=3), st.floats(0, 1), st.floats(0, 1))
def test_exactly_so_many_of_the_living_are_chosen(sizes, alive, share):
    draw = np.random.default_rng(0)
    living = [bits_of(draw.random(size) < alive) for size in sizes]
    k = round(share * sum(each.count() for each in living))
    chosen = choose_living(living, k, seeded())
    assert sum(each.count() for each in chosen) == k
    pairs = zip(chosen, living, strict=True)
    assert not any((some.data & ~everyone.data).any() for some, everyone in pairs)


@pytest.mark.parametrize("k", [1, 2, 5, 6])
def test_every_subset_is_equally_probable(either_way, k):
    places, draws = [0, 3, 4, 70, 71, 72, 90], 2500
    living = []
    for part in (slice(0, 64), slice(64, 128)):
        bools = np.zeros(64, dtype=bool)
        bools[[place - part.start for place in places if part.start <= place < part.stop]] = True
        living.append(bits_of(torch.from_numpy(bools)))
    counts = dict.fromkeys(itertools.combinations(places, k), 0)
    generator = seeded()
    for _ in range(draws):
        chosen = choose_living(living, k, generator)
        both = np.concatenate([bools_of(each) for each in chosen])
        counts[tuple(np.flatnonzero(both).tolist())] += 1
    expected = draws / len(counts)
    chi = sum((count - expected) ** 2 / expected for count in counts.values())
    assert abs(chi - (len(counts) - 1)) < 6 * math.sqrt(2 * (len(counts) - 1))


@pytest.mark.parametrize("share", [0.001, 0.3, 0.999])
def test_neighbours_and_blocks_are_chosen_independently(share):
    n = 500_000
    chosen = bools_of(
        choose_living([bits_of(np.ones(n, dtype=bool))], round(share * n), seeded())[0]
    )
    for distance in (1, 8, 64, 1 << 16):
        both = int((chosen[distance:] & chosen[:-distance]).sum())
        pairs, p = n - distance, share * share
        assert abs(both - pairs * p) < 6 * math.sqrt(pairs * p * (1 - p)) + 1


@pytest.mark.parametrize("p", [0.0, 1e-4, 1 / 256, 0.3, 0.5 + 1 / 512, 0.9999, 1.0])
def test_a_probability_is_kept_far_below_the_byte_it_is_drawn_from(p):
    n = 1_000_000
    assert abs(chances(n, p, seeded()).count() - n * p) <= 6 * math.sqrt(n * p * (1 - p))


@pytest.mark.parametrize("n", [0, 1, 9, 65, 1 << 20])
def test_coins_are_fair_and_end_where_they_should(n):
    tossed = coins(n, seeded())
    assert abs(tossed.count() - n / 2) <= 6 * math.sqrt(n / 4)
    assert tossed.count() == int(bools_of(tossed).sum())


@pytest.mark.parametrize(
    "draw",
    [
        lambda g: choose_living([bits_of(np.ones(3000, dtype=bool))], 1000, g)[0],
        lambda g: chances(3000, 0.3, g),
        lambda g: coins(3000, g),
    ],
    ids=["choose_living", "chances", "coins"],
)
def test_the_generator_alone_decides(draw):
    before = torch.get_rng_state()
    first, again, other = (bools_of(draw(seeded(seed))) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    generator = seeded(1)
    assert not np.array_equal(bools_of(draw(generator)), bools_of(draw(generator)))
