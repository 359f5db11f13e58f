"""Every method on plain, masked and Sign-In models under SGD with momentum, Adam and AdamW."""

from typing import Any

import pytest
import torch
from torch import nn, optim
from torch.nn.functional import cross_entropy

import polarity as pol
from polarity.dense_to_sparse import (
    ACDC,
    extract_soft_mask,
    find_decay,
    soft_density,
    soft_mask,
    threshold_report,
    threshold_weights,
    weights_before_threshold,
)
from tests.dense_to_sparse.cases import (
    EVERY_FORM,
    EVERY_OPTIMIZER,
    FIRST,
    LAST,
    OPTIMIZERS,
    PRODUCT,
    batches,
    effective,
    in_form,
    leaves,
    masked,
    network,
    train,
)
from tests.dense_to_sparse.test_schedule import SCHEDULES


@EVERY_FORM
@EVERY_OPTIMIZER
def test_what_acdc_prunes_re_enters_at_zero_with_zero_state_and_moves(
    form: str, optimizer: str
) -> None:
    model = in_form(form)[0]
    model[1] = nn.Tanh()  # behind a dead unit nothing moves
    built = OPTIMIZERS[optimizer](model.parameters())
    schedule = ACDC(model, built, density=0.25, switches=(10, 20))
    train(model, built, schedule, 20)
    outside = {name: ~mask for name, mask in pol.masks(model).items()}
    assert sum(int(each.sum()) for each in outside.values()) == 120
    schedule.switch()
    for layer, name in ((0, FIRST), (2, LAST)):
        assert not effective(model)[name][outside[name]].any()
        for leaf in leaves(model, layer):
            assert not any(value.any() for value in built.state[leaf].values())
    train(model, built, schedule, 50)
    for name, each in outside.items():
        assert effective(model)[name][each].all(), "an entry did not move in 50 dense steps"


@EVERY_FORM
@EVERY_OPTIMIZER
def test_soft_thresholds_train_with_weights_under_any_optimizer(form: str, optimizer: str) -> None:
    """With Adam the thresholds have an SGD of their own. Extraction ends with the same network."""
    model = in_form(form)[0]
    built = OPTIMIZERS[optimizer](model.parameters())
    if optimizer == "sgd":
        s = threshold_weights(model, built, decay=0.01, s0=-3.0)
        every = [built]
    else:
        s = threshold_weights(model, None, decay=0.01, s0=-3.0)
        every = [built, optim.SGD(s.values(), lr=0.1, momentum=0.9, weight_decay=0.01)]
    before = weights_before_threshold(model)
    for _, (x, y) in zip(range(50), batches(), strict=False):
        for each in every:
            each.zero_grad()
        cross_entropy(model(x), y).backward()
        for each in every:
            each.step()
    for name, p in s.items():
        assert abs(p.item() + 3.0) > 0.01
        live = soft_mask(model)[name]
        assert 0 < int(live.sum()) < int(pol.masks(model)[name].sum())
        moved = (weights_before_threshold(model)[name] != before[name])[live]
        assert moved.float().mean() > 0.7  # not before units that nothing reads
    seen, density = model(x), soft_density(model)
    extract_soft_mask(model, every)
    torch.testing.assert_close(model(x), seen)
    assert pol.density(model) == density


@PRODUCT
def test_the_search_for_a_decay_ends_at_the_density_by_whole_runs(product: bool) -> None:
    made = []

    def run(decay: float) -> float:
        model = masked(1.0, product=product)
        sgd = OPTIMIZERS["sgd"](model.parameters())
        threshold_weights(model, sgd, decay=decay, s0=-5.0)
        for _, (x, y) in zip(range(60), batches(), strict=False):
            sgd.zero_grad()
            cross_entropy(model(x), y).backward()
            sgd.step()
        made.append(soft_density(model))
        return made[-1]

    search = find_decay(run, 0.5, tolerance=0.05, runs=8, between=(1e-3, 0.3))
    assert search.found
    assert search.density == made[-1]
    assert run(search.decay) == search.density
    assert [density for _, density in search.runs] == made[:-1]


@pytest.mark.parametrize("kind", SCHEDULES)
def test_every_update_has_a_report_with_the_density_of_each_layer(kind: str) -> None:
    model = masked()
    sgd = OPTIMIZERS["sgd"](model.parameters())
    schedule = SCHEDULES[kind](model, sgd)
    reports = [each for each in train(model, sgd, schedule, 9) if each]
    assert len(reports) > 2
    for report in reports:
        lines = str(report).splitlines()
        assert lines[0].split() == ["weight", "shape", "live", "dropped", "grown", "density"]
        assert [line.split()[0] for line in lines[2:5]] == [FIRST, LAST, "total"]
        assert lines[5] == f"step {report.step}: {report.what}"
    assert report is schedule.report
    final = {name: int(mask.sum()) for name, mask in pol.masks(model).items()}
    if report.what != "dense":
        assert {row.name: row.survivors for row in report} == final


def test_thresholds_have_a_table_with_the_density_of_each_layer() -> None:
    model = network()
    threshold_weights(model, None, decay=0.1, s0=-2.0)
    lines = str(threshold_report(model)).splitlines()
    assert [line.split()[0] for line in lines[2:]] == [FIRST, LAST, "total"]
    for line, mask in zip(lines[2:], soft_mask(model).values(), strict=False):
        assert line.split()[-1] == f"{float(mask.float().mean()):.4f}"


def moments(built: Any, leaf: nn.Parameter) -> list[torch.Tensor]:
    return [value for value in built.state[leaf].values() if value.dim()]


@EVERY_FORM
@EVERY_OPTIMIZER
def test_what_is_pruned_gradually_loses_value_and_state_for_good(form: str, optimizer: str) -> None:
    model = in_form(form)[0]
    built = OPTIMIZERS[optimizer](model.parameters())
    schedule = SCHEDULES["gradual"](model, built)
    train(model, built, schedule, 9)
    outside = {name: ~mask for name, mask in pol.masks(model).items()}
    train(model, built, schedule, 50)
    assert sum(int(each.sum()) for each in outside.values()) == 144
    for layer, name in ((0, FIRST), (2, LAST)):
        assert torch.equal(~pol.masks(model)[name], outside[name])
        for leaf in leaves(model, layer):
            assert not leaf[outside[name]].any()
            assert not any(each[outside[name]].any() for each in moments(built, leaf))
