"""AC/DC: its calendars, its phases in every forward, and what a switch does."""

import copy
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import polarity as pol
from polarity.dense_to_sparse import ACDC, acdc_switches
from tests.dense_to_sparse.cases import (
    EVERY_FORM,
    EVERY_OPTIMIZER,
    FIRST,
    LAST,
    OPTIMIZERS,
    PRODUCT,
    assert_alike,
    batches,
    effective,
    in_form,
    leaves,
    masked,
    masking,
    network,
    train,
)

SWITCHES = (3, 6, 9, 12)  # dense 1-3, sparse 4-6, dense 7-9, sparse 10-12, dense from 13


def acdc(model: nn.Module, optimizer: str = "sgd", **options: Any) -> tuple[Any, ACDC]:
    built = OPTIMIZERS[optimizer](model.parameters())
    return built, ACDC(model, built, **({"density": 0.25, "switches": SWITCHES} | options))


def form_of(form: str) -> nn.Sequential:
    return in_form(form)[0]


def phases(switches: tuple[int, ...], epochs: int) -> str:
    """Return the phase of each epoch as a letter, for calendars of one step per epoch."""
    return "".join("DS"[sum(s <= epoch for s in switches) % 2] for epoch in range(epochs))


def test_the_calendar_of_imagenet_is_the_published_one() -> None:
    expected = "D" * 10 + ("S" * 5 + "D" * 5) * 6 + "S" * 5 + "D" * 10 + "S" * 15
    assert phases(acdc_switches("imagenet", 100), 100) == expected
    switches = acdc_switches("imagenet", 100 * 1251)  # batches of 1,024
    assert switches == tuple(1251 * each for each in (*range(10, 80, 5), 85))


def test_the_calendar_of_cifar_is_the_published_one() -> None:
    expected = "D" * 10 + ("S" * 20 + "D" * 20) * 4 + "S" * 30
    assert phases(acdc_switches("cifar10", 200), 200) == expected
    switches = acdc_switches("cifar10", 200 * 391)
    assert switches == tuple(391 * each for each in (10, 30, 50, 70, 90, 110, 130, 150, 170))


def test_a_shorter_run_has_the_same_fractions_of_each_phase() -> None:
    """30 epochs of 40 steps: dense for 3 epochs, phases of 1.5, the last from 25.5."""
    switches = acdc_switches("imagenet", 30 * 40)
    assert switches[:2] == (3 * 40, int(4.5 * 40))
    assert switches[-2:] == (int(22.5 * 40), int(25.5 * 40))
    assert {b - a for a, b in pairwise(switches[:-2])} == {60}


def test_fractions_of_a_step_are_rounded_to_the_nearest() -> None:
    """Of 1,170 steps 15 % are 175.5 and 25 % are 292.5."""
    assert acdc_switches("imagenet", 1170)[:4] == (117, 176, 234, 293)


def test_a_calendar_without_a_step_for_each_phase_is_refused() -> None:
    with pytest.raises(ValueError, match="steps=12"):
        acdc_switches("imagenet", 12)
    with pytest.raises(ValueError, match="name='cifar'"):
        acdc_switches("cifar", 200)  # type: ignore[arg-type]


@EVERY_FORM
@EVERY_OPTIMIZER
def test_every_forward_has_the_density_of_its_phase(form: str, optimizer: str) -> None:
    model = form_of(form)
    built, schedule = acdc(model, optimizer)
    live: list[int] = []
    model.register_forward_hook(
        lambda *_: live.append(sum(int((w != 0).sum()) for w in effective(model).values()))
    )
    densities = []
    train(model, built, schedule, 15, before_step=lambda: densities.append(schedule.density()))
    assert densities == [1.0] * 3 + [0.25] * 3 + [1.0] * 3 + [0.25] * 3 + [1.0] * 3
    assert all(count == 40 for count in live[3:6] + live[9:12])
    # Dense: all that was pruned re-enters at zero, and most of it moves in one step.
    assert live[6] == live[12] == 40
    assert live[7] > 80


def test_the_evaluation_after_a_phase_sees_the_network_that_was_trained() -> None:
    model = network()
    sgd, schedule = acdc(model)
    x = next(batches())[0]
    seen = []
    for steps in (3, 3, 3):
        train(model, sgd, schedule, steps)
        trained = effective(model)
        assert schedule.pending
        model.eval()
        with torch.no_grad():
            model(x)
        model(x)  # an evaluation that forgot no_grad
        model.train()
        with torch.no_grad():
            model(x)  # running statistics are computed like this
        assert all(torch.equal(effective(model)[name], trained[name]) for name in trained)
        seen.append(schedule.density())
    assert seen == [1.0, 0.25, 1.0]


def test_the_largest_magnitudes_of_all_layers_together_stay() -> None:
    model = network()
    sgd, schedule = acdc(model)
    train(model, sgd, schedule, 3)
    before = torch.cat([w.abs().reshape(-1) for w in effective(model).values()])
    schedule.switch()
    expected = torch.zeros(160, dtype=torch.bool)
    expected[before.argsort(descending=True, stable=True)[:40]] = True
    masks = torch.cat([mask.reshape(-1) for mask in pol.masks(model).values()])
    assert torch.equal(masks, expected)


def test_density_per_layer_is_an_option() -> None:
    model = network()
    sgd, schedule = acdc(model, scope="layer")
    train(model, sgd, schedule, 4)
    assert {n: int(m.sum()) for n, m in pol.masks(model).items()} == {FIRST: 30, LAST: 10}


@pytest.mark.parametrize("rescaled", [False, True])
@PRODUCT
def test_masks_change_from_one_sparse_phase_to_the_next(product: bool, rescaled: bool) -> None:
    """Factors left at zero would never grow: 0 of 140 entries came back, and masks stayed."""
    model = masked(1.0, product=product)
    sgd, schedule = acdc(model, switches=(20, 40, 60, 80), density=0.1)
    rescale = pol.RescaleSchedule(model, every=1, optimizer=sgd) if product and rescaled else None
    reports = train(
        model, sgd, schedule, 70, after_step=lambda _: rescale.step() if rescale else None
    )
    made = [each for each in reports if each is not None]
    assert [(each.step, each.what) for each in made] == [
        (20, "sparse"),
        (40, "dense"),
        (60, "sparse"),
    ]
    assert made[2].grown == made[2].dropped > 0
    assert made[2].density == 0.1
    assert made[1].grown == 144


@PRODUCT
def test_pruned_entries_re_enter_at_zero_and_grow(product: bool) -> None:
    model = masked(1.0, product=product)
    sgd, schedule = acdc(model, switches=(20, 40), density=0.1)
    train(model, sgd, schedule, 40)
    outside = ~pol.masks(model)[FIRST]
    assert not any(leaf[outside].any() for leaf in leaves(model))
    schedule.switch()
    assert not effective(model)[FIRST][outside].any()
    if product:
        m, v = leaves(model)
        assert torch.equal(m[outside], torch.ones_like(m[outside]))  # the root of beta = 1
        assert not v[outside].any()
    train(model, sgd, schedule, 20)
    assert int((effective(model)[FIRST][outside] != 0).sum()) > 0.8 * int(outside.sum())


@pytest.mark.parametrize("momentum", ["dense", "both", "keep"])
@EVERY_OPTIMIZER
def test_averages_of_all_parameters_are_zeroed_as_asked_for(momentum: Any, optimizer: str) -> None:
    model = masked(1.0)
    built, schedule = acdc(model, optimizer, momentum=momentum)
    for what in ("sparse", "dense"):
        train(model, built, schedule, 3)
        state = {
            name: {k: v.clone() for k, v in built.state[p].items()}
            for name, p in model.named_parameters()
        }
        schedule.switch()
        zeroed = momentum == "both" or momentum == what
        for name, p in model.named_parameters():
            for key, value in built.state[p].items():
                if zeroed:
                    assert not value.any(), f"{key} of {name} is not zero"
                elif name.endswith("bias"):
                    assert torch.equal(value, state[name][key])
        pruned = ~pol.masks(model)[FIRST]
        if what == "sparse":
            for value in built.state[leaves(model)[0]].values():
                assert value.dim() == 0 or not value[pruned].any()


@PRODUCT
def test_only_the_first_of_several_micro_batches_switches(product: bool) -> None:
    model = masked(1.0, product=product)
    sgd, schedule = acdc(model, switches=(1, 2))
    for (x, y), expected in zip(batches(), (1.0, 0.25, 1.0), strict=False):
        sgd.zero_grad()
        for part in (slice(0, 3), slice(3, 6)):
            (cross_entropy(model(x[part]), y[part]) / 2).backward()
            assert schedule.density() == expected
        sgd.step()
        schedule.step()


def test_a_copy_of_the_model_does_not_switch() -> None:
    model = network()
    sgd, schedule = acdc(model)
    train(model, sgd, schedule, 3)
    assert schedule.pending
    for other in (copy.deepcopy(model), model[0]):
        other(torch.ones(1, 12))
        assert schedule.pending
        assert masking(model).enforce is False
    model(torch.ones(1, 12))
    assert not schedule.pending


@PRODUCT
def test_masks_in_the_step_train_as_masks_in_forward(product: bool) -> None:
    models = []
    for in_step in (False, True):
        model = masked(1.0, product=product)
        sgd = OPTIMIZERS["sgd"](model.parameters())
        if in_step:
            pol.enforce_in_step(model, sgd)
        schedule = ACDC(model, sgd, density=0.25, switches=SWITCHES)
        train(model, sgd, schedule, 15)
        models.append(model)
    assert_alike(*models)


@PRODUCT
def test_a_closure_trains_as_backward_before_the_step_does(product: bool) -> None:
    """The switch is then made inside the optimizer's step, before it reads anything."""
    models = []
    for closed in (False, True):
        model = masked(1.0, product=product)
        sgd, schedule = acdc(model)
        for _, (x, y) in zip(range(14), batches(), strict=False):

            def closure(model: nn.Module = model, sgd: Any = sgd, x: Any = x, y: Any = y) -> Any:
                sgd.zero_grad()
                loss = cross_entropy(model(x), y)
                loss.backward()
                return loss

            if closed:
                sgd.step(closure)
            else:
                closure()
                sgd.step()
            schedule.step()
        models.append(model)
    for name, weight in effective(models[0]).items():
        assert torch.equal(effective(models[1])[name], weight)
    assert schedule.report.step == 12


def test_a_run_that_begins_sparse_prunes_before_its_first_step() -> None:
    model = network()
    sgd, schedule = acdc(model, switches=(0, 2))
    densities = []
    train(model, sgd, schedule, 3, before_step=lambda: densities.append(schedule.density()))
    assert densities == [0.25, 0.25, 1.0]


def test_remove_leaves_the_phase_as_it_is() -> None:
    model = network()
    sgd, schedule = acdc(model)
    train(model, sgd, schedule, 6)
    masks = pol.masks(model)
    schedule.remove()
    assert not schedule.pending
    assert train(model, sgd, schedule, 4) == [None] * 4
    assert pol.density(model) == 0.25
    assert all(torch.equal(mask, masks[name]) for name, mask in pol.masks(model).items())


def test_a_switch_that_fails_changes_nothing_and_stays_pending() -> None:
    model = network()
    sgd, schedule = acdc(model)
    train(model, sgd, schedule, 3)
    with torch.no_grad():
        leaves(model)[0][0, 0] = torch.nan
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match="NaN"):
        model(torch.ones(1, 12))
    after = model.state_dict()
    assert all(torch.equal(v.nan_to_num(7), after[n].nan_to_num(7)) for n, v in before.items())
    assert schedule.pending
    assert schedule.report is None


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"density": 1.5}, ["density=1.5"]),
        ({"switches": ()}, ["switches=()"]),
        ({"switches": (4, 4)}, ["switches=(4, 4)", "increase"]),
        ({"switches": (4, 5.0)}, ["switches[1]=5.0", "int"]),
        ({"switches": "imagenet"}, ["switches", "acdc_switches"]),
        ({"momentum": "zero"}, ["momentum='zero'", "'both'"]),
        ({"scope": "all"}, ["scope='all'"]),
        ({"ties": "first"}, ["ties='first'"]),
    ],
)
def test_bad_arguments_are_named_and_change_nothing(options: Any, parts: list[str]) -> None:
    model = network()
    with pytest.raises((TypeError, ValueError)) as raised:
        acdc(model, **options)
    assert not [part for part in parts if part not in str(raised.value)], raised.value
    assert not hasattr(model[0], "parametrizations")
    assert not model._forward_pre_hooks


def test_random_ties_come_from_the_seed_alone() -> None:
    results = []
    for seed in (0, 0, 1):
        model = network()
        with torch.no_grad():
            model[0].weight.fill_(1.0)
        generator = torch.Generator().manual_seed(seed)
        _, schedule = acdc(model, switches=(0, 2), ties="random", generator=generator)
        schedule.switch()
        results.append(pol.masks(model)[FIRST])
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])
