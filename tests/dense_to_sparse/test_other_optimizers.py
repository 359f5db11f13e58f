"""Schedules under optimizers that call, skip or repeat their steps in ways of their own."""

from typing import Any

import pytest
import torch
from torch import nn, optim
from torch.nn.functional import cross_entropy

from polarity.dense_to_sparse import RigL
from tests.dense_to_sparse.cases import (
    LAST,
    OPTIMIZERS,
    PRODUCT,
    batches,
    effective,
    masked,
    masking,
    rigl,
    train,
)
from tests.dense_to_sparse.test_schedule import SCHEDULES

EVERY = pytest.mark.parametrize("kind", SCHEDULES)


def live(model: nn.Module) -> int:
    return sum(int(weight.count_nonzero()) for weight in effective(model).values())


OTHERS: dict[str, Any] = {
    "adam, foreach": lambda p: optim.Adam(p, 0.01, foreach=True),
    "adam, fused": lambda p: optim.Adam(p, 0.01, fused=True),
    "adamw, amsgrad": lambda p: optim.AdamW(p, 0.01, amsgrad=True),
    "sgd, nesterov": lambda p: optim.SGD(p, 0.01, momentum=0.9, nesterov=True, weight_decay=0.1),
    "rmsprop": lambda p: optim.RMSprop(p, 0.001, centered=True, momentum=0.9),
    "nadam": lambda p: optim.NAdam(p, 0.01),
    "adafactor": lambda p: optim.Adafactor(p, 0.01),
    "adagrad": lambda p: optim.Adagrad(p, 0.01),
    "rate as tensor": lambda p: optim.Adam(p, torch.tensor(0.01)),
}


@EVERY
@PRODUCT
@pytest.mark.parametrize("optimizer", OTHERS)
def test_every_optimizer_keeps_the_density(kind: str, product: bool, optimizer: str) -> None:
    model = masked(product=product)
    built = OTHERS[optimizer](list(model.parameters()))
    schedule = SCHEDULES[kind](model, built)
    counts = []

    def count() -> None:
        counts.append((live(model), round(schedule.density() * 160)))

    reports = train(model, built, schedule, 12, before_step=count)
    assert all(now <= expected for now, expected in counts)
    assert sum(each.dropped + each.grown for each in reports if each) > 10
    assert all(weight.isfinite().all() for weight in effective(model).values())


@PRODUCT
def test_lbfgs_calls_its_closure_often_and_the_update_is_made_once(product: bool) -> None:
    model = masked(product=product).double()
    built = optim.LBFGS(model.parameters(), lr=0.1, max_iter=4)
    schedule = RigL(model, built, every=3, end=40, fraction=0.5)
    grown = []
    for _, (x, y) in zip(range(9), batches(), strict=False):

        def closure(x: Any = x, y: Any = y) -> Any:
            built.zero_grad()
            loss = cross_entropy(model(x.double()), y)
            loss.backward()
            return loss

        built.step(closure)
        if (report := schedule.step()) is not None:
            grown.append((report.step, report.grown > 0))
    assert grown == [(3, True), (6, True), (9, True)]
    assert live(model) <= round(schedule.density() * 160)


@PRODUCT
def test_a_second_pass_of_sam_sees_the_density_after_collect(product: bool) -> None:
    """Its first step along dense gradients would move pruned entries."""
    model = masked(product=product)
    sgd, schedule = rigl(model, every=3, replace_step=False)
    grown = 0
    for _, (x, y) in zip(range(12), batches(), strict=False):
        sgd.zero_grad()
        cross_entropy(model(x), y).backward()
        schedule.collect()
        moved = [(p, 0.05 * p.grad) for p in model.parameters()]
        with torch.no_grad():
            torch._foreach_add_([p for p, _ in moved], [step for _, step in moved])
        sgd.zero_grad()
        assert live(model) <= round(schedule.density() * 160)
        cross_entropy(model(x), y).backward()
        with torch.no_grad():
            torch._foreach_sub_([p for p, _ in moved], [step for _, step in moved])
        sgd.step()
        report = schedule.step()
        grown += report.grown if report else 0
    assert grown > 10


@pytest.mark.parametrize("rare", [0, 1])
@PRODUCT
def test_a_weight_whose_optimizer_left_out_the_update_keeps_its_mask(
    product: bool, rare: int
) -> None:
    """A GradScaler skips one of two optimizers by itself; of the first no step is counted then."""
    model = masked(product=product)
    built = [OPTIMIZERS["sgd"](model[place].parameters()) for place in (0, 2)]
    schedule = RigL(model, built, every=3, end=40, fraction=0.5)
    scaler = torch.amp.GradScaler("cpu", init_scale=16.0)
    reports = []
    for step, (x, y) in zip(range(1, 8), batches(), strict=False):
        model.zero_grad()
        scaler.scale(cross_entropy(model(x), y)).backward()
        if step == 3:
            model[2 * rare].bias.grad.fill_(torch.inf)
        for each in built:
            scaler.step(each)
        scaler.update(16.0)
        reports.append(schedule.step())
    made = [(place, each) for place, each in enumerate(reports, 1) if each]
    if rare == 0:
        assert [(place, each.step) for place, each in made] == [(4, 3), (7, 6)]
        assert all(row.grown > 0 for _, each in made for row in each)
    else:
        assert [(place, each.step) for place, each in made] == [(3, 3), (6, 6)]
        assert made[0][1].notes == (f"unchanged: {LAST} (no step found a gradient of it)",)
        assert [row.grown > 0 for row in made[0][1]] == [True, False]
        assert all(row.grown > 0 for row in made[1][1])
    assert masking(model, 0).enforce
    assert masking(model, 2).enforce
