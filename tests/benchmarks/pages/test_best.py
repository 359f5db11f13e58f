"""What the best of several equal runs gains by chance."""

import math

import pytest

from benchmarks.pages.best import best_by_chance


def test_the_best_of_one_gains_nothing():
    assert best_by_chance(1, 1.0).high == 0


def test_of_two_points_the_gain_is_half_a_normal_difference():
    """max(0, x - y) of two normals: 0 in the median, and √2 · 1.645 at 95 %."""
    found = best_by_chance(2, 1.0)
    assert found.median == pytest.approx(0, abs=0.02)
    assert found.high == pytest.approx(math.sqrt(2) * 1.645, abs=0.03)


def test_it_scales_with_the_spread_and_grows_with_the_grid():
    nine, eleven = best_by_chance(9, 1.0), best_by_chance(11, 1.0)
    assert nine.median < eleven.median < 2
    assert best_by_chance(9, 0.5).high == pytest.approx(nine.high / 2)
    assert str(best_by_chance(1, 1.0)) == "0.00 in the median, up to 0.00 (95 %)"
