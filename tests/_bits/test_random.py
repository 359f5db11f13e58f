"""Words addressed by seed, name and position: a twin in Python, uniformity, and no other input."""

import hashlib
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import polarity
from polarity._bits import arrays
from polarity._bits.random import VERSION, coins, seed_from, words_at, words_below, words_in

seeds = st.integers(0, 2**62 - 1)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def fits(counts: np.ndarray, expected: float) -> bool:
    """Whether chi-square of equally probable cells is within six deviations of its mean."""
    chi = float(((counts - expected) ** 2 / expected).sum())
    return abs(chi - (counts.size - 1)) < 6 * math.sqrt(2 * (counts.size - 1))


def twin(seed: int, name: str, position: int) -> int:
    """Philox 4x64-10 in Python's integers, for one word."""
    ones = 2**64 - 1
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=16).digest()
    keys = [int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")]
    c = [position // 8 + 1, 0, 0, 0]  # numpy counts before it makes a block
    for _ in range(10):
        a, b = 0xD2E7470EE14C6C93 * c[0], 0xCA5A826395121157 * c[2]
        c = [b >> 64 ^ c[1] ^ keys[0], b & ones, a >> 64 ^ c[3] ^ keys[1], a & ones]
        keys = [(keys[0] + 0x9E3779B97F4A7C15) & ones, (keys[1] + 0xBB67AE8584CAA73B) & ones]
    return c[position % 8 // 2] >> 32 * (position % 2) & 0xFFFFFFFF


@settings(deadline=None, max_examples=50)
@given(seeds, st.text(max_size=20), st.integers(0, 2**40))
def test_a_word_is_what_the_documented_formula_gives(seed, name, position):
    assert words_in(seed, name, position, position + 1).tolist() == [twin(seed, name, position)]


def test_the_words_of_this_version_written_out():
    """If this changes, old seeds give new signs: raise VERSION and say so in the changelog."""
    assert polarity.__draws_version__ == VERSION == 2
    first = [0xC76E06AC, 0x7B9DC5A1, 0x33E991B1, 0x0661A4F6, 0x8F2FB04E, 0x7C47C13D, 0x2540FBC8]
    assert words_in(0, "layer.weight", 0, 7).tolist() == first


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 5000), st.integers(0, 300), seeds)
def test_any_slice_of_positions_can_be_asked_for(start, length, seed):
    everything = words_in(seed, "w", 0, start + length)
    assert everything.dtype == np.uint32
    assert np.array_equal(words_in(seed, "w", start, start + length), everything[start:])


bools = st.lists(st.booleans(), max_size=100)


@settings(deadline=None, max_examples=100)
@given(st.lists(bools, max_size=4), seeds, st.sampled_from([1, 7, 64]))
def test_survivors_get_the_words_of_their_positions_whatever_the_chunks(masks, seed, chunk):
    named = {f"w{k}": np.array(mask, dtype=bool) for k, mask in enumerate(masks)}
    expected = [
        word
        for name, mask in named.items()
        for word in words_in(seed, name, 0, mask.size)[mask].tolist()
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "_HOST_CHUNK", chunk)
        words = words_at(seed, {name: torch.from_numpy(mask) for name, mask in named.items()})
    assert words.tolist() == expected


def test_a_mask_of_any_shape_is_read_row_major():
    mask = torch.tensor([[True, False, True], [False, True, True]])
    words = words_in(3, "w", 0, 6)
    assert words_at(3, {"w": mask}).tolist() == words[[0, 2, 4, 5]].tolist()
    assert words_at(3, {"w": mask.t().contiguous().t()}).tolist() == words[[0, 2, 4, 5]].tolist()


def test_seeds_and_names_have_streams_of_their_own():
    streams = [words_in(seed, name, 0, 1000) for seed in (0, 1) for name in ("", "a", "0.weight")]
    for k, one in enumerate(streams):
        for other in streams[k + 1 :]:
            equal_bits = np.unpackbits((~(one ^ other)).view(np.uint8))
            assert abs(equal_bits.mean() - 0.5) < 6 * math.sqrt(0.25 / equal_bits.size)


def test_words_are_uniform_in_every_byte_and_neighbours_are_independent():
    words = words_in(1, "w", 0, 1 << 20)
    for byte in words.view(np.uint8).reshape(-1, 4).T:
        assert fits(np.bincount(byte, minlength=256), words.size / 256)
    for distance in (1, 2, 7, 8, 64, 1 << 16):
        pairs = (words[distance:] >> 28) * 16 + (words[:-distance] >> 28)
        assert fits(np.bincount(pairs, minlength=256), pairs.size / 256)


def test_coins_are_fair_and_follow_each_other_freely():
    n = 1 << 20
    tossed = coins(words_in(2, "w", 0, n))
    assert fits(tossed.reshape(-1, 64).sum(0), n / 128)
    for distance in (1, 7, 8, 64, 1 << 16):
        alike = int((tossed[distance:] == tossed[:-distance]).sum())
        assert abs(alike - (n - distance) / 2) < 6 * math.sqrt(n / 4)


@pytest.mark.parametrize("p", [0.0, 1e-4, 0.001, 1 / 256, 0.3, 0.5, 0.9999, 1.0])
def test_a_probability_is_kept(p):
    n = 1_000_000
    true = int(words_below(words_in(3, "w", 0, n), p).sum())
    assert abs(true - n * p) <= 6 * math.sqrt(n * p * (1 - p))


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        (0, [False, False, False]),
        (2**-32, [True, False, False]),
        (0.5, [True, False, False]),
        (1 - 2**-32, [True, True, False]),
        (1, [True, True, True]),
    ],
)
def test_a_probability_is_exact_to_the_last_word(p, expected):
    words = np.array([0, 2**31, 2**32 - 1], dtype=np.uint32)
    assert words_below(words, p).tolist() == expected


def test_a_seed_comes_from_the_generator_alone_and_each_is_another():
    before = torch.get_rng_state()
    generator = seeded(1)
    drawn = [seed_from(each) for each in (generator, generator, generator, seeded(1), seeded(2))]
    assert torch.equal(torch.get_rng_state(), before)
    assert drawn[3] == drawn[0]
    assert len(set(drawn)) == 4
    assert all(0 <= seed < 2**62 for seed in drawn)


def test_without_a_generator_a_seed_comes_from_the_global_one():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        first = seed_from(None)
        assert seed_from(None) != first
        torch.manual_seed(5)
        assert seed_from(None) == first


@pytest.mark.gpu
def test_words_do_not_depend_on_where_the_mask_is():
    mask = torch.rand(100_000, generator=seeded()) < 0.3
    assert np.array_equal(words_at(1, {"w": mask.cuda()}), words_at(1, {"w": mask}))
    assert seed_from(torch.Generator("cuda").manual_seed(1)) < 2**62
