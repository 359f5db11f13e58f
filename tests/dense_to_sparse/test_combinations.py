"""Schedules and what else a loop has: tied, frozen and chosen weights, other optimizers."""

import copy
from typing import Any

import pytest
import torch
from torch import nn, optim
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

import polarity as pol
from polarity.dense_to_sparse import RigL
from tests.dense_to_sparse.cases import (
    FIRST,
    LAST,
    OPTIMIZERS,
    PRODUCT,
    assert_alike,
    batches,
    effective,
    leaves,
    masked,
    masking,
    network,
    rigl,
    snapshot,
    train,
)
from tests.dense_to_sparse.test_ddp import differences
from tests.dense_to_sparse.test_schedule import SCHEDULES
from tests.models import Twins, random_masks, seeded

EVERY = pytest.mark.parametrize("kind", SCHEDULES)


def scheduled(kind: str, model: nn.Module, optimizer: str = "sgd") -> tuple[Any, Any]:
    built = OPTIMIZERS[optimizer](model.parameters())
    return built, SCHEDULES[kind](model, built)


@EVERY
@PRODUCT
def test_a_tied_weight_has_one_mask_and_is_counted_once(kind: str, product: bool) -> None:
    model = seeded(Twins()).train()
    pol.load_masks(model, random_masks(model, 0.5))
    if product:
        pol.sign_in(model)
    sgd, schedule = scheduled(kind, model)
    weights = pol.find_targets(model)
    total = sum(target.shape.numel() for target in weights.values())
    changed = 0
    for _ in range(10):
        sgd.zero_grad()
        model(torch.randn(3, 5)).square().sum().backward()
        live = sum(int(target.weight.count_nonzero()) for target in weights.values())
        assert live <= round(schedule.density() * total)
        sgd.step()
        report = schedule.step()
        if report is not None:
            assert [row.name for row in report] == list(weights)
            changed += report.dropped + report.grown
    assert changed > 0
    assert model.first.weight is not None
    assert torch.equal(model.first.weight, model.second.weight)


@EVERY
@PRODUCT
def test_a_frozen_weight_keeps_values_and_mask_and_is_not_counted(kind: str, product: bool) -> None:
    model = masked(product=product)
    for leaf in leaves(model):
        leaf.requires_grad_(False)
    before = effective(model)[FIRST], pol.masks(model)[FIRST]
    sgd, schedule = scheduled(kind, model)
    reports = train(model, sgd, schedule, 10)
    assert torch.equal(effective(model)[FIRST], before[0])
    assert torch.equal(pol.masks(model)[FIRST], before[1])
    assert masking(model).enforce
    assert {row.name for report in reports if report for row in report} == {LAST}


@EVERY
def test_only_the_weights_that_were_masked_take_part(kind: str) -> None:
    model = network()
    pol.prune(model, pol.scores.random, density=0.4, targets=FIRST)
    sgd, schedule = scheduled(kind, model)
    train(model, sgd, schedule, 10)
    assert [row.name for row in schedule.report] == list(pol.masks(model)) == [FIRST]
    assert type(model[2]) is nn.Linear


@EVERY
@PRODUCT
def test_two_optimizers_train_as_one_does_in_either_order(kind: str, product: bool) -> None:
    models = []
    for order in ("one", "first, second", "second, first"):
        model = masked(product=product)
        parts = [list(model[0].parameters()), list(model[2].parameters())]
        built = [OPTIMIZERS["adam"](each) for each in parts]
        if order == "one":
            built = [OPTIMIZERS["adam"]([*parts[0], *parts[1]])]
        schedule = SCHEDULES[kind](model, built)
        for _, (x, y) in zip(range(10), batches(), strict=False):
            model.zero_grad()
            cross_entropy(model(x), y).backward()
            for each in built[::-1] if order == "second, first" else built:
                each.step()
            schedule.step()
        models.append(model)
    assert_alike(models[0], models[1])
    assert_alike(models[0], models[2])


@EVERY
@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_a_model_becomes_a_product_while_a_schedule_goes_on(kind: str, at: int) -> None:
    model = masked()
    sgd, schedule = scheduled(kind, model)
    train(model, sgd, schedule, at)
    model.eval()
    before = model(torch.ones(2, 12))
    pol.sign_in(model, optimizer=sgd)
    torch.testing.assert_close(model(torch.ones(2, 12)), before)
    model.train()
    counts = []

    def count() -> None:
        live = sum(int(weight.count_nonzero()) for weight in effective(model).values())
        counts.append((live, round(schedule.density() * 160)))

    reports = train(model, sgd, schedule, 10, before_step=count)
    assert all(live <= expected for live, expected in counts)
    assert sum(each.dropped + each.grown for each in reports if each) > 0


@EVERY
@PRODUCT
def test_looking_at_a_model_between_steps_changes_nothing(
    kind: str, product: bool, tmp_path: Any
) -> None:
    """Evaluation, copies, files, tickets and flips, also while masks are open."""
    runs = []
    for looks in (False, True):
        model = masked(product=product)
        sgd, schedule = scheduled(kind, model)
        tracker = pol.SignTracker(model)
        for step in range(10):
            train(model, sgd, schedule, 1, data=batches(step))
            if looks:
                tracker.step()
                pol.save(model, tmp_path / "model.safetensors")
                pol.RewindPoint.capture(model, sgd)
                pol.density(model), pol.masks(model), pol.signed_mask(model), schedule.density()
                plain = network()
                plain.load_state_dict(pol.dense_state_dict(model))
                with torch.no_grad():
                    for other in (copy.deepcopy(model), plain):
                        seen = model.eval()(torch.ones(2, 12))
                        assert torch.equal(other.eval()(torch.ones(2, 12)), seen)
                model.train()
        runs.append(snapshot(model, sgd, schedule))
    assert differences(*runs) == []


@EVERY
@PRODUCT
@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_trains_the_same(
    kind: str, product: bool, reentrant: bool
) -> None:
    """Its second forward pass, inside backward, sees the masks of the first."""

    class Whole(nn.Module):
        def __init__(self, model: nn.Module, recomputed: bool) -> None:
            super().__init__()
            self.model, self.recomputed = model, recomputed

        def forward(self, x: Any) -> Any:
            if self.recomputed:
                return checkpoint(self.model, x.requires_grad_(), use_reentrant=reentrant)
            return self.model(x)

    models = []
    for recomputed in (False, True):
        model = masked(product=product)
        whole = Whole(model, recomputed)
        sgd, schedule = scheduled(kind, whole)
        train(whole, sgd, schedule, 10)
        models.append(model)
    assert_alike(*models)


@EVERY
@PRODUCT
def test_micro_batches_with_a_call_after_each_count_the_steps_alone(
    kind: str, product: bool
) -> None:
    runs = []
    for often in (False, True):
        model = masked(product=product)
        sgd, schedule = scheduled(kind, model)
        for step, (x, y) in zip(range(20), batches(), strict=False):
            (cross_entropy(model(x), y) / 2).backward()
            if step % 2:
                sgd.step()
                sgd.zero_grad(set_to_none=False)
            if often or step % 2:
                schedule.step()
        assert schedule.state_dict()["step"] == 10
        runs.append(snapshot(model, sgd, schedule))
    assert differences(*runs) == []


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
        live = sum(int(weight.count_nonzero()) for weight in effective(model).values())
        counts.append((live, round(schedule.density() * 160)))

    reports = train(model, built, schedule, 12, before_step=count)
    assert all(live <= expected for live, expected in counts)
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
    live = sum(int(weight.count_nonzero()) for weight in effective(model).values())
    assert live <= round(schedule.density() * 160)


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
        live = sum(int(weight.count_nonzero()) for weight in effective(model).values())
        assert live <= round(schedule.density() * 160)
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
