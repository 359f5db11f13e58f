"""Bits moved together and back, against boolean indexing of one bool per entry."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polarity._bits.bit_gather import count_bits, gather_bits, scatter_bits, share_bits

Bools = npt.NDArray[np.bool_]


def packed(bools: Bools) -> npt.NDArray[np.uint8]:
    return np.packbits(bools, bitorder="little")


def fields(size: int, density: float, seed: int = 0) -> tuple[Bools, Bools]:
    draw = np.random.default_rng(seed)
    return draw.random(size) < 0.5, draw.random(size) < density


def check(bits: Bools, where: Bools) -> None:
    gathered = gather_bits(packed(bits), packed(where))
    np.testing.assert_array_equal(gathered, packed(bits[where]))
    np.testing.assert_array_equal(scatter_bits(gathered, packed(where)), packed(bits & where))
    assert count_bits(packed(where)) == np.count_nonzero(where)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=400))
def test_it_is_what_boolean_indexing_gives(pairs: list[tuple[bool, bool]]) -> None:
    bits, where = np.array(pairs, dtype=np.bool_).reshape(-1, 2).T
    check(bits, where)


@pytest.mark.parametrize("numpy_2", [True, False])
@pytest.mark.parametrize("density", [0.0, 0.001, 0.09, 0.5, 0.99, 1.0])
def test_at_every_density_and_around_the_ends_of_words(
    density: float, numpy_2: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not numpy_2:
        monkeypatch.delattr(np, "bitwise_count", raising=False)
    for size in (0, 1, 7, 8, 9, 63, 64, 65, 511, 512, 513, 100_003):
        check(*fields(size, density, seed=size))


def test_runs_of_ones_that_fill_and_cross_words() -> None:
    bits, _ = fields(4096, 0.5)
    for begin in range(0, 130, 13):
        for length in (1, 63, 64, 65, 128, 640):
            where = np.zeros(4096, dtype=np.bool_)
            where[begin : begin + length] = True
            check(bits, where)
            where[2000 + begin : 2000 + begin + length] = True
            check(bits, where)


def test_a_field_longer_than_what_is_looked_up_at_a_time() -> None:
    check(*fields(8 * (1 << 16) * 2 + 11, 0.09))


def test_what_stands_behind_the_gathered_bits_is_not_used() -> None:
    bits, where = fields(1000, 0.3)
    gathered = gather_bits(packed(bits), packed(where))
    longer = np.concatenate([gathered, np.full(20, 255, dtype=np.uint8)])
    np.testing.assert_array_equal(scatter_bits(longer, packed(where)), packed(bits & where))


def test_every_byte_is_given_its_own_bits() -> None:
    bits, where = fields(800, 0.4)
    shares = share_bits(gather_bits(packed(bits), packed(where)), packed(where))
    for k, (own, chosen) in enumerate(zip(bits.reshape(-1, 8), where.reshape(-1, 8), strict=True)):
        count = int(chosen.sum())
        assert int(shares[k]) & (1 << count) - 1 == sum(
            1 << n for n, bit in enumerate(own[chosen]) if bit
        )
