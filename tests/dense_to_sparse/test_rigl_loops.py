"""RigL in all kinds of loops: clipped, accumulated, closed, with several optimizers."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.parametrize import register_parametrization

import polarity as pol
from polarity.dense_to_sparse import SET, RigL
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
    rigl,
    train,
)


@PRODUCT
def test_clipping_after_collect_sees_the_masked_gradients(product: bool) -> None:
    """The norm of an update step after collect() is that of a model without a schedule."""
    norms: dict[str, float] = {}
    for what in ("no update", "collected", "too early"):
        model = masked(product=product)
        every = 100 if what == "no update" else 1
        sgd, schedule = rigl(model, every=every, end=101, replace_step=False)
        x, y = next(batches())
        cross_entropy(model(x), y).backward()
        if what == "collected":
            schedule.collect()
        norms[what] = float(nn.utils.clip_grad_norm_(model.parameters(), 0.1))
        sgd.step()
        schedule.step()
        if what == "collected":
            clipped = effective(model)
    assert norms["collected"] == pytest.approx(norms["no update"], rel=1e-6)
    assert norms["too early"] > 1.05 * norms["no update"]
    assert clipped[FIRST].any()


@pytest.mark.parametrize("order", ["collect first", "clip first"])
def test_growth_does_not_depend_on_clipping(order: str) -> None:
    """Clipping multiplies all gradients by one number: the same entries are the largest."""
    masks = []
    for clip in (False, True):
        model = masked()
        sgd, schedule = rigl(model, every=2)

        def before_step(
            model: nn.Module = model, schedule: RigL = schedule, clip: bool = clip
        ) -> None:
            if order == "collect first":
                schedule.collect()
            if clip:
                nn.utils.clip_grad_norm_(model.parameters(), 1e3)

        train(model, sgd, schedule, 20, before_step=before_step)
        masks.append(pol.masks(model))
    assert all(torch.equal(masks[0][name], masks[1][name]) for name in masks[0])


def test_collect_does_nothing_before_other_steps() -> None:
    model = masked()
    _, schedule = rigl(model)
    x, y = next(batches())
    cross_entropy(model(x), y).backward()
    before = [p.grad.clone() for p in model.parameters()]
    schedule.collect()
    assert all(torch.equal(p.grad, b) for p, b in zip(model.parameters(), before, strict=True))


@PRODUCT
def test_accumulated_gradients_decide_as_one_large_batch_does(product: bool) -> None:
    masks = []
    for parts in (1, 3):
        model = masked(product=product).double()
        sgd, schedule = rigl(model, every=3)
        data = batches()
        for _ in range(12):
            sgd.zero_grad()
            x, y = next(data)
            for i in range(parts):
                some = slice(i * 6 // parts, (i + 1) * 6 // parts)
                (cross_entropy(model(x[some].double()), y[some]) / parts).backward()
            sgd.step()
            schedule.step()
        masks.append(pol.masks(model))
    assert all(torch.equal(masks[0][name], masks[1][name]) for name in masks[0])


@PRODUCT
def test_masks_in_the_step_train_as_masks_in_forward(product: bool) -> None:
    """pol.enforce_in_step lifts its gradient hook while the schedule needs dense gradients."""
    models = []
    for in_step in (False, True):
        model = masked(product=product)
        sgd = OPTIMIZERS["sgd"](model.parameters())
        if in_step:
            pol.enforce_in_step(model, sgd)
        schedule = RigL(model, sgd, every=3, end=30, fraction=0.5)
        reports = train(model, sgd, schedule, 25)
        assert sum(each.grown for each in reports if each) > 10
        models.append(model)
    assert_alike(*models)


@PRODUCT
def test_several_optimizers_share_an_update(product: bool) -> None:
    models = []
    for several in (False, True):
        model = masked(product=product)
        parts = [model[0].parameters(), model[2].parameters()]
        if several:
            built = [OPTIMIZERS["sgd"](list(each)) for each in parts]
        else:
            built = [OPTIMIZERS["sgd"](model.parameters())]
        schedule = RigL(model, built, every=3, end=30, fraction=0.5)
        for _, (x, y) in zip(range(20), batches(), strict=False):
            model.zero_grad()
            cross_entropy(model(x), y).backward()
            for each in built:
                each.step()
            schedule.step()
        models.append(model)
    assert_alike(*models)


@pytest.mark.parametrize("replace_step", [True, False])
def test_a_gradient_that_is_not_finite_is_an_error_that_changes_nothing(replace_step: bool) -> None:
    model = masked()
    sgd, schedule = rigl(model, replace_step=replace_step)
    train(model, sgd, schedule, 3)
    x, y = next(batches())
    sgd.zero_grad()
    (cross_entropy(model(x), y) * torch.nan).backward()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"gradient of '0\.weight' holds \d+ NaN"):
        sgd.step()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert schedule.step() is None
    train(model, sgd, schedule, 1)
    assert schedule.report.step == 4


@PRODUCT
@pytest.mark.parametrize("replace_step", [True, False])
@pytest.mark.parametrize("how", ["positional", "keyword"])
def test_a_closure_trains_as_backward_before_the_step_does(
    how: str, replace_step: bool, product: bool
) -> None:
    """Lightning passes one to every step."""
    models = []
    for closed in (False, True):
        model = masked(product=product)
        sgd, schedule = rigl(model, every=3, replace_step=replace_step)
        for _, (x, y) in zip(range(14), batches(), strict=False):

            def closure(model: nn.Module = model, sgd: Any = sgd, x: Any = x, y: Any = y) -> Any:
                sgd.zero_grad()
                loss = cross_entropy(model(x), y)
                loss.backward()
                return loss

            if not closed:
                closure()
                sgd.step()
            elif how == "keyword":
                assert sgd.step(closure=closure) > 0
            else:
                assert sgd.step(closure) > 0
            schedule.step()
        models.append(model)
    assert_alike(*models)
    assert not torch.equal(pol.masks(models[0])[FIRST], pol.masks(masked())[FIRST])


def test_calls_between_micro_batches_change_nothing() -> None:
    """A callback may call step() after every batch, also where gradients only accumulate."""
    models = []
    for often in (False, True):
        model = masked()
        sgd, schedule = rigl(model, every=2)
        for step, (x, y) in zip(range(24), batches(), strict=False):
            cross_entropy(model(x), y).backward()
            if step % 3 == 2:
                sgd.step()
                sgd.zero_grad()
            if often or step % 3 == 2:
                schedule.step()
        models.append(model)
    assert_alike(*models)


def test_a_mask_changed_before_an_update_is_an_error_with_a_remedy() -> None:
    model = masked()
    sgd, schedule = rigl(model, every=1)
    pol.load_masks(model, pol.masks(model))
    x, y = next(batches())
    cross_entropy(model(x), y).backward()
    with pytest.raises(RuntimeError, match="load_state_dict"):
        sgd.step()
    schedule.load_state_dict(schedule.state_dict())
    sgd.zero_grad()
    cross_entropy(model(x), y).backward()
    sgd.step()
    assert schedule.step().grown > 0


def test_a_weight_without_a_gradient_keeps_its_mask_and_is_reported() -> None:
    model = masked()
    sgd, schedule = rigl(model, begin=1, replace_step=False)
    before = pol.masks(model)
    model[0](torch.ones(2, 12)).square().sum().backward()  # the last layer has no part in it
    sgd.step()
    report = schedule.step()
    assert report.notes == ("unchanged: 2.weight (no step found a gradient of it)",)
    assert report[FIRST].grown > 0
    assert torch.equal(pol.masks(model)[LAST], before[LAST])
    assert masking(model, 2).enforce


@PRODUCT
def test_remove_applies_the_masks_and_ends_the_updates(product: bool) -> None:
    model = masked(product=product)
    sgd, schedule = rigl(model)
    train(model, sgd, schedule, 3)
    assert not masking(model).enforce
    masks = pol.masks(model)
    schedule.remove()
    schedule.remove()
    assert masking(model).enforce
    assert train(model, sgd, schedule, 9) == [None] * 9
    assert all(torch.equal(mask, masks[name]) for name, mask in pol.masks(model).items())
    outside = ~masks[FIRST]
    assert not any(leaf[outside].any() for leaf in leaves(model))


def test_other_weights_keep_their_masks() -> None:
    """A masked weight that the optimizer does not hold is left as it is."""
    model = masked()
    sgd = OPTIMIZERS["sgd"](model[0].parameters())
    schedule = RigL(model, sgd, every=2, end=10, fraction=0.5)
    before = pol.masks(model)
    reports = train(model, sgd, schedule, 8)
    assert torch.equal(pol.masks(model)[LAST], before[LAST])
    assert [row.name for row in reports[1]] == [FIRST]


def test_a_weight_with_a_further_parametrization_is_refused() -> None:
    class Halved(nn.Module):
        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return weight / 2

    model = masked()
    register_parametrization(model[2], "weight", Halved())
    with pytest.raises(ValueError, match=r"2\.weight is also parametrized by Halved"):
        rigl(model)


class WritesEverywhere(torch.optim.SGD):
    """Writes to every entry of every matrix, as Muon does."""

    def step(self, closure: Any = None) -> Any:
        loss = super().step(closure)
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    if parameter.dim() == 2:
                        parameter.add_(0.01)
        return loss


@pytest.mark.parametrize("kind", [RigL, SET])
@PRODUCT
def test_what_an_optimizer_writes_outside_the_masks_neither_shows_nor_grows(
    kind: Any, product: bool
) -> None:
    model = masked(product=product)
    built = WritesEverywhere(model.parameters(), 0.1)
    options = {"replace_step": False} if kind is RigL else {}
    schedule = kind(model, built, every=3, end=30, fraction=0.5, **options)
    before = pol.masks(model)
    born = 0
    for _, (x, y) in zip(range(12), batches(), strict=False):
        built.zero_grad()
        cross_entropy(model(x), y).backward()
        built.step()
        report = schedule.step()
        now = pol.masks(model)
        for name, weight in effective(model).items():
            assert not weight[~now[name]].any()
            if report is not None:
                fresh = now[name] & ~before[name]
                born += int(fresh.sum())
                assert not weight[fresh].any()
        before = now
    assert born > 10


@PRODUCT
def test_scores_of_a_skipped_step_are_forgotten(product: bool) -> None:
    """A batch that overflows in a bias alone: what was collected from it does not decide."""
    masks = []
    for overflows in (False, True):
        model = masked(product=product)
        sgd, schedule = rigl(model, every=2)
        scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
        others = batches(seed=77)
        for step, (x, y) in zip(range(1, 13), batches(), strict=False):
            attempts = [(x, y)] if not overflows or step % 2 else [next(others), (x, y)]
            for place, (inputs, labels) in enumerate(attempts, start=1):
                sgd.zero_grad()
                loss = cross_entropy(model(inputs), labels)
                if place < len(attempts):
                    loss = loss + model[0].bias.sum() * torch.inf
                scaler.scale(loss).backward()
                scaler.unscale_(sgd)
                schedule.collect()
                scaler.step(sgd)
                scaler.update(64.0)
                schedule.step()
        masks.append(pol.masks(model))
    assert all(torch.equal(masks[0][name], masks[1][name]) for name in masks[0])


@PRODUCT
def test_the_optimizer_of_an_update_step_finds_zeros_outside_the_masks(product: bool) -> None:
    """Not the root of beta in one factor: LAMB, for one, takes the norm of what is stored."""
    model = masked(product=product)
    sgd, schedule = rigl(model, every=2, replace_step=False)
    clean = []

    def look(*_: Any) -> None:
        outside = ~pol.masks(model)[FIRST]
        clean.append(not any(leaf[outside].any() for leaf in leaves(model)))
        clean.append(not any(leaf.grad[outside].any() for leaf in leaves(model)))

    sgd.register_step_pre_hook(look)  # after the schedule's own
    train(model, sgd, schedule, 6)
    assert clean == [True] * 12
