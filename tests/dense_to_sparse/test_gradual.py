"""Gradual magnitude pruning: the cubic curve, exact counts, and what was pruned stays so."""

from typing import Any

import pytest
import torch
from torch import nn

import polarity as pol
from polarity.dense_to_sparse import GradualMagnitude
from tests.dense_to_sparse.cases import (
    FIRST,
    FORMS,
    LAST,
    OPTIMIZERS,
    effective,
    in_form,
    leaves,
    masked,
    network,
    train,
)


def gradual(model: nn.Module, optimizer: str = "sgd", **options: Any) -> tuple[Any, Any]:
    built = OPTIMIZERS[optimizer](model.parameters())
    settings = {"density": 0.1, "begin": 2, "end": 12, "every": 2} | options
    return built, GradualMagnitude(model, built, **settings)


def test_the_curve_is_the_cubic_one_of_zhu_and_gupta() -> None:
    """A published use: sparsity .05 to .90 over 40 epochs, here of 100 steps, every 5."""
    _, schedule = gradual(network(), density=0.10, initial=0.95, begin=100, end=4000, every=500)
    densities = [round(schedule.density_at(step), 6) for step in (0, 100, 600, 2100, 3600, 4000)]
    # 0.1 + 0.85 (1 - x)^3 at x = 0, 0, 500/3900, 2000/3900, 3500/3900 and 1
    assert densities == [0.95, 0.95, 0.663199, 0.198285, 0.100917, 0.1]
    _, even = gradual(network(), begin=0, end=10, every=1, power=1, density=0.5)
    assert even.density_at(5) == 0.75


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_counts_are_exact_at_every_step(form: str, optimizer: str) -> None:
    model = in_form(form, density=1.0)[0]
    built, schedule = gradual(model, optimizer)
    counts = []
    train(
        model,
        built,
        schedule,
        15,
        before_step=lambda: counts.append(
            sum(int((w != 0).sum()) for w in effective(model).values())
        ),
    )
    # round(160 (0.1 + 0.9 (1 - x)^3)) at x = 0, .2, .4, .6, .8, 1, each from the next step on
    curve = [160, 90, 47, 25, 17, 16]
    assert counts == [160, 160] + [each for each in curve for _ in (0, 1)] + [16]
    assert schedule.density() == pol.density(model) == 0.1
    assert schedule.report.step == 12


def test_the_last_pruning_is_made_at_the_end_whatever_the_period() -> None:
    model = network()
    sgd, schedule = gradual(model, every=7)
    reports = train(model, sgd, schedule, 15)
    assert [each.step for each in reports if each] == [2, 9, 12]
    assert schedule.density() == 0.1


@pytest.mark.parametrize("product", [False, True])
def test_what_is_pruned_is_zero_everywhere_and_stays_pruned(product: bool) -> None:
    model = masked(1.0, product=product)
    built, schedule = gradual(model, "adam")
    before = pol.masks(model)

    def check(report: Any) -> None:
        nonlocal before
        now = pol.masks(model)
        assert not any((now[name] & ~before[name]).any() for name in now)
        if report:
            assert report.grown == 0
            for layer, name in ((0, FIRST), (2, LAST)):
                for leaf in leaves(model, layer):
                    assert not leaf[~now[name]].any()
                    for value in built.state[leaf].values():
                        assert value.dim() == 0 or not value[~now[name]].any()
        before = now

    train(model, built, schedule, 15, after_step=check)


def test_scope_layer_gives_each_weight_the_density() -> None:
    model = network()
    sgd, schedule = gradual(model, scope="layer")
    train(model, sgd, schedule, 12)
    assert {n: int(m.sum()) for n, m in pol.masks(model).items()} == {FIRST: 12, LAST: 4}


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_a_sparser_model_waits_for_the_curve(scope: str) -> None:
    model = masked(0.3)
    masks = pol.masks(model)
    sgd, schedule = gradual(model, scope=scope)
    reports = train(model, sgd, schedule, 5)
    assert [each.dropped for each in reports if each] == [0, 0]
    assert all(torch.equal(mask, masks[name]) for name, mask in pol.masks(model).items())
    train(model, sgd, schedule, 10)
    assert schedule.density() == 0.1


def test_the_smallest_magnitudes_go() -> None:
    model = network()
    before = effective(model)
    still = torch.optim.SGD(model.parameters(), lr=0.0)
    schedule = GradualMagnitude(model, still, begin=0, end=2, every=2, density=0.5)
    train(model, still, schedule, 2)
    flat = torch.cat([w.abs().reshape(-1) for w in before.values()])
    expected = torch.zeros(160, dtype=torch.bool)
    expected[flat.argsort(descending=True, stable=True)[:80]] = True
    masks = torch.cat([mask.reshape(-1) for mask in pol.masks(model).values()])
    assert torch.equal(masks, expected)
    report = schedule.report
    assert (report.what, report.dropped, report.grown, report.survivors) == ("prune", 80, 0, 80)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"density": -0.1}, ["density=-0.1"]),
        ({"initial": 0.05}, ["density=0.1", "initial=0.05"]),
        ({"begin": -1}, ["begin=-1"]),
        ({"end": 2}, ["end=2", "begin=2"]),
        ({"end": 1}, ["end=1", "begin=2"]),
        ({"every": 0}, ["every=0"]),
        ({"every": 1.5}, ["every=1.5", "int"]),
        ({"power": 0}, ["power=0"]),
        ({"scope": "all"}, ["scope='all'"]),
        ({"ties": "first"}, ["ties='first'"]),
    ],
)
def test_bad_arguments_are_named_and_change_nothing(options: Any, parts: list[str]) -> None:
    model = network()
    with pytest.raises((TypeError, ValueError)) as raised:
        gradual(model, **options)
    assert not [part for part in parts if part not in str(raised.value)], raised.value
    assert not hasattr(model[0], "parametrizations")


def test_remove_ends_the_pruning() -> None:
    model = network()
    sgd, schedule = gradual(model)
    train(model, sgd, schedule, 4)
    density = schedule.density()
    schedule.remove()
    assert train(model, sgd, schedule, 10) == [None] * 10
    assert schedule.density() == density
