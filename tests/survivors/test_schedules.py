"""Dense-to-sparse schedules: which of them need the dense form, and which train compact weights."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import polarity as pol
from polarity.dense_to_sparse import (
    ACDC,
    SET,
    GradualMagnitude,
    RigL,
    extract_soft_mask,
    threshold_weights,
)
from tests.models import mlp
from tests.survivors.cases import (
    FORMS,
    Run,
    compacted,
    equal_runs,
    is_compact,
    net,
    pair,
    same_tensors,
    sgd,
)

REMEDY = r"is compact and stores none of them, .* call expand\(model, optimizer=optimizer\) first"

NEED_DENSE: dict[str, Callable[[Run], Any]] = {
    "ACDC": lambda r: ACDC(r.model, r.optimizer, density=0.3, switches=(2, 4)),
    "SET": lambda r: SET(
        r.model, r.optimizer, every=2, fraction=0.3, generator=torch.Generator().manual_seed(0)
    ),
    "RigL": lambda r: RigL(r.model, r.optimizer, every=2, end=30, fraction=0.3),
    "threshold_weights": lambda r: threshold_weights(r.model, r.optimizer, decay=0.01),
}


@pytest.mark.parametrize("schedule", NEED_DENSE)
@pytest.mark.parametrize("form", FORMS)
def test_a_schedule_that_grows_entries_refuses_compact_weights(form: str, schedule: str) -> None:
    compact = pair(FORMS[form])[1]
    before = compact.model.state_dict()
    hooks = dict(compact.optimizer._optimizer_step_post_hooks)
    with pytest.raises(ValueError, match=f"{schedule} .*{REMEDY}"):
        NEED_DENSE[schedule](compact)
    assert same_tensors(before, compact.model.state_dict())
    assert is_compact(compact.model)
    assert hooks == dict(compact.optimizer._optimizer_step_post_hooks)
    compact.train(1)
    pol.expand(compact.model, optimizer=compact.optimizer)
    NEED_DENSE[schedule](compact)
    compact.train(1)


@pytest.mark.parametrize("schedule", ["SET", "RigL"])
@pytest.mark.parametrize("form", FORMS)
def test_weights_compacted_after_a_schedule_was_made_are_refused_at_its_step(
    form: str, schedule: str
) -> None:
    model = net(FORMS[form])
    run = Run(model, sgd(model))
    made = NEED_DENSE[schedule](run)
    run.train(1)
    if schedule == "RigL":  # the next step is an update: its masks are open, and wait for it
        made.step()
        with pytest.raises(ValueError, match="is remembered, not enforced"):
            compacted(model, run.optimizer)
        run.train(1), made.step()
    compacted(model, run.optimizer)
    run.train(1)
    before = model.state_dict()
    with pytest.raises(ValueError, match=f"{schedule} .*{REMEDY}"):
        made.step()
    with pytest.raises(ValueError, match=f"{schedule} .*{REMEDY}"):
        made.load_state_dict(made.state_dict())
    assert same_tensors(before, model.state_dict())
    pol.expand(model, optimizer=run.optimizer)
    for _ in range(4):
        made.step()
        run.train(1)
    assert made.report is not None


@pytest.mark.parametrize("form", FORMS)
def test_acdc_refuses_the_switch_to_a_dense_phase_and_not_what_follows_the_last_one(
    form: str,
) -> None:
    model = net(FORMS[form], density=1.0)
    run = Run(model, sgd(model))
    schedule = ACDC(model, run.optimizer, density=0.3, switches=(1, 3, 4))

    def train(steps: int) -> None:
        for _ in range(steps):
            run.train(1)
            schedule.step()

    train(1)
    with pytest.raises(ValueError, match="is remembered, not enforced"):
        compacted(model, run.optimizer)
    train(1)
    compacted(model, run.optimizer)
    train(1)
    with pytest.raises(ValueError, match=f"ACDC .*{REMEDY}"):
        run.train(1)
    with pytest.raises(ValueError, match=f"ACDC .*{REMEDY}"):
        schedule.load_state_dict(schedule.state_dict() | {"sparse": False})
    pol.expand(model, optimizer=run.optimizer)
    train(2)
    assert schedule.density() == pytest.approx(0.3, abs=0.01)
    compacted(model, run.optimizer)
    train(3)
    assert is_compact(model)


@pytest.mark.parametrize("moment", ["before the schedule", "after some steps"])
@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("form", FORMS)
def test_gradual_pruning_shrinks_compact_weights_and_their_state(
    form: str, scope: Any, moment: str
) -> None:
    runs = []
    for compact in (False, True):
        model = net(FORMS[form], density=0.9)
        run = Run(model, sgd(model)).train(1)
        if compact and moment == "before the schedule":
            compacted(model, run.optimizer)
        schedule = GradualMagnitude(
            model, run.optimizer, density=0.2, begin=0, end=6, every=2, initial=0.9, scope=scope
        )
        for step in range(8):
            if compact and step == 3 and moment == "after some steps":
                compacted(model, run.optimizer)
            run.train(1)
            schedule.step()
        runs.append((run, schedule))
    (masked, one), (compact_run, other) = runs
    assert is_compact(compact_run.model)
    assert one.density() == other.density() < 0.25
    assert str(one.report) == str(other.report)
    assert same_tensors(pol.masks(masked.model), pol.masks(compact_run.model))
    for name, value in masked.model.state_dict().items():
        torch.testing.assert_close(
            compact_run.model.state_dict()[name], value, rtol=1e-4, atol=1e-6
        )


def test_one_step_of_gradual_pruning_gives_the_bits_of_a_masked_model() -> None:
    runs = pair()
    for run in runs:
        schedule = GradualMagnitude(
            run.model, run.optimizer, density=0.2, begin=0, end=2, every=1, initial=0.3
        )
        run.optimizer.zero_grad()
        for group in run.optimizer.param_groups:
            group["lr"] = 0.0
        run.optimizer.step()
        assert schedule.step() is not None
    equal_runs(*runs)


def test_soft_thresholds_are_extracted_before_compacting() -> None:
    model = mlp(6, 8, 3)
    run = Run(model, sgd(model))
    threshold_weights(model, run.optimizer, decay=0.0, s0=-1.0)
    run.train(2)
    with pytest.raises(ValueError, match="is also parametrized by SoftThreshold"):
        compacted(model, run.optimizer)
    extract_soft_mask(model, run.optimizer)
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    before = model(x)
    compacted(model, run.optimizer)
    torch.testing.assert_close(model(x), before)
    run.train(2)
    assert is_compact(model)
