"""Every other public call on compact weights does what it does on masked ones."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

import polarity as pol
from polarity import deploy
from tests.models import redraw
from tests.norm_nets import NETS, X
from tests.survivors.cases import (
    FORMS,
    Run,
    adam,
    batch,
    compacted,
    conv_net,
    equal_runs,
    is_compact,
    leaves,
    net,
    pair,
    remembered,
    same_tensors,
    sgd,
    weights,
)


def loss_fn(output: Tensor, target: Tensor) -> Tensor:
    return (output - target).square().mean()


nn_mse = nn.MSELoss()


def error(network: nn.Module) -> float:
    x, y = batch(60)
    with torch.no_grad():
        return float(loss_fn(network(x), y))


def trained(network: nn.Module, seed: int) -> None:
    Run(network, sgd(network), steps=10 * seed).train(2)


def orthogonal(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.orthogonal_(module.weight)


def close(one: float, other: float) -> bool:
    return abs(one - other) <= 1e-4 * abs(one)


@pytest.mark.parametrize("form", FORMS)
def test_sharpness_error_barrier_and_stability_are_those_of_a_masked_model(form: str) -> None:
    masked, compact = pair(FORMS[form])
    ends = []
    for run in (masked, compact):
        x, y = batch(61)
        start = pol.RewindPoint.capture(net(FORMS[form]))
        ends.append([
            pol.sharpness(run.model, nn_mse, [(x, y)]),
            pol.error_barrier(run.model, start, run.model, error, points=3).barrier,
            pol.error_barrier(run.model, run.model.state_dict(), start.weights, error,
                              points=3).barrier,
            pol.sgd_noise_stability(run.model, trained, error, points=3).barrier,
        ])  # fmt: skip
    assert all(close(*each) for each in zip(*ends, strict=True))
    assert is_compact(compact.model)
    equal_runs(masked, compact)


@pytest.mark.parametrize("form", FORMS)
def test_batch_norm_is_recalibrated_as_in_a_masked_model(form: str) -> None:
    models = [conv_net(FORMS[form]), compacted(conv_net(FORMS[form]))]
    batches = [torch.randn(5, 2, 6, 6, generator=torch.Generator().manual_seed(i)) for i in (1, 2)]
    for model in models:
        pol.recalibrate_batch_norm(model, batches)
    for one, other in zip(*(m.state_dict().values() for m in models), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("form", FORMS)
def test_reinitialising_draws_and_writes_the_same_bits(form: str) -> None:
    masked, compact = pair(FORMS[form], steps=0)
    for run in (masked, compact):
        pol.reinitialize(run.model, generator=torch.Generator().manual_seed(7))
    equal_runs(masked, compact)
    for run in (masked, compact):
        torch.manual_seed(8)
        run.model[0].reset_parameters()
        pol.reinitialize(run.model, init=orthogonal)
    equal_runs(masked, compact)
    assert is_compact(compact.model)
    compact.train(2)


@pytest.mark.parametrize("form", FORMS)
def test_assigning_a_tensor_keeps_its_survivors(form: str) -> None:
    masked, compact = pair(FORMS[form])
    value = torch.randn(8, 6, generator=torch.Generator().manual_seed(3))
    for run in (masked, compact):
        run.model[0].weight = value
        with pytest.raises(ValueError, match=r"shape \(7, 6\), expected the layer's \(8, 6\)"):
            run.model[0].weight = value[:7]
        with pytest.raises(TypeError, match="no Parameter can replace it"):
            run.model[0].register_parameter("weight", nn.Parameter(value))
    equal_runs(masked, compact)
    compact.train(1)


def test_initialising_the_computed_weight_writes_nothing_as_with_masks() -> None:
    masked, compact = pair()
    for run in (masked, compact):
        assert nn.init.ones_(run.model[0].weight).shape == (8, 6)
        nn.init.kaiming_uniform_(run.model[0].weight)
    equal_runs(masked, compact)
    nn.init.constant_(compact.model[0].parametrizations.weight.original, 2.0)
    live = pol.masks(compact.model)["0.weight"]
    assert torch.equal(compact.model[0].weight.detach(), 2.0 * live)


def test_interpolated_norms_train_next_to_compact_weights() -> None:
    models = []
    for compact in (False, True):
        model = NETS["batch"]()
        redraw(model, 3)
        pol.imp_prune(model, density=0.5)
        pol.interpolate_norms(model, generator=torch.Generator().manual_seed(0))
        if compact:
            compacted(model)
        optimizer = sgd(model)
        for _ in range(3):
            optimizer.zero_grad()
            model(X).square().mean().backward()
            optimizer.step()
        pol.imp_prune(model, 0.2, optimizer=optimizer)
        models.append(model)
    assert pol.norm_alpha(models[0]) == pol.norm_alpha(models[1])
    for model in models:
        pol.merge(model)
    for one, other in zip(*(m.state_dict().values() for m in models), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_enforcement_in_the_step_skips_compact_weights(form: str) -> None:
    _masked, compact = pair(FORMS[form])
    handle = pol.enforce_in_step(compact.model, compact.optimizer)
    maskings = [m for m in compact.model.modules() if isinstance(m, pol.MaskedWeight)]
    assert all(m.in_step is None for m in maskings)
    compact.train(2), handle.project(), handle.remove()

    model = net(FORMS[form])
    pol.compact(model, targets="0.weight")
    run = Run(model, sgd(model))
    handle = pol.enforce_in_step(model, run.optimizer)
    in_step = [m.in_step is not None for m in model.modules() if isinstance(m, pol.MaskedWeight)]
    assert in_step == [False, True]
    run.train(2)
    for target in pol.find_targets(model).values():
        assert not bool(target.weight[~target.mask].any())
    pol.imp_prune(model, 0.3, optimizer=run.optimizer)
    run.train(2), handle.remove()


def test_compressing_asks_for_a_merge() -> None:
    compact = pair()[1]
    with pytest.raises(ValueError, match="merge"):
        deploy.compress(compact.model, batch(0)[0])
    deploy.compress(pol.merge(compact.model).eval(), batch(0)[0])


@pytest.mark.parametrize("optimizer", [sgd, adam], ids=["SGD", "Adam"])
@pytest.mark.parametrize("form", FORMS)
def test_merging_gives_dense_weights_and_dense_state_with_zeros(form: str, optimizer: Any) -> None:
    masked, compact = pair(FORMS[form], optimizer)
    outputs = [run.model(batch(3)[0]) for run in (masked, compact)]
    for run in (masked, compact):
        pol.merge(run.model, optimizer=run.optimizer)
    equal_runs(masked, compact)
    for parameter in compact.model.parameters():
        entries = [e for e in compact.optimizer.state[parameter].values() if torch.is_tensor(e)]
        assert all(e.shape == parameter.shape for e in entries if e.dim())
    torch.testing.assert_close(compact.model(batch(3)[0]), outputs[0])
    masked.train(2), compact.train(2)
    equal_runs(masked, compact)


def test_an_optimizer_that_merge_was_not_told_of_raises() -> None:
    compact = pair()[1]
    pol.merge(compact.model)
    with pytest.raises(RuntimeError, match="pass it optimizer=optimizer"):
        compact.train(1)


@pytest.mark.parametrize("form", FORMS)
def test_a_deepcopy_is_compact_and_apart(form: str) -> None:
    compact = pair(FORMS[form])[1]
    before = copy.deepcopy(compact.model.state_dict())
    twin = copy.deepcopy(compact.model)
    assert is_compact(twin)
    run = Run(twin, sgd(twin)).train(2)
    pol.imp_prune(twin, 0.3, optimizer=run.optimizer)
    run.train(1)
    pol.expand(twin)
    assert same_tensors(before, compact.model.state_dict())
    assert is_compact(compact.model)
    compact.train(1)


AVERAGES: dict[str, Callable[[nn.Module], AveragedModel]] = {
    "mean": lambda m: AveragedModel(m),
    "EMA": lambda m: AveragedModel(m, multi_avg_fn=get_ema_multi_avg_fn(0.5)),
    "EMA with buffers": lambda m: AveragedModel(
        m, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=True
    ),
}


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("form", FORMS)
def test_averages_of_compact_models_are_those_of_masked_ones(form: str, average: str) -> None:
    averages = []
    for run in pair(FORMS[form]):
        kept = AVERAGES[average](run.model)
        for _ in range(3):
            run.train(1)
            kept.update_parameters(run.model)
        pol.imp_prune(run.model, 0.3, optimizer=run.optimizer)
        pol.load_masks(kept.module, pol.masks(run.model))  # the average follows
        for _ in range(2):
            run.train(1)
            kept.update_parameters(run.model)
        update_bn([batch(1)[0]], kept)
        averages.append(kept)
    assert is_compact(averages[1].module)
    one, other = (weights(each.module) for each in averages)
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_gradients_accumulate_across_calls_that_keep_the_survivors(form: str) -> None:
    masked, compact = pair(FORMS[form])
    for run in (masked, compact):
        run.optimizer.zero_grad()
        for part in (1, 2):
            x, y = batch(part)
            loss_fn(run.model(x), y).backward()
            if part == 1:
                pol.RewindPoint.capture(run.model, run.optimizer)
                pol.masks(run.model), pol.density(run.model)
        run.optimizer.step()
    for one, other in zip(
        masked.model.state_dict().values(), compact.model.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_a_backward_pass_may_follow_a_call_that_was_made_after_forward(form: str) -> None:
    masked, compact = pair(FORMS[form])
    for run in (masked, compact):
        run.optimizer.zero_grad()
        x, y = batch(1)
        loss = loss_fn(run.model(x), y)
        pol.RewindPoint.capture(run.model, run.optimizer)
        loss.backward()
        run.optimizer.step()
    for one, other in zip(
        masked.model.state_dict().values(), compact.model.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_frozen_compact_weights_stay_and_are_pruned() -> None:
    masked, compact = pair()
    for run in (masked, compact):
        for parameter in run.model[0].parameters():
            parameter.requires_grad_(False)
        pol.imp_prune(run.model, 0.3, optimizer=run.optimizer)
    equal_runs(masked, compact)
    pol.expand(compact.model, optimizer=compact.optimizer)
    flags = [[p.requires_grad for p in run.model.parameters()] for run in (masked, compact)]
    assert flags[0] == flags[1]


@pytest.mark.parametrize("form", FORMS)
def test_hooks_on_parameters_stay(form: str) -> None:
    compact = pair(FORMS[form])[1]
    seen: list[torch.Size] = []
    for parameter, mask in leaves(compact.model).values():
        if mask is not None:
            parameter.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.shape))
            parameter.register_hook(lambda g: g * 1.0)
    compact.train(1)
    pol.imp_prune(compact.model, 0.3, optimizer=compact.optimizer)
    compact.train(1)
    pol.expand(compact.model, optimizer=compact.optimizer)
    compact.train(1)
    each = len(seen) // 3
    assert len(seen) == 3 * each > 0
    assert all(len(shape) == 1 for shape in seen[: 2 * each])
    assert all(len(shape) == 2 for shape in seen[2 * each :])
    assert remembered(compact)


def test_calls_in_inference_mode_leave_weights_that_train() -> None:
    masked, compact = pair()
    for run in (masked, compact):
        with torch.inference_mode():
            pol.imp_prune(run.model, 0.3, optimizer=run.optimizer)
    equal_runs(masked, compact)
    compact.train(1)
    with torch.inference_mode():
        pol.expand(compact.model, optimizer=compact.optimizer)
    compact.train(1)
