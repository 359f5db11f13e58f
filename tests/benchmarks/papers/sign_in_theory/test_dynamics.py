"""The theory section's dynamics against autograd, against each other and against the theorems."""

import numpy as np
import pytest
import torch

from benchmarks.papers.sign_in_theory.dynamics import ActiveMoments, balance, descend
from benchmarks.papers.sign_in_theory.line import (
    HALF,
    REPARAMETERISATIONS,
    printed_flow,
    pull,
    reparameterised,
)
from benchmarks.papers.sign_in_theory.neuron import (
    CASES,
    Task,
    balanced,
    beyond_teaching,
    draw_case,
    gaussian_task,
    losses,
)
from benchmarks.papers.sign_in_theory.neurons import gradients, outputs, train
from benchmarks.papers.sign_in_theory.students import draw_students, draw_teachers
from polarity.parametrizations.sign_in import SignInMW


def all_cases(dim, runs, scale=1.0):
    return np.concatenate([draw_case(case, dim, runs, 1, scale) for case in CASES], axis=1)


def autograd_slope(state, task, run):
    """Loss and derivatives of one run, by torch."""
    theta = torch.tensor(state[:, run], requires_grad=True)
    inputs = torch.from_numpy(task.inputs)
    labels = torch.from_numpy(task.labels[:, min(run, task.labels.shape[1] - 1)].copy())
    loss = 0.5 * (theta[0] * torch.relu(inputs @ theta[1:]) - labels).square().mean()
    (slope,) = torch.autograd.grad(loss, theta)
    return loss.item(), slope.numpy()


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_closed_form_equals_autograd(dim):
    teacher = np.random.default_rng(5).standard_normal((dim, 12))
    task = gaussian_task(40, dim, seed=3, teacher=teacher)
    state = all_cases(dim, 3)
    g = ActiveMoments(task, state[1:]).pull(state[0], state[1:], np.empty_like(state[1:]))
    for run in range(12):
        loss, slope = autograd_slope(state, task, run)
        np.testing.assert_allclose(losses(state, task)[run], loss, rtol=1e-13)
        np.testing.assert_allclose((state[1:, run] * g[:, run]).sum(), slope[0], atol=1e-13)
        np.testing.assert_allclose(state[0, run] * g[:, run], slope[1:], atol=1e-13)


@pytest.mark.parametrize("beta", [None, (2.0, 1.0)])
@pytest.mark.parametrize("samples", [8, 64])
def test_a_batch_is_what_autograd_gives_run_by_run(beta, samples):
    task, steps, lr = gaussian_task(samples, 3, seed=2), 250, 0.05
    start = all_cases(3, 1)
    states = descend(start, task, lr=lr, steps=steps, beta=beta, record=[100, steps])
    inputs, labels = torch.from_numpy(task.inputs), torch.from_numpy(task.labels[:, 0].copy())
    scalings = None if beta is None else np.array([beta[0], *[beta[1]] * 3])
    for run in range(start.shape[1]):
        first = (start[:, run],) if beta is None else balance(start[:, run], scalings)
        parts = [torch.tensor(part, requires_grad=True) for part in first]
        for step in range(1, steps + 1):
            theta = parts[0] if beta is None else parts[0] * parts[1]
            loss = 0.5 * (theta[0] * torch.relu(inputs @ theta[1:]) - labels).square().mean()
            slopes = torch.autograd.grad(loss, parts)
            with torch.no_grad():
                for part, slope in zip(parts, slopes, strict=True):
                    part -= lr * slope
            if step in (100, steps):
                ended = (parts[0] if beta is None else parts[0] * parts[1]).detach().numpy()
                mine = states[0 if step == 100 else 1][:, run]
                np.testing.assert_allclose(mine, ended, rtol=1e-9, atol=1e-11)


def test_runs_do_not_know_of_each_other():
    task, start = gaussian_task(32, 4, seed=0), all_cases(4, 3)
    together = descend(start, task, lr=0.05, steps=1500, beta=(1.0, 1.0))[-1]
    for run in range(start.shape[1]):
        alone = descend(start[:, run : run + 1], task, lr=0.05, steps=1500, beta=(1.0, 1.0))[-1]
        np.testing.assert_allclose(together[:, run], alone[:, 0], rtol=1e-9, atol=1e-10)


def test_leaving_at_a_fixed_point_changes_nothing(monkeypatch):
    task, start = gaussian_task(32, 3, seed=0), all_cases(3, 3)
    settings = {"lr": 0.05, "steps": 3000, "record": [10, 1500, 3000]}
    early = descend(start, task, **settings)
    monkeypatch.setattr("benchmarks.papers.sign_in_theory.dynamics._SETTLE_EVERY", 10**9)
    np.testing.assert_array_equal(early, descend(start, task, **settings))


def test_a_run_that_diverges_is_told_apart():
    task = gaussian_task(32, 3, seed=0)
    start = np.concatenate([all_cases(3, 1), balanced(np.full((3, 1), 40.0), 1)], axis=1)
    end = descend(start, task, lr=0.05, steps=2000)[-1]
    found = losses(end, task)
    assert np.isinf(found[-1])
    assert np.isfinite(found[:-1]).all()
    assert not beyond_teaching(end, task)[-1]


def test_factors_are_those_of_the_library():
    theta = np.random.default_rng(0).standard_normal((1, 50)) * np.logspace(-12, 3, 50)
    for beta in (0.1, 1.0, 2.0):
        module = SignInMW(torch.ones(1, 50, dtype=torch.float64), beta=beta)
        theirs = module.right_inverse(torch.from_numpy(theta.copy()))
        for mine, expected in zip(balance(theta, np.full(1, beta)), theirs, strict=True):
            np.testing.assert_allclose(mine, expected.detach().numpy(), rtol=1e-14)


@pytest.mark.parametrize(
    ("beta", "pattern"),
    [
        (None, (1, 0, 0, 0)),
        ((2.0, 1.0), (1, 1, 0, 0)),
        ((1.0, 1.0), (1, 0, 0, 0)),
        ((1.0, 2.0), (1, 0, 0, 0)),
    ],
)
def test_one_input_recovers_the_cases_of_the_theorems(beta, pattern):
    for task in (HALF, gaussian_task(50, 1, seed=4)):
        end = descend(all_cases(1, 25), task, lr=0.02, steps=7000, beta=beta)[-1]
        solved = (losses(end, task) < 1e-4).reshape(4, 25).mean(axis=1)
        assert tuple(solved) == pattern


def test_eq_3_as_printed_recovers_the_same_cases():
    end = printed_flow(all_cases(1, 10), lr=0.02, steps=5000, beta=(2.0, 1.0))
    solved = np.abs(end.prod(axis=0) - 1) < 1e-3
    assert tuple((solved & (end[1] > 0)).reshape(4, 10).mean(axis=1)) == (1, 1, 0, 0)


def test_a_balanced_start_stays_on_the_stable_manifold_to_the_last_bit():
    start = draw_case("-+", 1, 40, seed=0)
    for beta in (None, (1.0, 1.0)):
        states = descend(start, HALF, lr=0.05, steps=2000, beta=beta, record=[1, 100, 2000])
        np.testing.assert_array_equal(states[:, 0], -states[:, 1])
        assert (np.abs(states[-1]) < 1e-8).all()


def test_overparameterisation_recovers_what_the_paper_says():
    task, start = gaussian_task(256, 5, seed=0), all_cases(5, 5)
    for beta, pattern in ((None, (1, 0, 1, 0)), ((1.0, 1.0), (1, 1, 1, 1))):
        end = descend(start, task, lr=0.04, steps=5000, beta=beta)[-1]
        solved = (losses(end, task) < 1e-4).reshape(4, 5).mean(axis=1)
        # Saddle escape is slow: one run in five may still be on its way.
        np.testing.assert_allclose(solved, pattern, atol=0.2)


def test_gradient_flow_conserves_balance_up_to_the_step_size():
    task, start = gaussian_task(64, 5, seed=1), all_cases(5, 5)

    def imbalance(lr):
        end = descend(start, task, lr=lr, steps=round(5 / lr))[-1]
        return np.abs(end[0] ** 2 - np.square(end[1:]).sum(axis=0)).max()

    coarse, fine = imbalance(0.01), imbalance(0.001)
    assert coarse < 0.2
    assert fine < 0.15 * coarse


def test_the_inner_scaling_shrinks_by_one_minus_the_squared_step():
    theta, beta, lr = all_cases(1, 5), 1.5, 0.02
    m, v = balance(theta, np.full(1, beta))
    g = pull(*theta)
    slope = np.stack([theta[1] * g, theta[0] * g])
    m, v = m - lr * slope * v, v - lr * slope * m
    np.testing.assert_allclose((m - v) * (m + v), beta * (1 - (lr * slope) ** 2), rtol=1e-13)
    stepped = descend(theta, HALF, lr=lr, steps=1, beta=(beta, beta))[-1]
    np.testing.assert_allclose(stepped, m * v, rtol=1e-13)


def test_the_silenced_are_those_without_a_common_active_sample():
    task = Task(np.array([[1.0, 0.2], [0.5, -1.0], [-1.0, 0.3]]), np.array([[1.0], [0.5], [0.0]]))
    state = np.array([[1.0, 1.0, 1.0], [-1.0, -1.0, 1.0], [0.0, 6.0, 0.0]])
    assert beyond_teaching(state, task).tolist() == [True, False, False]


@pytest.mark.parametrize("name", REPARAMETERISATIONS)
def test_reparameterisations_start_where_they_should_and_know_their_slopes(name):
    g = REPARAMETERISATIONS[name]
    theta = np.array([-1.7, -0.3, 0.4, 2.0])
    u = g.start(theta)
    np.testing.assert_allclose(g.value(u), theta, rtol=1e-12)
    for part, slope in enumerate(g.slopes(u)):
        moved = u.copy()
        moved[part] += 1e-6
        np.testing.assert_allclose((g.value(moved) - theta) / 1e-6, slope, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", REPARAMETERISATIONS)
def test_no_reparameterisation_crosses_zero(name):
    start = np.concatenate([draw_case("+-", 1, 10, seed=0), draw_case("--", 1, 10, seed=0)], axis=1)
    greatest, states = reparameterised(
        REPARAMETERISATIONS[name], start, lr=0.01, steps=5000, record=[0, 5000]
    )
    assert (greatest <= 0).all()
    # It is no lack of movement: w has come nearer to 0, and it still is not the teacher.
    assert (np.abs(states[1, 1]) < np.abs(states[0, 1])).all()
    assert (0.25 + 0.25 * states[1].prod(axis=0) ** 2 >= 0.25).all()


@pytest.mark.parametrize("factor", [1.0, 1 / 3])
def test_gradients_of_several_neurons_equal_autograd(factor):
    teachers = draw_teachers(4, seed=0)
    start = draw_students(teachers, seed=1)["dense"]
    inputs = np.random.default_rng(2).standard_normal((30, 2))
    labels = outputs(teachers, inputs, factor)
    loss, for_a, for_w = gradients(start, inputs, labels, factor)
    z, y = torch.from_numpy(inputs), torch.from_numpy(labels)
    a = torch.tensor(start.a, requires_grad=True)
    w = torch.tensor(start.w, requires_grad=True)
    answers = factor * torch.einsum("sk,skn->sn", a, torch.relu(torch.einsum("skd,nd->skn", w, z)))
    expected = 0.5 * (answers - y).square().mean(dim=1)
    slopes = torch.autograd.grad(expected.sum(), (a, w))
    np.testing.assert_allclose(loss, expected.detach(), rtol=1e-12)
    np.testing.assert_allclose(for_a, slopes[0], atol=1e-13)
    np.testing.assert_allclose(for_w, slopes[1], atol=1e-13)


def test_students_are_drawn_as_the_paper_says():
    teachers = draw_teachers(200, seed=0)
    assert set(np.unique(teachers.a)) == {-1.0, 1.0}
    assert (teachers.a < 0).any(axis=1).all()
    np.testing.assert_allclose(np.linalg.norm(teachers.w, axis=2), 1.0)
    starts = draw_students(teachers, seed=1)
    np.testing.assert_array_equal(starts["dense"].a[:, :10], -starts["dense"].a[:, 10:])
    np.testing.assert_array_equal(np.sign(starts["good"].a), teachers.a)
    np.testing.assert_array_equal(np.sign(starts["good"].w), np.sign(teachers.w))
    assert (starts["bad"].a > 0).all()
    np.testing.assert_array_equal(np.abs(starts["good"].w), np.abs(starts["bad"].w))
    assert starts["dense"].w.std() == pytest.approx(np.sqrt(0.5), rel=0.03)
    even = starts["balanced"]
    np.testing.assert_allclose(even.a**2, np.square(even.w).sum(axis=2))


@pytest.mark.parametrize("beta", [None, (2.0, 1.0)])
def test_several_neurons_train_as_by_autograd(beta):
    teachers = draw_teachers(3, seed=0)
    start = draw_students(teachers, seed=1)["bad"]
    inputs = np.random.default_rng(2).standard_normal((30, 2))
    labels = outputs(teachers, inputs, 1 / 3)
    settings = {"factor": 1 / 3, "lr": 0.5, "steps": 40, "beta": beta, "record": 10}
    end, loss, path = train(start, inputs, labels, **settings)
    assert len(path) == 5
    np.testing.assert_allclose(path[0].w, start.w, rtol=1e-14)
    theta = np.concatenate([start.a[..., None], start.w], axis=2)
    first = (theta,) if beta is None else balance(theta, np.array([2.0, 1.0, 1.0]))
    parts = [torch.tensor(part, requires_grad=True) for part in first]
    z, y = torch.from_numpy(inputs), torch.from_numpy(labels)
    for step in range(41):
        whole = parts[0] if beta is None else parts[0] * parts[1]
        hidden = torch.relu(torch.einsum("skd,nd->skn", whole[..., 1:], z))
        answers = torch.einsum("sk,skn->sn", whole[..., 0], hidden) / 3
        each = 0.5 * (answers - y).square().mean(dim=1)
        if step == 40:
            break
        slopes = torch.autograd.grad(each.sum(), parts)
        with torch.no_grad():
            for part, slope in zip(parts, slopes, strict=True):
                part -= 0.5 * slope
    np.testing.assert_allclose(end.w, whole[..., 1:].detach(), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(loss, each.detach(), rtol=1e-9)
