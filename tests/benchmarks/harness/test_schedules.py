"""Schedules against values worked out by hand and against torch's own schedulers."""

import pytest
import torch
from torch import nn

from benchmarks.harness.schedules import (
    SCHEDULES,
    constant,
    cosine,
    make_schedule,
    multistep,
    triangular,
)


def test_triangle_by_hand():
    factor = triangular(100)
    assert factor(0) == pytest.approx(0.2)
    assert factor(10) == pytest.approx(0.6)
    assert factor(20) == pytest.approx(1.0)
    assert factor(60) == pytest.approx(0.5)
    assert factor(99) == pytest.approx(1 / 80)
    assert factor(100) == 0


def test_triangle_with_other_corners():
    factor = triangular(10, start=0.0, peak_at=0.5, end=0.1)
    assert [factor(step) for step in (0, 1, 5, 10)] == pytest.approx([0, 0.2, 1, 0.1])


def test_triangle_without_a_warm_up_starts_at_its_peak():
    assert triangular(3)(0) == 1.0
    assert triangular(10, peak_at=0.0)(0) == 1.0


@pytest.mark.parametrize("steps", [5, 11, 64, 101])
def test_triangle_has_the_peak_rate_exactly_once(steps):
    factors = [triangular(steps)(step) for step in range(steps)]
    assert factors.count(max(factors)) == 1
    assert max(factors) == 1.0
    assert min(factors) > 0


def rates(factor, steps):
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.3)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    return follow(optimizer, scheduler, steps)


def follow(optimizer, scheduler, steps):
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_multistep_is_torchs():
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.3)
    theirs = torch.optim.lr_scheduler.MultiStepLR(optimizer, [10, 15], gamma=0.1)
    assert rates(multistep(20), 20) == pytest.approx(follow(optimizer, theirs, 20))


@pytest.mark.parametrize("end", [0.0, 0.001])
def test_cosine_is_torchs(end):
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.3)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 12, eta_min=0.3 * end)
    assert rates(cosine(12, end=end), 12) == pytest.approx(follow(optimizer, theirs, 12))


def test_constant():
    assert rates(constant(), 3) == [0.3, 0.3, 0.3]


def test_names():
    assert {name: make_schedule(name, 10)(0) for name in SCHEDULES} == pytest.approx(
        {"constant": 1.0, "triangular": 0.2, "multistep": 1.0, "cosine": 1.0}
    )
    assert make_schedule("cosine", 10, end=0.25)(10) == pytest.approx(0.25)


def test_refusals():
    with pytest.raises(ValueError, match="unknown schedule 'step'"):
        make_schedule("step", 10)
    with pytest.raises(ValueError, match="at least one step, not 0"):
        triangular(0)
    with pytest.raises(ValueError, match="peak_at"):
        triangular(10, peak_at=1.0)
