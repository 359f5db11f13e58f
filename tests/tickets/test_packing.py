"""Signs as bits: what comes back is what went in, and the bytes are those that are documented."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from polarity.tickets.packing import joined_planes, pack_signs, planes_of, unpack_signs

STATES = {"pruned": (0, False), "+": (1, True), "-": (-1, True), "unsigned": (0, True)}


def field(states: list[str], shape: tuple[int, ...] | None = None) -> tuple[Tensor, Tensor]:
    pairs = [STATES[state] for state in states]
    shape = (len(pairs),) if shape is None else shape
    signs = torch.tensor([sign for sign, _ in pairs], dtype=torch.int8)
    return signs.reshape(shape), torch.tensor([lives for _, lives in pairs]).bool().reshape(shape)


def plane(bits: list[bool]) -> list[int]:
    """Write bits as the digits of one integer, the first the least, and cut it into bytes."""
    number = sum(1 << place for place, bit in enumerate(bits) if bit)
    return list(number.to_bytes(math.ceil(len(bits) / 8), "little"))


def packed_by_hand(states: list[str]) -> list[int]:
    signed = [state for state in states if state in "+-"]
    others = [state for state in states if state not in "+-"]
    third = plane([state == "unsigned" for state in others]) if "unsigned" in others else []
    return plane([s in "+-" for s in states]) + plane([s == "-" for s in signed]) + third


shapes = st.lists(st.integers(0, 7), max_size=4).map(tuple)


@st.composite
def fields(draw: st.DrawFn) -> tuple[list[str], tuple[int, ...]]:
    shape = draw(shapes)
    kinds = draw(st.lists(st.sampled_from(list(STATES)), min_size=1, unique=True))
    size = math.prod(shape)
    return draw(st.lists(st.sampled_from(kinds), min_size=size, max_size=size)), shape


@settings(deadline=None, max_examples=300)
@given(fields())
def test_every_field_comes_back_from_the_bytes_that_the_layout_says(
    made: tuple[list[str], tuple[int, ...]],
) -> None:
    states, shape = made
    signs, mask = field(states, shape)
    packed = pack_signs(signs, mask)
    assert packed.tolist() == packed_by_hand(states)
    again, lives = unpack_signs(packed, shape)
    assert again.dtype == torch.int8
    assert lives.dtype == torch.bool
    assert torch.equal(again, signs)
    assert torch.equal(lives, mask)


@settings(deadline=None, max_examples=200)
@given(fields(), st.lists(st.integers(0, 400), max_size=4))
def test_the_planes_of_pieces_are_joined_to_those_of_the_whole(
    made: tuple[list[str], tuple[int, ...]], cuts: list[int]
) -> None:
    states, _ = made
    signs, mask = field(states, (len(states),))
    ends = [0, *sorted(min(cut, len(states)) for cut in cuts), len(states)]
    pieces = [
        planes_of(signs[start:stop], mask[start:stop]) for start, stop in itertools.pairwise(ends)
    ]
    assert torch.equal(joined_planes(pieces), pack_signs(signs, mask))


def test_a_few_bytes_written_out() -> None:
    signs, mask = field(["+", "-", "pruned", "unsigned", "-", "+", "pruned", "+", "-"])
    # has a sign 1 1 0 0 1 1 0 1 | 1    negative 0 1 1 0 0 1    survives 0 1 0
    assert pack_signs(signs, mask).tolist() == [0b10110011, 0b1, 0b100110, 0b010]


@pytest.mark.parametrize("density", [0.0, 0.001, 0.09, 0.5, 0.99, 1.0])
def test_a_large_weight_comes_back_at_every_density(density: float) -> None:
    draw = torch.Generator().manual_seed(0)
    states = torch.multinomial(
        torch.tensor([1 - density, density / 2, density / 3, density / 6]),
        100_003,
        replacement=True,
        generator=draw,
    )
    signs, mask = field([list(STATES)[state] for state in states.tolist()])
    packed = pack_signs(signs, mask)
    assert packed.tolist() == packed_by_hand([list(STATES)[state] for state in states.tolist()])
    again, lives = unpack_signs(packed, (100_003,))
    assert torch.equal(again, signs)
    assert torch.equal(lives, mask)


@pytest.mark.parametrize("density", [0.0, 0.09, 0.5, 1.0])
def test_one_bit_for_an_entry_and_one_for_a_survivor(density: float) -> None:
    draw = torch.Generator().manual_seed(0)
    mask = torch.rand(80, 1000, generator=draw) < density
    signs = torch.where(torch.rand(80, 1000, generator=draw) < 0.5, -1, 1) * mask
    bits = 8 * pack_signs(signs.to(torch.int8), mask).numel()
    assert 80_000 + int(mask.sum()) <= bits < 80_000 + int(mask.sum()) + 8


@pytest.mark.parametrize("unsigned", [1, 40_000, 80_000])
def test_never_more_than_two_bits_however_many_survivors_have_no_sign(unsigned: int) -> None:
    states = ["unsigned"] * unsigned + ["+"] * (80_000 - unsigned)
    assert 8 * pack_signs(*field(states)).numel() <= 2 * 80_000 + 16


def test_a_layout_that_is_not_contiguous_is_packed_in_row_major_order() -> None:
    signs, mask = field(["+", "-", "pruned", "unsigned", "-", "+"], (2, 3))
    turned = pack_signs(signs.t().contiguous().t(), mask.t().contiguous().t())
    assert torch.equal(turned, pack_signs(signs, mask))


def bytes_of(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.uint8)


SIGNS, MASK = field(["+", "-", "pruned"])
UNFIT = {
    "a sign of 2": (SIGNS * 2, MASK, ValueError, "values from -2 to 2"),
    "a sign of -128": (SIGNS - 127, MASK, ValueError, "signs holds values from"),
    "a pruned entry with a sign": (
        SIGNS,
        ~MASK,
        ValueError,
        "holds 2 signs outside the mask",
    ),
    "another shape": (SIGNS, MASK[:2], ValueError, r"\(2,\).*\(3,\)"),
    "floating signs": (SIGNS.float(), MASK, TypeError, "torch.float32"),
    "an integer mask": (SIGNS, MASK.int(), TypeError, "torch.int32"),
}


@pytest.mark.parametrize(("signs", "mask", "error", "words"), UNFIT.values(), ids=UNFIT.keys())
def test_what_is_not_a_field_of_signs_is_refused(
    signs: Tensor, mask: Tensor, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        pack_signs(signs, mask)


DAMAGED = {
    "too short for its shape": (bytes_of(0b11), (9,), "1 bytes"),
    "far too long": (bytes_of(*[0] * 9), (9,), "9 bytes"),
    "a huge shape": (bytes_of(0b11, 0), (10**9, 10**9), "2 bytes"),
    "a plane of signs missing": (bytes_of(0b11), (8,), "1 bytes, expected 2"),
    "a byte too many": (bytes_of(0b11, 0b01, 0, 0), (8,), "4 bytes"),
    "a bit behind the entries": (bytes_of(0b1000, 0), (3,), "after the last of 3"),
    "a bit behind the signs": (bytes_of(0b111, 0b1000), (3,), "after the last of 3"),
    "a bit behind the rest": (bytes_of(0b011, 0b01, 0b10), (3,), "after the last of 1"),
}


@pytest.mark.parametrize(("packed", "shape", "words"), DAMAGED.values(), ids=DAMAGED.keys())
def test_bytes_that_no_field_has_are_refused(
    packed: Tensor, shape: tuple[int, ...], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        unpack_signs(packed, shape)


def test_bytes_of_another_dtype_are_refused() -> None:
    with pytest.raises(TypeError, match=r"torch\.int8"):
        unpack_signs(torch.zeros(1, dtype=torch.int8), (8,))


@pytest.mark.gpu
def test_signs_on_the_gpu_give_the_same_bytes() -> None:
    signs, mask = field(["+", "-", "pruned", "unsigned"] * 5)
    assert torch.equal(pack_signs(signs.cuda(), mask.cuda()), pack_signs(signs, mask))
