"""Delta: which magnitudes it reaches, how ties go, and the coins that it tosses."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polarity import Delta
from polarity._bits.random import seed_from, words_in
from tests.models import generator as seeded
from tests.signs.cases import each_dtype, fractions, masks_of, quick, random_signs, within_six_sigma


@quick
@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0]), min_size=1, max_size=40), fractions)
def test_delta_touches_only_the_smallest_magnitudes_and_ties_go_to_the_lower_index(
    numbers, fraction
):
    signs, magnitudes = random_signs(len(numbers)), torch.tensor(numbers)
    smallest = np.argsort(numbers, kind="stable")[: round(fraction * len(numbers))]
    changed = set()
    for seed in range(12):
        perturbed = Delta(fraction)(signs, magnitudes, seeded(seed))
        assert torch.equal(perturbed.abs(), torch.ones_like(signs))
        changed |= set((perturbed != signs).nonzero().flatten().tolist())
    assert changed <= set(smallest.tolist())


@quick
@given(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=40), fractions)
def test_delta_with_drawn_ties_takes_the_smallest_by_the_words_of_a_second_seed(numbers, fraction):
    n, source = len(numbers), seeded(3)
    coin_seed, tie_seed = seed_from(source), seed_from(source)
    keys = words_in(tie_seed, "w", 0, 2 * n)[::2] >> 2
    order = sorted(range(n), key=lambda i: (numbers[i], -int(keys[i]), i))
    smallest = order[: round(fraction * n)]
    coins = words_in(coin_seed, "w", 0, 2 * n)[::2] >= 2**31
    signs = random_signs(n)
    expected = signs.clone()
    for place in smallest:
        expected[place] = 1 if coins[place] else -1
    masks = {"w": torch.tensor([True, False] * n)}
    drawn = seeded(3)
    delta = Delta(fraction, ties="random")
    assert torch.equal(delta(signs, torch.tensor(numbers), drawn, masks=masks), expected)
    assert torch.equal(drawn.get_state(), source.get_state())


def test_delta_of_equal_magnitudes_reaches_first_survivors_by_index_and_any_by_draw():
    n = 20_000
    signs, magnitudes = torch.ones(n, dtype=torch.int8), torch.ones(n)
    by_index = Delta(0.5)(signs, magnitudes, seeded()) < 0
    assert not by_index[n // 2 :].any()
    drawn = Delta(0.5, ties="random")(signs, magnitudes, seeded()) < 0
    # Half of them are drawn and half of those flip, however the coins and the keys are drawn.
    for half in (drawn[: n // 2], drawn[n // 2 :]):
        assert within_six_sigma(int(half.sum()), n // 2, 0.25)


def test_delta_with_drawn_ties_uses_the_names_and_positions_of_the_weights():
    masks = masks_of(400, 300)
    sizes = [int(mask.sum()) for mask in masks.values()]
    signs, magnitudes = torch.ones(sum(sizes), dtype=torch.int8), torch.ones(sum(sizes))
    delta = Delta(0.3, ties="random")
    both = delta(signs, magnitudes, seeded(), masks=masks)
    renamed = {f"other.{name}": mask for name, mask in masks.items()}
    assert not torch.equal(delta(signs, magnitudes, seeded(), masks=renamed), both)


def test_delta_that_is_refused_leaves_the_generator_as_it_was():
    source = seeded()
    before = source.get_state()
    masks = {"w": torch.ones(2).bool()}
    for given_masks, magnitudes in ((masks, torch.ones(3)), (None, torch.ones(1))):
        with pytest.raises(ValueError, match="expected"):
            Delta(1, ties="random")(random_signs(3), magnitudes, source, masks=given_masks)
        assert torch.equal(source.get_state(), before)


@pytest.mark.parametrize("bad", ["first", None, 2], ids=repr)
def test_delta_refuses_another_word_for_ties_by_name_and_value(bad):
    with pytest.raises(ValueError, match=rf"^ties={bad!r}.*, expected 'index' or 'random'"):
        Delta(0.5, ties=bad)


@each_dtype
@pytest.mark.parametrize(("fraction", "count"), [(0, 0), (0.125, 1), (0.5, 4), (0.7, 6), (1, 8)])
def test_delta_reaches_each_of_its_fraction_in_every_dtype(dtype, fraction, count):
    magnitudes = torch.tensor([7.0, 0.0, 6.0, 1.0, 5.0, 2.0, 4.0, 3.0], dtype=dtype)
    signs, changed = random_signs(8), torch.zeros(8, dtype=torch.bool)
    for seed in range(40):
        changed |= Delta(fraction)(signs, magnitudes, seeded(seed)) != signs
    assert torch.equal(changed, magnitudes < count)


@pytest.mark.parametrize("before", [1, -1])
def test_delta_tosses_a_fair_coin_whatever_the_sign_was(before):
    n = 20_000
    signs = torch.full((n,), before, dtype=torch.int8)
    perturbed = Delta(0.5)(signs, torch.arange(n).float(), seeded())
    kept = int((perturbed[: n // 2] == before).sum())
    assert within_six_sigma(kept, n // 2, 0.5)
    assert (perturbed[n // 2 :] == before).all()


def test_the_coins_of_delta_are_independent_of_each_other():
    generator, magnitudes = seeded(), torch.tensor([1.0, 2.0])
    signs = torch.ones(2, dtype=torch.int8)
    tosses = [Delta(1)(signs, magnitudes, generator).prod().item() for _ in range(2000)]
    assert within_six_sigma(tosses.count(1), 2000, 0.5)


@pytest.mark.parametrize("fraction", [0, 0.2, 1])
def test_delta_of_nothing_is_an_error_with_both_numbers(fraction):
    with pytest.raises(ValueError, match=rf"delta={fraction} .*\b0 survivors"):
        Delta(fraction)(torch.ones(0, dtype=torch.int8), torch.ones(0))
