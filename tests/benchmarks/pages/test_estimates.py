"""Means, deviations and groups, by hand."""

import pytest

from benchmarks.pages.estimates import Estimate, cell, estimate, percent, same_settings


def test_estimates_by_hand():
    assert estimate([97.0, 98.0]) == Estimate(97.5, pytest.approx(0.5**0.5), 2)
    assert estimate([1.0, 2.0, 6.0]) == Estimate(3.0, pytest.approx(7**0.5), 3)
    assert estimate([5.0]) == Estimate(5.0, None, 1)
    assert estimate([None]) is None


def test_a_cell_says_how_many_seeds_are_missing():
    assert cell(None) == percent(None) == "—"
    assert cell(estimate([1.0, 2.0, 6.0]), 3) == "3.00 ± 2.65"
    assert cell(estimate([5.0]), 3) == "5.00 (1)"
    assert percent(estimate([0.25])) == "25.0 %"


def test_results_are_grouped_by_what_does_not_vary():
    runs = [{"config": {"seed": seed, "lr": lr}} for seed, lr in ((0, 1), (0, 2), (1, 1))]
    groups = same_settings(runs, ("seed",))
    assert [[run["config"]["seed"] for run in group] for group in groups] == [[0, 1], [0]]
