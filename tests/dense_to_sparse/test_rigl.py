"""RigL: which entries are dropped and grow, when, and with which state."""

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import polarity as pol
from polarity.dense_to_sparse import RigL
from polarity.dense_to_sparse.dense_gradients import dense_gradient, open_up
from polarity.targets.search import attached
from tests.dense_to_sparse.cases import (
    EVERY_FORM,
    EVERY_OPTIMIZER,
    FIRST,
    LAST,
    PRODUCT,
    batches,
    counts,
    effective,
    in_form,
    leaves,
    masked,
    rigl,
    train,
)


def test_the_masks_of_a_layer_of_twelve_weights_are_those_computed_by_hand() -> None:
    model = nn.Linear(4, 3, bias=False)
    weight = torch.tensor([[0.5, -0.1, 0.0, 0.3], [0.0, -0.2, 0.0, 0.7], [0.0, 0.0, -0.4, 0.0]])
    with torch.no_grad():
        model.weight.copy_(weight)
    pol.load_masks(model, {"weight": weight != 0})
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = RigL(model, sgd, every=1, begin=1, end=3, fraction=0.5)
    # At step 1 of D = 2 the fraction is 0.5 (1 + cos(pi / 2)) / 2 = 1/4 of six: one is exchanged.
    gradient = torch.tensor([[9.0, 0.1, 0.8, 9.0], [0.3, 0.7, 0.2, 9.0], [0.6, 0.5, 9.0, -0.9]])
    (model.weight * gradient).sum().backward()
    sgd.step()
    report = schedule.step()
    expected = weight.clone()
    expected[0, 1] = 0.0
    assert torch.equal(model.weight.detach(), expected)
    mask = expected != 0
    mask[2, 3] = True
    assert torch.equal(pol.masks(model)["weight"], mask)
    assert str(report) == "\n".join(
        [
            "weight  shape  live  dropped  grown  density",
            "--------------------------------------------",
            "weight    3x4     6        1      1   0.5000",
            "total      12     6        1      1   0.5000",
            "step 1: drop and grow",
        ]
    )
    assert schedule.report is report


def test_the_masks_of_three_updates_are_these() -> None:
    """Literals. Of D = 3 the fractions are 0.75, 0.25 and 0: four, one and none of six."""
    model = nn.Linear(4, 3, bias=False)
    weight = torch.tensor([[0.5, -0.1, 0.0, 0.3], [0.0, -0.2, 0.0, 0.7], [0.0, 0.0, -0.4, 0.0]])
    with torch.no_grad():
        model.weight.copy_(weight)
    pol.load_masks(model, {"weight": weight != 0})
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = RigL(model, sgd, every=1, begin=1, end=4, fraction=1.0)
    gradients = [
        # 0.5 and 0.7 stay; 0.9, which is the dropped -0.2's own, 0.8, 0.6 and 0.5 grow.
        [[9.0, 0.1, 0.8, -0.2], [0.3, -0.9, 0.4, 9.0], [0.6, -0.5, 0.05, 0.45]],
        # Three newborn entries are 0: the last of them goes, and the last entry of all comes.
        [[9.0, 0.1, 0.0, 0.2], [0.3, 0.0, 0.4, 9.0], [0.0, 0.5, 0.05, -0.7]],
        [[0.0, 9.0, 0.0, 9.0], [9.0, 0.0, 9.0, 0.0], [0.0, 9.0, 9.0, 0.0]],
    ]
    masks, weights = [], []
    for gradient in gradients:
        sgd.zero_grad()
        (model.weight * torch.tensor(gradient)).sum().backward()
        sgd.step()
        schedule.step()
        masks.append(pol.masks(model)["weight"].int().tolist())
        weights.append(model.weight.detach().clone())
    assert masks == [
        [[1, 0, 1, 0], [0, 1, 0, 1], [1, 1, 0, 0]],
        [[1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 0, 1]],
        [[1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 0, 1]],
    ]
    kept = torch.tensor([[0.5, 0.0, 0.0, 0.0], [0.0, -0.2, 0.0, 0.7], [0.0] * 4])
    assert all(torch.equal(each, kept) for each in weights)


@PRODUCT
def test_gradients_are_dense_at_update_steps_alone(product: bool) -> None:
    model = masked(product=product)
    sgd, schedule = rigl(model)
    outside = ~pol.masks(model)[FIRST]
    dense = []

    def look() -> None:
        dense.append(any(bool(leaf.grad[outside].any()) for leaf in leaves(model)))

    def again(report: Any) -> None:
        outside.copy_(~pol.masks(model)[FIRST])

    train(model, sgd, schedule, 13, before_step=look, after_step=again)
    assert [step for step, each in enumerate(dense, start=1) if each] == [4, 8, 12]


@EVERY_FORM
def test_the_density_is_exact_in_every_forward(form: str) -> None:
    model, options = in_form(form)
    sgd, schedule = rigl(model, **options)
    live = counts(model)
    seen = []
    model.register_forward_pre_hook(
        lambda module, args: seen.append(
            {n: int((w != 0).sum()) for n, w in effective(model).items()}
        )
    )
    train(model, sgd, schedule, 30, after_step=lambda _: seen.append(counts(model)))
    assert counts(model) == live
    assert all(each[name] <= live[name] for each in seen for name in live)
    assert schedule.density() == pol.density(model) == sum(live.values()) / 160


@EVERY_FORM
@EVERY_OPTIMIZER
def test_grown_entries_are_zero_at_birth_with_zero_state_and_grow(
    form: str, optimizer: str
) -> None:
    model, options = in_form(form)
    built, schedule = rigl(model, optimizer, every=100, begin=4, end=104, **options)
    before = pol.masks(model)
    born = {}

    def check(report: Any) -> None:
        nonlocal before
        now = pol.masks(model)
        if report is not None:
            assert report.grown > 0
            for layer, name in ((0, FIRST), (2, LAST)):
                fresh = now[name] & ~before[name]
                born[name] = fresh
                assert not effective(model)[name][fresh].any()
                ended = ~(now[name] & before[name])
                for leaf in leaves(model, layer):
                    for value in built.state[leaf].values():
                        if value.dim():
                            assert not value[ended].any()
        before = now

    train(model, built, schedule, 54, after_step=check)
    assert sum(int(each.sum()) for each in born.values()) > 3
    for name, fresh in born.items():
        assert effective(model)[name][fresh].all(), "a newborn entry did not move in 50 steps"


@pytest.mark.parametrize("replace_step", [True, False])
def test_the_first_update_picks_the_same_entries_on_a_product(replace_step: bool) -> None:
    picked = []
    for product in (False, True):
        model = masked(product=product)
        sgd, schedule = rigl(model, every=1, end=9, replace_step=replace_step)
        x, y = next(batches())
        cross_entropy(model(x), y).backward()
        # Nothing has moved yet: the same weights, and the gradients of the same loss.
        schedule.collect()
        if not replace_step:
            for parameter in model.parameters():
                parameter.grad.zero_()
        sgd.step()
        assert schedule.step().grown > 0
        picked.append(pol.masks(model))
    assert all(torch.equal(picked[0][name], picked[1][name]) for name in picked[0])


def test_the_gradient_of_a_product_is_that_of_the_weight() -> None:
    gradients = []
    for product in (False, True):
        model = masked(product=product)
        found = attached(model)
        open_up(found.values())
        x, y = next(batches())
        cross_entropy(model(x), y).backward()
        gradients.append([dense_gradient(target) for target in found.values()])
    for plain, factors in zip(*gradients, strict=True):
        assert plain.all() or plain.count_nonzero() > 0.5 * plain.numel()
        torch.testing.assert_close(factors, plain, rtol=1e-5, atol=1e-7)


@PRODUCT
def test_an_update_replaces_the_gradient_step_of_every_parameter(product: bool) -> None:
    model = masked(product=product)
    sgd, schedule = rigl(model)
    train(model, sgd, schedule, 3)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    weights, masks = effective(model), pol.masks(model)
    momentum = {leaf: sgd.state[leaf]["momentum_buffer"].clone() for leaf in model.parameters()}
    train(model, sgd, schedule, 1)
    assert schedule.report.step == 4
    for name in ("0.bias", "2.bias"):
        assert torch.equal(model.get_parameter(name), before[name])
    for name, mask in pol.masks(model).items():
        survives = mask & masks[name]
        assert torch.equal(effective(model)[name], weights[name] * survives)
    bias = model[0].bias
    assert torch.equal(sgd.state[bias]["momentum_buffer"], momentum[bias])


@PRODUCT
def test_the_gradient_step_is_made_first_without_replacing(product: bool) -> None:
    """Up to the drop, an update step equals a step of a schedule that does nothing."""
    models = [masked(product=product) for _ in range(2)]
    for model, every in zip(models, (4, 100), strict=True):
        sgd, schedule = rigl(model, every=every, end=101, replace_step=False)
        train(model, sgd, schedule, 4)
    ours, plain = map(effective, models)
    for name, mask in pol.masks(models[0]).items():
        survives = mask & pol.masks(models[1])[name]
        assert torch.equal(ours[name][survives], plain[name][survives])
    assert torch.equal(models[0][0].bias, models[1][0].bias)
    assert not torch.equal(ours[FIRST], plain[FIRST])


def test_a_newborn_weight_moves_by_3_16_rates_under_adam_and_up_to_6_6_later() -> None:
    """With zero moments and an old step count, under a constant gradient."""
    weight = nn.Parameter(torch.zeros(1))
    adam = torch.optim.Adam([weight], lr=1.0)
    weight.grad = torch.ones(1)
    adam.step()
    state = adam.state[weight]
    state["step"].fill_(100_000)
    state["exp_avg"].zero_()
    state["exp_avg_sq"].zero_()
    moves = []
    for _ in range(40):
        before = float(weight.detach())
        weight.grad = torch.ones(1)
        adam.step()
        moves.append(before - float(weight.detach()))
    assert moves[0] == pytest.approx(0.1 / math.sqrt(0.001), rel=1e-4)  # 3.16
    assert max(moves) == pytest.approx(6.57, abs=0.01)


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
@PRODUCT
def test_keep_mean_starts_the_second_moment_at_the_survivors_mean(
    product: bool, optimizer: str
) -> None:
    model = masked(product=product)
    built, schedule = rigl(model, optimizer, second_moment="keep_mean")
    train(model, built, schedule, 3)
    before = pol.masks(model)
    squares = [built.state[leaf]["exp_avg_sq"].clone() for leaf in leaves(model)]
    train(model, built, schedule, 1)
    now = pol.masks(model)[FIRST]
    born, kept = now & ~before[FIRST], now & before[FIRST]
    assert born.any()
    for leaf, square in zip(leaves(model), squares, strict=True):
        state = built.state[leaf]
        assert torch.equal(state["exp_avg_sq"][kept], square[kept])
        mean = float(square[kept].double().mean())
        assert state["exp_avg_sq"][born].tolist() == pytest.approx([mean] * int(born.sum()))
        assert not state["exp_avg"][born].any()
        assert not state["exp_avg_sq"][~now].any()


def test_entries_that_were_ever_live_are_counted() -> None:
    model = masked()
    sgd, schedule = rigl(model, every=2)
    ever = pol.masks(model)
    assert schedule.explored() == schedule.density()

    def note(report: Any) -> None:
        for name, mask in pol.masks(model).items():
            ever[name] |= mask

    train(model, sgd, schedule, 30, after_step=note)
    assert schedule.explored() == sum(int(each.sum()) for each in ever.values()) / 160
    assert schedule.explored() > schedule.density() + 0.1


def test_a_dense_weight_stays_dense() -> None:
    model = pol.load_masks(masked(), {FIRST: torch.ones(10, 12)})
    sgd, schedule = rigl(model)
    train(model, sgd, schedule, 9)
    assert counts(model)[FIRST] == 120
    assert schedule.report[FIRST].grown == 0


def test_values_that_others_write_outside_the_mask_do_not_grow() -> None:
    """Some optimizers (Muon) write to every entry: what is newborn is zero all the same."""
    model = masked()
    sgd, schedule = rigl(model)

    def write() -> None:
        with torch.no_grad():
            leaves(model)[0].add_(0.01 * ~pol.masks(model)[FIRST])

    before = pol.masks(model)

    def check(report: Any) -> None:
        nonlocal before
        now = pol.masks(model)
        if report:
            assert not effective(model)[FIRST][now[FIRST] & ~before[FIRST]].any()
        before = now
        write()

    train(model, sgd, schedule, 8, after_step=check)


def test_random_ties_depend_on_the_seed_alone() -> None:
    results = []
    for seed in (0, 0, 1):
        model = pol.load_masks(masked(), {FIRST: torch.arange(120).view(10, 12) % 2})
        with torch.no_grad():
            model[0].weight = torch.ones(10, 12)
        generator = torch.Generator().manual_seed(seed)
        sgd, schedule = rigl(model, every=1, ties="random", generator=generator)
        x, y = next(batches())
        torch.manual_seed(len(results))
        cross_entropy(model(x), y).backward()
        sgd.step()
        schedule.step()
        results.append(pol.masks(model)[FIRST])
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])
