"""Schedules and what else a loop has: tied, frozen and chosen weights, other optimizers."""

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import prune
from torch.utils.checkpoint import checkpoint

import polarity as pol
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
from tests.forms import random_masks
from tests.models import Twins, seeded

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


@EVERY
def test_masks_of_torch_prune_are_taken_over(kind: str) -> None:
    models = []
    for theirs in (False, True):
        model, given = network(), masked()
        for layer, name in ((0, FIRST), (2, LAST)):
            mask = pol.masks(given)[name]
            if theirs:
                prune.custom_from_mask(model[layer], "weight", mask)
            else:
                pol.load_masks(model, {name: mask})
        sgd, schedule = scheduled(kind, model)
        train(model, sgd, schedule, 10)
        models.append(model)
    assert_alike(*models)
    assert not hasattr(model[0], "weight_orig")


def test_a_threshold_that_comes_after_rigl_is_refused_at_the_update() -> None:
    """Its gradient is zero outside the mask, so that growth would go by the index."""
    model = masked()
    sgd, schedule = rigl(model, every=4)
    train(model, sgd, schedule, 2)
    pol.dense_to_sparse.threshold_weights(model, sgd, decay=0.01)
    with pytest.raises(ValueError, match=r"0\.weight is also parametrized by SoftThreshold"):
        train(model, sgd, schedule, 2)
