"""Intervals, pooled spreads and detectable effects, against literals and other ways to them."""

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import chi2, norm, ttest_rel

from benchmarks.pages.paired import (
    Compared,
    Spread,
    compare,
    critical,
    detectable_errors,
    level_spread,
    pooled_spread,
    spread_to_reference,
    with_most_seeds,
)


def by_seed(*values):
    return dict(enumerate(values))


def test_a_difference_and_its_interval_by_hand():
    # Differences 1, 2 and 6: mean 3, variance 7; t of two degrees of freedom is 4.3027.
    found = compare(by_seed(11.0, 12.0, 16.0), by_seed(10.0, 10.0, 10.0))
    assert (found.mean, found.count) == (3.0, 3)
    assert found.half == pytest.approx(4.302652730 * math.sqrt(7 / 3))
    assert (found.low, found.high) == (3.0 - found.half, 3.0 + found.half)
    assert str(found) == "+3.00 [-3.57, +9.57]"
    assert -found == Compared(-3.0, 3, found.half, found.detectable)


def test_the_interval_is_that_of_the_paired_t_test():
    generator = np.random.default_rng(0)
    first, second = generator.normal(size=(2, 6))
    interval = ttest_rel(first, second).confidence_interval(0.95)
    found = compare(by_seed(*first), by_seed(*second))
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_only_seeds_that_both_have_count():
    found = compare({0: 1.0, 1: 2.0, 7: 99.0}, {1: 0.5, 0: 0.5, 8: -99.0})
    assert (found.mean, found.count) == (1.0, 2)
    assert compare({0: 1.0}, {1: 1.0}) is None
    assert compare({}, {}) is None


def test_one_seed_has_a_mean_and_no_interval():
    found = compare({3: 2.0}, {3: 1.5})
    assert found == Compared(0.5, 1)
    assert (found.low, found.high, str(found)) == (None, None, "+0.50")
    # With a spread from the rest of its table it has one.
    pooled = compare({3: 2.0}, {3: 1.5}, Spread(0.1, 8))
    assert pooled.half == pytest.approx(0.1 * 2.306004135)


@pytest.mark.parametrize(("freedom", "point"), [(2, 4.302653), (4, 2.776445), (7, 2.364624)])
def test_points_of_students_distribution_are_those_of_the_tables(freedom, point):
    assert critical(freedom) == pytest.approx(point, abs=1e-6)


@pytest.mark.parametrize("freedom", [1, 2, 4.5, 24])
def test_the_detectable_effect_has_80_percent_power_by_integration(freedom):
    # The difference has a normal distribution, and its estimated error a chi distribution.
    edge, errors = critical(freedom), detectable_errors(freedom)

    def power(square):
        return norm.sf(edge * math.sqrt(square / freedom) - errors) * chi2.pdf(square, freedom)

    assert quad(power, 0, np.inf)[0] == pytest.approx(0.8, abs=1e-6)


def test_detectable_effects_of_few_seeds_in_standard_deviations():
    shown = {n: detectable_errors(n - 1) / math.sqrt(n) for n in (3, 5, 8)}
    assert shown == pytest.approx({3: 3.26, 5: 1.68, 8: 1.16}, abs=0.005)
    # With many degrees of freedom: 1.960 + 0.842.
    assert detectable_errors(1e5) == pytest.approx(2.8016, abs=1e-3)


@pytest.mark.parametrize("seeds", [3, 5])
def test_the_detectable_effect_is_found_four_times_in_five(seeds):
    generator = np.random.default_rng(1)
    effect = detectable_errors(seeds - 1) / math.sqrt(seeds)
    draws = generator.normal(effect, 1, (100_000, seeds))
    t = draws.mean(1) / draws.std(1, ddof=1) * math.sqrt(seeds)
    assert np.mean(np.abs(t) > critical(seeds - 1)) == pytest.approx(0.8, abs=0.005)


def test_two_rows_pool_to_the_single_comparison():
    first, second = by_seed(11.0, 12.0, 16.0), by_seed(10.0, 10.0, 10.0)
    assert pooled_spread([[first, second]]) == Spread(pytest.approx(math.sqrt(7)), 2)
    assert spread_to_reference([first], second) == Spread(pytest.approx(math.sqrt(7)), 2)


def test_rows_and_tables_are_pooled_by_hand():
    # Left of rows (0, 2), (0, 0), (0, 4) after means of rows and seeds: (0, ∓2 and ±2).
    rows = [by_seed(0.0, 2.0), by_seed(0.0, 0.0), by_seed(0.0, 4.0)]
    # Residuals 0, 0; 1, -1; -1, 1: squares 4, over (3 - 1)(2 - 1) degrees of freedom.
    assert pooled_spread([rows]) == Spread(pytest.approx(2.0), 2)
    # A second table: differences 1, 2 and 6, whose residuals have half of their squares, 7.
    more = [by_seed(11.0, 12.0, 16.0), by_seed(10.0, 10.0, 10.0)]
    assert pooled_spread([rows, more]) == Spread(pytest.approx(math.sqrt(2 * 11 / 4)), 4)


def test_means_of_rows_and_seeds_do_not_count_as_spread():
    generator = np.random.default_rng(2)
    chance = generator.normal(size=(5, 4))
    moved = chance + generator.normal(size=(5, 1)) * 50 + generator.normal(size=(1, 4)) * 50
    still, shifted = ([by_seed(*row) for row in each] for each in (chance, moved))
    assert pooled_spread([shifted]).std == pytest.approx(pooled_spread([still]).std)


def test_pooling_estimates_the_spread_of_a_difference_without_bias():
    generator = np.random.default_rng(3)
    found = [
        pooled_spread([[by_seed(*row) for row in generator.normal(0, 0.7, (6, 3))]]).std ** 2
        for _ in range(2000)
    ]
    assert math.sqrt(np.mean(found)) == pytest.approx(0.7 * math.sqrt(2), rel=0.02)


def test_missing_cells_shrink_the_pool_and_are_not_invented():
    full = [by_seed(0.0, 2.0), by_seed(0.0, 0.0), by_seed(0.0, 4.0)]
    assert pooled_spread([[*full, {}]]) == pooled_spread([full])
    ragged = [{**full[0], 2: 100.0}, full[1], {**full[2], 5: -100.0}]
    assert pooled_spread([ragged]) == pooled_spread([full])
    assert pooled_spread([full[:1], [], [{0: 1.0}, {0: 2.0}]]) is None
    assert spread_to_reference([{}, *full], by_seed(0.0, 0.0)) is not None
    for rows, reference in (([], full[0]), ([{}], full[0]), (full, {}), (full, {0: 1.0})):
        assert spread_to_reference(rows, reference) is None


def test_degrees_of_freedom_count_what_rows_share_with_their_reference_once():
    generator = np.random.default_rng(4)
    reference = by_seed(*generator.normal(size=5))
    same = [by_seed(*(10.0 + place for _ in range(5))) for place in range(6)]
    # Rows without chance of their own all vary as the reference does: one row's worth.
    moved = spread_to_reference(same, reference)
    assert moved.freedom == pytest.approx(4)
    assert moved.std == pytest.approx(np.std(list(reference.values()), ddof=1))
    # Two rows that vary apart, against a reference that does not: two rows' worth.
    apart = [by_seed(1.0, -1.0, 1.0, -1.0), by_seed(1.0, 1.0, -1.0, -1.0)]
    assert spread_to_reference(apart, by_seed(0.0, 0.0, 0.0, 0.0)) == Spread(
        pytest.approx(math.sqrt(4 / 3)), pytest.approx(6)
    )
    # The general case, by matrices.
    rows = generator.normal(size=(3, 5))
    s = np.cov(rows - np.array(list(reference.values())))
    found = spread_to_reference([by_seed(*row) for row in rows], reference)
    assert found.freedom == pytest.approx(4 * np.trace(s) ** 2 / np.trace(s @ s))
    assert found.std == pytest.approx(math.sqrt(np.trace(s) / 3))


def test_runs_that_do_not_vary_have_a_point_for_an_interval():
    still = [by_seed(1.0, 1.0, 1.0), by_seed(2.0, 2.0, 2.0)]
    assert spread_to_reference(still, by_seed(0.0, 0.0, 0.0)) == Spread(0.0, 2.0)
    found = compare(still[1], still[0])
    assert (found.low, found.high, found.detectable) == (1.0, 1.0, 0.0)


def test_the_level_of_rows_is_pooled_over_their_own_means():
    found = level_spread([{0: 1.0, 1: 3.0}, {0: 10.0, 1: 10.0, 2: 13.0}, {5: 7.0}])
    # Squares 2 and 6 about the means 2 and 11, with one and two degrees of freedom.
    assert found == Spread(math.sqrt(8 / 3), 3)
    assert level_spread([{0: 1.0}]) is None


def test_a_row_of_one_seed_does_not_hide_the_spread_of_the_others():
    rows = [by_seed(1.0, 2.0), by_seed(3.0, 5.0), by_seed(9.0), {}]
    assert with_most_seeds(rows) == rows[:2]
    assert pooled_spread([rows]) is None
    assert pooled_spread([with_most_seeds(rows)]) == pooled_spread([rows[:2]])
    assert with_most_seeds([]) == []
