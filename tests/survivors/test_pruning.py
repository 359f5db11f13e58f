"""Pruning, rewinding and masks: calls on compact weights give the bits that they give masked ones.

Both runs hold the same bits before the call, and nothing is trained after it.
"""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import polarity as pol
from tests.survivors.cases import (
    FORMS,
    Run,
    adam,
    batch,
    compacted,
    conv_net,
    equal_runs,
    is_compact,
    net,
    pair,
    same_tensors,
    sgd,
)


def batches() -> list[tuple[Tensor, Tensor]]:
    return [batch(50), batch(51)]


def loss_fn(output: Tensor, target: Tensor) -> Tensor:
    return (output - target).square().mean()


def initial() -> pol.RewindPoint:
    return pol.RewindPoint.capture(net())


def seed() -> torch.Generator:
    return torch.Generator().manual_seed(4)


# What weights are scored by, from the model itself: the effective weights are the same bits.
SCORES: dict[str, Callable[[nn.Module], Any]] = {
    "magnitude": lambda m: pol.scores.magnitude,
    "random": lambda m: pol.scores.random,
    "own function": lambda m: lambda name, weight: weight.square() + 1,
    "large, same sign": lambda m: pol.scores.large_final_same_sign(initial()),
    "large, other sign": lambda m: pol.scores.large_final_diff_sign(initial()),
    "increase": lambda m: pol.scores.magnitude_increase(initial()),
    "synflow": lambda m: pol.scores.synflow(m, batch(0)[0], density=0.25),
    "snip": lambda m: pol.scores.snip(m, loss_fn, batches()),
    "grasp": lambda m: pol.scores.grasp(m, loss_fn, batches()),
}
PRUNING: dict[str, Callable[[Run], Any]] = {
    "imp_prune": lambda r: pol.imp_prune(r.model, 0.3, optimizer=r.optimizer),
    "imp_prune to a density": lambda r: pol.imp_prune(r.model, density=0.2, optimizer=r.optimizer),
    "imp_prune by layer": lambda r: pol.imp_prune(
        r.model, 0.3, scope="layer", optimizer=r.optimizer
    ),
    "imp_prune, random ties": lambda r: pol.imp_prune(
        r.model, 0.3, ties="random", generator=seed(), optimizer=r.optimizer
    ),
    "imp_prune of one layer": lambda r: pol.imp_prune(
        r.model, 0.3, targets="0.weight", optimizer=r.optimizer
    ),
    "imp_prune of nothing": lambda r: pol.imp_prune(r.model, 0.0, optimizer=r.optimizer),
    "imp_prune of all": lambda r: pol.imp_prune(r.model, 1.0, optimizer=r.optimizer),
    "prune by layers": lambda r: pol.prune(
        r.model,
        pol.scores.magnitude,
        densities=dict.fromkeys(pol.masks(r.model), 0.2),
        optimizer=r.optimizer,
    ),
    "load_masks": lambda r: pol.load_masks(r.model, smaller(r.model)),
    "mask_weights": lambda r: pol.mask_weights(r.model, masks=smaller(r.model)),
    "mask_weights again": lambda r: pol.mask_weights(r.model),
    "empty masks": lambda r: pol.load_masks(
        r.model, {n: torch.zeros_like(m) for n, m in pol.masks(r.model).items()}
    ),
}


def smaller(model: nn.Module) -> dict[str, Tensor]:
    """Return the masks of a model without every second survivor of each."""
    masks = pol.masks(model)
    for mask in masks.values():
        mask.view(-1)[mask.view(-1).nonzero().view(-1)[::2]] = False
    return masks


def tied(model: nn.Module) -> None:
    """Give the weights a few magnitudes only."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear):
                module.weight = (
                    module.weight.sign() * (module.weight.abs() * 2).ceil() / 2
                ).clone()


@pytest.mark.parametrize("call", PRUNING)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("optimizer", [sgd, adam], ids=["SGD", "Adam"])
def test_pruning_gives_the_bits_of_a_masked_model(optimizer: Any, form: str, call: str) -> None:
    masked, compact = pair(FORMS[form], optimizer)
    if "ties" in call:
        tied(masked.model), tied(compact.model)
    if call in ("load_masks", "mask_weights", "empty masks"):  # which take no optimizer
        masked, compact = pair(FORMS[form], optimizer, steps=0)
    one, other = (PRUNING[call](run) for run in (masked, compact))
    assert str(one) == str(other) or isinstance(one, nn.Module)
    assert is_compact(compact.model)
    assert not is_compact(masked.model)
    if call in ("load_masks", "mask_weights", "empty masks"):
        assert same_tensors(masked.model.state_dict(), compact.model.state_dict())
    else:
        for run in (masked, compact):  # moments of pruned entries are gone in both
            run.optimizer.zero_grad()
        equal_runs(masked, compact)
    compact.train(2)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("form", FORMS)
def test_every_score_ranks_as_in_a_masked_model(form: str, scope: Any, score: str) -> None:
    masked, compact = pair(FORMS[form])
    for run in (masked, compact):
        torch.manual_seed(3)
        pol.prune(run.model, SCORES[score](run.model), 0.3, scope=scope, optimizer=run.optimizer)
    assert is_compact(compact.model)
    equal_runs(masked, compact)


@pytest.mark.parametrize("form", FORMS)
def test_scores_are_those_of_a_masked_model(form: str) -> None:
    masked, compact = pair(FORMS[form])
    for score in ("synflow", "snip", "grasp"):
        one, other = SCORES[score](masked.model), SCORES[score](compact.model)
        assert same_tensors(one, other)


@pytest.mark.parametrize("form", FORMS)
def test_masks_density_and_sparsity_are_those_of_a_masked_model(form: str) -> None:
    masked, compact = pair(FORMS[form])
    assert same_tensors(pol.masks(masked.model), pol.masks(compact.model))
    assert pol.density(masked.model) == pol.density(compact.model)
    assert pol.sparsity(masked.model) == pol.sparsity(compact.model)
    assert str(pol.find_targets(masked.model)) == str(pol.find_targets(compact.model))
    by_predicate = [
        list(pol.find_targets(run.model, lambda name, p: name.startswith("0")))
        for run in (masked, compact)
    ]
    assert by_predicate[0] == by_predicate[1]


@pytest.mark.parametrize("form", FORMS)
def test_masks_that_give_entries_back_need_the_dense_form(form: str) -> None:
    masked, compact = pair(FORMS[form])
    everything = {n: torch.ones_like(m) for n, m in pol.masks(masked.model).items()}
    before = copy.deepcopy(compact.model.state_dict())
    for call in (pol.load_masks, lambda m, masks: pol.mask_weights(m, masks=masks)):
        with pytest.raises(ValueError, match=r"expand\(model, optimizer=optimizer\) first"):
            call(compact.model, everything)
    assert same_tensors(before, compact.model.state_dict())
    assert is_compact(compact.model)
    pol.expand(compact.model, optimizer=compact.optimizer)
    pol.load_masks(compact.model, everything), pol.load_masks(masked.model, everything)
    equal_runs(masked, compact)


def captured(
    product: bool, optimizer: Any, first: int = 0
) -> tuple[Run, Run, list[pol.RewindPoint], list[Any]]:
    """Return two equal runs, points from before training, and their schedulers."""
    runs, points, schedulers = [], [], []
    for _ in range(2):
        model = net(product)
        run = Run(model, optimizer(model)).train(first)
        schedulers.append(torch.optim.lr_scheduler.StepLR(run.optimizer, 2, gamma=0.1))
        points.append(pol.RewindPoint.capture(model, run.optimizer, schedulers[-1]))
        for _ in range(3):
            run.train(1)
            schedulers[-1].step()
        runs.append(run)
    compacted(runs[1].model, runs[1].optimizer)
    return runs[0], runs[1], points, schedulers


@pytest.mark.parametrize("first", [0, 2], ids=["at the start", "with optimizer state"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("optimizer", [sgd, adam], ids=["SGD", "Adam"])
@pytest.mark.parametrize("call", [pol.imp_prune, pol.lrr_step])
def test_rewinding_a_compact_run_gives_the_bits_of_a_masked_one(
    call: Any, optimizer: Any, form: str, first: int
) -> None:
    masked, compact, points, schedulers = captured(FORMS[form], optimizer, first)
    reports = [
        call(run.model, 0.3, rewind=point, optimizer=run.optimizer, scheduler=scheduler)
        for run, point, scheduler in zip((masked, compact), points, schedulers, strict=True)
    ]
    assert str(reports[0]) == str(reports[1])
    assert is_compact(compact.model)
    equal_runs(masked, compact)
    assert schedulers[0].state_dict() == schedulers[1].state_dict()
    compact.train(1)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("only", ["all", "masked", "unmasked"])
def test_weights_are_restored_between_dense_and_compact_models(form: str, only: Any) -> None:
    masked, compact, points, _ = captured(FORMS[form], sgd)
    later = [pol.RewindPoint.capture(r.model, r.optimizer) for r in (masked, compact)]
    assert same_tensors(later[0].weights, later[1].weights)
    for point in (points[0], points[1]):
        for run in (masked, compact):
            point.restore_weights(run.model, only=only)
        equal_runs(masked, compact)
    for point in later:  # captured masked, and captured compact
        for run in (masked, compact):
            point.restore_weights(run.model, only=only)
        equal_runs(masked, compact)
    compact.train(1)


@pytest.mark.parametrize("optimizer", [sgd, adam], ids=["SGD", "Adam"])
def test_a_point_captured_from_a_compact_run_restores_a_masked_optimizer(optimizer: Any) -> None:
    masked, compact = pair(optimizer=optimizer)
    point = pol.RewindPoint.capture(compact.model, compact.optimizer)
    masked.train(2)
    point.restore_weights(masked.model)
    point.restore_schedule(masked.optimizer)
    equal_runs(masked, compact)


def test_a_schedule_alone_is_restored_into_the_dense_form() -> None:
    run = pair()[1]
    point = pol.RewindPoint.capture(run.model, run.optimizer)
    run.train(2)
    before = copy.deepcopy(run.optimizer.state_dict())
    with pytest.raises(ValueError, match="the weight is compact: pass imp_prune or lrr_step"):
        point.restore_schedule(run.optimizer)
    assert str(before) == str(run.optimizer.state_dict())
    pol.expand(run.model, optimizer=run.optimizer)
    point.restore_schedule(run.optimizer)
    compacted(run.model, run.optimizer).train()
    run.train(1)


def test_points_of_compact_runs_are_files_like_any_other(tmp_path: Any) -> None:
    masked, compact = pair()
    for run, name in ((masked, "masked"), (compact, "compact")):
        pol.RewindPoint.capture(run.model, run.optimizer).save(tmp_path / f"{name}.safetensors")
    one, other = (
        pol.RewindPoint.load(tmp_path / f"{n}.safetensors") for n in ("masked", "compact")
    )
    assert same_tensors(one.weights, other.weights)


@pytest.mark.parametrize("form", FORMS)
def test_convolutions_and_norms_are_pruned_and_rewound_alike(form: str) -> None:
    models = [conv_net(FORMS[form]).eval(), compacted(conv_net(FORMS[form])).eval()]
    x = torch.randn(3, 2, 6, 6, generator=seed())
    torch.testing.assert_close(models[0](x), models[1](x))
    start = pol.RewindPoint.capture(models[0])
    for model in models:
        pol.imp_prune(model, 0.4, rewind=start)
    assert same_tensors(models[0].state_dict(), models[1].state_dict())
