"""Epsilon, Phi and what all perturbations have in common: exact counts, draws, wrong settings."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from polarity import Delta, Epsilon, Phi
from polarity._bits.random import seed_from, words_in
from tests.models import generator as seeded
from tests.signs.cases import each_dtype, fractions, masks_of, quick, random_signs, within_six_sigma


@quick
@given(st.integers(0, 60), fractions, st.integers(0, 10))
def test_epsilon_flips_exactly_its_fraction(n, fraction, seed):
    signs = random_signs(n)
    perturbed = Epsilon(fraction)(signs, torch.ones(n), seeded(seed))
    assert int((perturbed != signs).sum()) == round(fraction * n)
    assert perturbed.dtype == torch.int8
    assert torch.equal(perturbed.abs(), torch.ones_like(signs))
    assert torch.equal(signs, random_signs(n))


def test_epsilon_flips_every_place_equally_often_whatever_the_magnitude():
    magnitudes = torch.tensor([0.0, 1e-9, 1.0, 2.0, 1e9])
    signs, generator, draws = random_signs(5), seeded(), 3000
    flips = sum((Epsilon(0.4)(signs, magnitudes, generator) != signs).int() for _ in range(draws))
    assert [place for place in range(5) if not within_six_sigma(flips[place], draws, 0.4)] == []


@pytest.mark.parametrize("k", [1, 3, 5, 6])
def test_epsilon_flips_every_subset_equally_often(k):
    """Chi-square of equally probable subsets, within six deviations of its mean."""
    n, draws, generator = 7, 2500, seeded()
    counts = dict.fromkeys(itertools.combinations(range(n), k), 0)
    signs = torch.ones(n, dtype=torch.int8)
    for _ in range(draws):
        flipped = Epsilon(k / n)(signs, torch.ones(n), generator) < 0
        counts[tuple(flipped.nonzero().flatten().tolist())] += 1
    expected = draws / len(counts)
    chi = sum((count - expected) ** 2 / expected for count in counts.values())
    assert abs(chi - (len(counts) - 1)) < 6 * math.sqrt(2 * (len(counts) - 1))


@pytest.mark.parametrize("k", [40, 500, 960])
def test_epsilon_flips_every_place_of_a_long_field_equally_often(k):
    n, draws, generator = 1000, 800, seeded()
    signs, share = torch.ones(n, dtype=torch.int8), k / n
    flips = [Epsilon(share)(signs, torch.ones(n), generator) < 0 for _ in range(draws)]
    times = torch.stack(flips).double().sum(0)
    # The places of one draw exclude each other a little; scaled so, it is chi-square as usual.
    scaled = (times - draws * share) / math.sqrt(draws * share * (1 - share)) * math.sqrt(1 - 1 / n)
    assert abs(float(scaled.square().sum()) - (n - 1)) < 6 * math.sqrt(2 * (n - 1))


@pytest.mark.parametrize("share", [0.001, 0.3, 0.999])
def test_epsilon_flips_neighbours_independently(share):
    n = 500_000
    flipped = Epsilon(share)(torch.ones(n, dtype=torch.int8), torch.ones(n), seeded()) < 0
    assert int(flipped.sum()) == round(share * n)
    for distance in (1, 2, 8, 64, 1 << 16):
        both = int((flipped[distance:] & flipped[:-distance]).sum())
        pairs, p = n - distance, share * share
        assert abs(both - pairs * p) < 6 * math.sqrt(pairs * p * (1 - p)) + 1


def test_epsilon_without_masks_is_that_of_one_nameless_weight():
    signs = random_signs(300)
    alone = Epsilon(0.3)(signs, torch.ones(300), seeded())
    whole = {"": torch.ones(300).bool()}
    assert torch.equal(Epsilon(0.3)(signs, torch.ones(300), seeded(), masks=whole), alone)


def test_the_coin_of_an_entry_depends_on_its_position_and_not_on_who_else_survives():
    many = masks_of(400, 300, alive=0.8)
    few = {
        name: mask & (torch.rand(mask.shape, generator=seeded()) < 0.5)
        for name, mask in many.items()
    }

    def tossed(masks: dict[str, Tensor]) -> dict[str, Tensor]:
        n = sum(int(mask.sum()) for mask in masks.values())
        signs = Delta(1)(torch.ones(n, dtype=torch.int8), torch.ones(n), seeded(), masks=masks)
        placed, start = {}, 0
        for name, mask in masks.items():
            count = int(mask.sum())
            placed[name] = torch.zeros(mask.shape, dtype=torch.int8)
            placed[name][mask] = signs[start : start + count]
            start += count
        return placed

    of_many, of_few = tossed(many), tossed(few)
    for name, mask in few.items():
        assert mask.any()
        assert torch.equal(of_few[name][mask], of_many[name][mask])


def test_a_choice_is_that_of_the_highest_keys_at_the_survivors_positions():
    masks, generator = masks_of(500, 0, 200), seeded(9)
    seed = seed_from(seeded(9))
    keys = np.concatenate(
        [words_in(seed, name, 0, mask.numel())[mask.numpy()] for name, mask in masks.items()]
    )
    signs = torch.ones(keys.size, dtype=torch.int8)
    flipped = Epsilon(0.3)(signs, torch.ones(keys.size), generator, masks=masks) < 0
    highest = np.argsort(-(keys >> 2).astype(np.int64), kind="stable")[: round(0.3 * keys.size)]
    assert set(flipped.nonzero().flatten().tolist()) == set(highest.tolist())


@pytest.mark.parametrize("perturbation", [Epsilon(0.4), Delta(0.4)], ids=repr)
def test_masks_that_are_not_those_of_the_signs_are_refused_with_both_numbers(perturbation):
    masks = {"w": torch.tensor([True, True, False])}
    with pytest.raises(ValueError, match=r"masks have 2 survivors, expected .*signs, 3"):
        perturbation(random_signs(3), torch.ones(3), seeded(), masks=masks)


def test_epsilon_flips_both_signs_alike():
    signs = torch.tensor([1, -1], dtype=torch.int8).repeat(10_000)
    flipped = Epsilon(0.3)(signs, torch.ones(20_000), seeded()) != signs
    assert within_six_sigma(int(flipped[signs > 0].sum()), 10_000, 0.3)


def test_epsilon_of_nothing_is_nothing():
    assert Epsilon(0.5)(torch.ones(0, dtype=torch.int8), torch.ones(0)).numel() == 0


@pytest.mark.parametrize(
    "perturbation", [Epsilon(0.4), Delta(0.4), Delta(0.4, ties="random")], ids=repr
)
def test_the_same_seed_gives_the_same_signs_and_another_seed_others(perturbation):
    signs, magnitudes = random_signs(200), torch.rand(200, generator=seeded(2))
    first, again, other = (perturbation(signs, magnitudes, seeded(s)) for s in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("perturbation", [Epsilon(0.4), Delta(0.4)], ids=repr)
def test_the_global_generator_is_used_only_without_one(perturbation):
    signs, magnitudes = random_signs(50), torch.ones(50)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        before = torch.get_rng_state()
        perturbation(signs, magnitudes, seeded())
        assert torch.equal(torch.get_rng_state(), before)
        first = perturbation(signs, magnitudes)
        torch.manual_seed(0)
        assert torch.equal(perturbation(signs, magnitudes), first)


@each_dtype
def test_the_draws_do_not_depend_on_the_dtype_of_the_magnitudes(dtype):
    signs = random_signs(64)
    magnitudes = torch.arange(64).flip(0).div(8)
    for perturbation in (Epsilon(0.3), Delta(0.7)):
        expected = perturbation(signs, magnitudes.double(), seeded())
        assert torch.equal(perturbation(signs, magnitudes.to(dtype), seeded()), expected)


@each_dtype
@pytest.mark.parametrize("center", [0.0, -0.0, 0.1, -0.1, 5e-5, -1e-3, 0.7, 3])
def test_a_reference_equal_to_phi_is_positive(dtype, center):
    reference = torch.tensor([center], dtype=dtype)
    assert Phi(center).polarity(reference).tolist() == [1]


@each_dtype
def test_phi_cuts_on_one_side_of_zero_only(dtype):
    reference = torch.tensor([-9.0, -0.5, -0.25, -0.0, 0.0, 0.25, 0.5, 9.0], dtype=dtype)
    assert Phi(0).polarity(reference).tolist() == [-1, -1, -1, 1, 1, 1, 1, 1]
    assert Phi(0.5).polarity(reference).tolist() == [-1, -1, -1, -1, -1, -1, 1, 1]
    assert Phi(-0.5).polarity(reference).tolist() == [-1, 1, 1, 1, 1, 1, 1, 1]


@quick
@given(st.lists(st.floats(-2, 2, width=16), max_size=30), st.floats(-1, 1, width=16))
def test_phi_relabels_exactly_what_lies_between_zero_and_the_centre(numbers, center):
    reference = torch.tensor(numbers, dtype=torch.float64)
    plain, shifted = Phi(0).polarity(reference), Phi(center).polarity(reference)
    low, high = sorted((0.0, center))
    assert (plain != shifted).tolist() == [low <= number < high for number in numbers]
    assert set(shifted.tolist()) <= {-1, 1}


@pytest.mark.parametrize("bad", [-0.1, 1.0000001, 30, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("kind", "name"), [(Epsilon, "epsilon"), (Delta, "delta")])
def test_a_fraction_out_of_range_is_refused_by_name_value_and_range(kind, name, bad):
    with pytest.raises(ValueError, match=rf"^{name}={bad!r} .*\[0, 1\]"):
        kind(bad)


@pytest.mark.parametrize("bad", ["0.3", None, True, [0.3], torch.tensor(0.3)], ids=repr)
@pytest.mark.parametrize(("kind", "name"), [(Epsilon, "epsilon"), (Delta, "delta")])
def test_a_fraction_that_is_no_number_is_refused_by_name_and_type(kind, name, bad):
    with pytest.raises(TypeError, match=rf"^{name}=.*{type(bad).__name__}"):
        kind(bad)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_centre_that_is_not_finite_is_refused_by_name_and_value(bad):
    with pytest.raises(ValueError, match=rf"^phi={bad!r}"):
        Phi(bad)


@pytest.mark.parametrize("bad", ["0.1", None, [0.1]], ids=repr)
def test_a_centre_that_is_no_number_is_refused_by_name(bad):
    with pytest.raises(TypeError, match="phi="):
        Phi(bad)


@pytest.mark.parametrize("fraction", [np.float64(0.5), np.float32(0.5), 1, 0])
def test_numbers_of_numpy_and_whole_numbers_are_fractions_too(fraction):
    signs = random_signs(10)
    flipped = Epsilon(fraction)(signs, torch.ones(10), seeded()) != signs
    assert int(flipped.sum()) == round(fraction * 10)


def test_perturbations_are_values():
    assert Epsilon(0.3) == Epsilon(0.3) != Epsilon(0.2)
    assert len({Delta(0.3), Delta(0.3), Phi(0.3), Epsilon(0.3)}) == 3
    assert repr(Delta(0.3)) == "Delta(fraction=0.3, ties='index')"
    with pytest.raises(AttributeError):
        Epsilon(0.3).fraction = 0.5


@pytest.mark.gpu
@pytest.mark.parametrize(
    "perturbation", [Epsilon(0.4), Delta(0.4), Delta(0.4, ties="random")], ids=repr
)
def test_the_draws_do_not_depend_on_the_device(perturbation):
    signs, magnitudes = random_signs(300), torch.rand(300, generator=seeded(2)).round(decimals=1)
    on_gpu = perturbation(signs.cuda(), magnitudes.cuda(), seeded())
    assert on_gpu.is_cuda
    assert torch.equal(on_gpu.cpu(), perturbation(signs, magnitudes, seeded()))
