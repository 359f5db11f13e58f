"""Eq. (4): its factors against closed forms, and what the section says of it."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import gamma, gammaincc

from benchmarks.papers.sign_in_theory.dynamics import descend
from benchmarks.papers.sign_in_theory.equation4 import (
    BETAS,
    DIMS,
    FACTORS,
    equation4,
    expected_factor,
    faster,
    ratios,
)
from benchmarks.papers.sign_in_theory.equation4_page import equation4 as section
from benchmarks.papers.sign_in_theory.equation4_page import starts_table
from benchmarks.papers.sign_in_theory.neuron import balanced, gaussian_task, losses
from benchmarks.papers.sign_in_theory.single_neuron import negative_a


@pytest.fixture(scope="module")
def record():
    return equation4(quick=True)


@pytest.mark.parametrize("factor", list(FACTORS))
@pytest.mark.parametrize("beta", BETAS)
def test_expectations_are_the_integral_over_the_density_of_the_norm(factor, beta):
    for dim in DIMS:

        def integrand(r, dim=dim):
            density = 2 ** (1 - dim / 2) / gamma(dim / 2) * r ** (dim - 1) * math.exp(-r * r / 2)
            return float(FACTORS[factor](np.array(r), beta)) * density

        integral, _ = quad(integrand, 0, 30, epsabs=1e-13, epsrel=1e-12, limit=200)
        # scipy's U is exact to 2e-8 where its arguments are worst, and mostly to 1e-12.
        assert expected_factor(factor, dim, beta) == pytest.approx(integral, rel=1e-7)


@pytest.mark.parametrize("beta", BETAS)
def test_with_two_entries_the_expectation_is_an_incomplete_gamma_function(beta):
    # ‖w‖² is exponential with mean 2: E √(x + β) = √2 e^(β/2) Γ(3/2, β/2).
    closed = math.sqrt(2) * math.exp(beta / 2) * gamma(1.5) * gammaincc(1.5, beta / 2)
    assert expected_factor("printed", 2, beta) == pytest.approx(closed, rel=1e-12)


def test_the_exact_factor_is_that_of_the_product():
    beta = 1.7
    theta = np.linspace(-2, 2, 9)
    m = np.sqrt(0.5 * beta + np.hypot(theta, 0.5 * beta))
    assert FACTORS["exact"](theta, beta) == pytest.approx(m**2 + (theta / m) ** 2, rel=1e-14)


@pytest.mark.parametrize("factor", list(FACTORS))
def test_the_inequality_holds_at_balanced_starts_and_is_an_equality_with_one_input(factor):
    for dim in (1, 2, 7):
        found = ratios(negative_a(500, seed=3, dim=dim), factor, 1.0)
        if dim == 1:
            assert found.tolist() == [1.0] * 500
        else:
            assert found.min() > 1.0


def test_the_ratio_is_over_the_mean_of_the_factors_of_w():
    state = np.array([[-3.0], [1.0], [2.0]])
    expected = math.sqrt(10) / ((math.sqrt(2) + math.sqrt(5)) / 2)
    assert ratios(state, "printed", 1.0)[0] == pytest.approx(expected, rel=1e-15)
    expected = math.sqrt(37) / ((math.sqrt(5) + math.sqrt(17)) / 2)
    assert ratios(state, "exact", 1.0)[0] == pytest.approx(expected, rel=1e-15)


def test_the_inequality_fails_where_a_is_nearly_zero():
    state = np.array([[1e-3], [0.5], [-0.2]])
    assert ratios(state, "printed", 1.0)[0] < 1


@pytest.mark.parametrize("dim", [2, 5])
def test_a_short_step_says_which_of_the_squares_changes_faster(dim):
    task, start = gaussian_task(64, dim, seed=0), negative_a(200, seed=2, dim=dim)
    (end,) = descend(start, task, lr=1e-6, steps=1, beta=(1.0, 1.0))
    moved = np.abs(np.square(end[0]) - np.square(start[0]))
    norms = np.abs(np.square(end[1:]).sum(axis=0) - np.square(start[1:]).sum(axis=0))
    agree = faster(start, task, "exact", 1.0) == (moved > norms)
    # Where both change alike, rounding decides.
    close = np.abs(moved - norms) < 1e-3 * norms
    assert bool((agree | close).all())
    assert not close.all()


def test_the_homogeneity_of_the_loss_is_what_autograd_finds():
    task = gaussian_task(64, 3, seed=0)
    state = torch.tensor(balanced(np.random.default_rng(1).standard_normal((3, 1)), -1))
    theta = state[:, 0].clone().requires_grad_()
    hidden = torch.relu(torch.from_numpy(task.inputs) @ theta[1:])
    loss = 0.5 * (theta[0] * hidden - torch.from_numpy(task.labels[:, 0])).square().mean()
    assert loss.item() == pytest.approx(losses(state.numpy(), task)[0])
    (slope,) = torch.autograd.grad(loss, theta)
    pulled = theta.detach() * slope
    assert pulled[0].item() == pytest.approx(pulled[1:].sum().item(), rel=1e-12)


def test_means_over_starts_are_near_their_expectations(record):
    for row in record["starts"]:
        for side in ("a", "w"):
            # 200 starts with a standard deviation below the mean: within a quarter of it.
            assert row[f"mean_{side}"] == pytest.approx(row[f"expected_{side}"], rel=0.25)
        assert row["holds"]["successes"] == row["holds"]["runs"] == 200


def test_what_happens_on_the_way_is_counted_until_the_flip():
    record = equation4(quick=True)
    flips = record["flips"]["successes"]
    assert flips > 0
    assert record["flips_plain"]["successes"] == 0
    assert len(record["norm_at_flip"]) == len(record["ratio_at_flip"]) == flips
    for path in record["paths"]:
        assert path["a"][-1] > 0
        assert max(path["a"][:-1]) <= 0
        assert path["ratio"][0] > 1
    assert all(norm > 0 for norm in record["norm_at_flip"])


def test_the_table_has_a_row_for_every_scaling_and_number_of_inputs(record):
    lines = starts_table(record).splitlines()[2:]
    assert len(lines) == len(BETAS) * len(DIMS)
    cells = [cell.strip() for cell in lines[0].split("|")[1:-1]]
    # β = 0.1, one input: both sides are one number.
    assert cells[:8] == ["0.1", "1", *["1.000"] * 6]


def test_without_any_flip_the_section_says_nothing_of_the_way(record):
    assert "On the way" in section(record)
    still = {**record, "norm_at_flip": [], "ratio_at_flip": [], "reversed_before": None}
    assert "On the way" not in section(still)
