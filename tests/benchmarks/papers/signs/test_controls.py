"""The table of controls, from made-up runs whose differences are known."""

import numpy as np
import pytest
from scipy.stats import t

from benchmarks.papers.signs.controls import controls_table


@pytest.fixture
def undamaged(made_run):
    return [
        made_run(strategy, 0.0, seed, level + seed)
        for strategy, level in (("mask0", 98.0), ("mask1", 97.0))
        for seed in (0, 1)
    ]


def rows(parts):
    lines = parts[-1].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == ["control", "mask0", "mask1"]
    return {row[0]: row[1:] for row in cells[2:]}


def test_without_controls_there_is_no_table(undamaged, made_run):
    assert controls_table(undamaged) == []
    assert controls_table([*undamaged, made_run("mask0", 0.3, 0, 90.0)]) == []


def test_a_control_is_paired_with_undamaged_signs(undamaged, made_run):
    damaged = [made_run("mask1", 0.5, seed, 95.0 + seed) for seed in (0, 1)]
    table = controls_table([*undamaged, *damaged])
    assert table[0] == "### Controls"
    assert rows(table) == {"random signs (ε = 0.5)": ["—", "-2.00 [-2.00, -2.00]"]}


@pytest.mark.parametrize(
    ("name", "kind", "size"),
    [
        ("all signs negated (ε = 1)", "epsilon", 1.0),
        ("all signs drawn anew (δ = 1)", "delta", 1.0),
        ("signs of the smallest half drawn anew (δ = 0.5)", "delta", 0.5),
        ("signs of the largest half drawn anew (δ = 0.5, largest first)", "delta_largest", 0.5),
    ],
)
def test_controls_that_are_perturbations_are_named(undamaged, made_run, name, kind, size):
    damaged = [
        made_run("mask0", 0.0, seed, 97.0 + seed, perturbation=((kind, size),)) for seed in (0, 1)
    ]
    assert rows(controls_table([*undamaged, *damaged])) == {name: ["-1.00 [-1.00, -1.00]", "—"]}


def test_random_masks_and_rewinding_are_compared_with_every_strategy(undamaged, made_run):
    random = [made_run("mask0", 0.0, seed, 96.0 + seed, survivors="random") for seed in (0, 1)]
    rewound = [made_run("rewind", 0.0, seed, 97.5 + seed) for seed in (0, 1)]
    assert rows(controls_table([*undamaged, *rewound], random)) == {
        "random mask, as many survivors in each layer": ["-2.00 [-2.00, -2.00]", "—"],
        "original rewinding, magnitudes kept": ["-0.50 [-0.50, -0.50]", "+0.50 [+0.50, +0.50]"],
    }


def test_standard_is_shown_with_its_mask(made_run):
    results = [made_run("standard", 0.0, seed, 98.0) for seed in (0, 1)]
    for result in results:
        result["final"]["test_accuracy_masked"] = 70.0
    _, _, table = controls_table(results)
    assert "| mask applied after the last training | -28.00 [-28.00, -28.00] |" in table


def test_the_spread_of_a_row_is_pooled_over_its_strategies(undamaged, made_run):
    damaged = [
        made_run("mask0", 0.5, 0, 97.0),
        made_run("mask0", 0.5, 1, 98.2),
        made_run("mask1", 0.5, 0, 96.0),
        made_run("mask1", 0.5, 1, 97.0),
    ]
    first, second = rows(controls_table([*undamaged, *damaged]))["random signs (ε = 0.5)"]
    # Differences of mask0 are −1 and −0.8, of mask1 both −1: 0.01 over two degrees of freedom,
    # and 4.303 standard errors of 0.1 / √2.
    assert first == "-0.90 [-1.20, -0.60]"
    assert second == "-1.00 [-1.30, -0.70]"


def test_strategies_that_share_one_rewinding_are_not_independent(made_run):
    accuracies = {"mask0": (98.0, 98.4, 98.1), "mask1": (97.0, 97.1, 97.6)}
    rewound = (97.5, 97.9, 97.6)
    results = [
        made_run(strategy, 0.0, seed, level)
        for strategy, levels in {**accuracies, "rewind": rewound}.items()
        for seed, level in enumerate(levels)
    ]
    found = rows(controls_table(results))["original rewinding, magnitudes kept"]
    differences = np.array([np.subtract(rewound, levels) for levels in accuracies.values()])
    covariance = np.cov(differences)
    freedom = 2 * np.trace(covariance) ** 2 / (covariance**2).sum()
    half = t.ppf(0.975, freedom) * np.sqrt(np.trace(covariance) / 2 / 3)
    for text, mean in zip(found, differences.mean(axis=1), strict=True):
        assert text == f"{mean:+.2f} [{mean - half:+.2f}, {mean + half:+.2f}]"
