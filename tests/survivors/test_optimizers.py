"""Optimizers follow compact weights exactly: state, groups, learning rates and gradients."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, optim

import polarity as pol
from tests.survivors.cases import (
    EVERY,
    FORMS,
    Run,
    at_survivors,
    batch,
    compacted,
    equal_runs,
    leaves,
    net,
    other_survivors,
    pair,
    remembered,
    run_of,
    same_tensors,
    sgd,
)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("form", FORMS)
def test_state_is_gathered_and_scattered_bit_for_bit(form: str, name: str) -> None:
    run = run_of(name, FORMS[form])
    before, values = remembered(run), copy.deepcopy(run.model.state_dict())
    held = [id(p) for g in run.optimizer.param_groups for p in g["params"]]
    compacted(run.model, run.optimizer)
    counts = {n: int(mask.sum()) for n, mask in pol.masks(run.model).items()}
    for key, (parameter, mask) in leaves(run.model).items():
        assert parameter.shape == (parameter.shape if mask is None else (int(mask.sum()),)), key
        state = run.optimizer.state.get(parameter, {})
        entries = [e for e in state.values() if isinstance(e, Tensor) and e.dim() > 0]
        assert all(each.shape == parameter.shape for each in entries)
    assert counts == {n: int(mask.sum()) for n, mask in pol.masks(run.model).items()}
    assert same_tensors(before, remembered(run))
    assert held == [id(p) for g in run.optimizer.param_groups for p in g["params"]]

    pol.expand(run.model, optimizer=run.optimizer)
    assert same_tensors(before, remembered(run))
    for parameter, mask in leaves(run.model).values():
        for value in run.optimizer.state.get(parameter, {}).values():
            if mask is not None and isinstance(value, Tensor) and value.shape == mask.shape:
                assert not bool(value[mask == 0].any())
    now = run.model.state_dict()
    assert same_tensors(values, now)
    assert held == [id(p) for g in run.optimizer.param_groups for p in g["params"]]


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("form", FORMS)
def test_the_next_steps_are_those_of_masks(form: str, name: str) -> None:
    masked, compact = run_of(name, FORMS[form]), run_of(name, FORMS[form])
    compacted(compact.model, compact.optimizer)
    masked.train(5), compact.train(5)
    pol.expand(compact.model, optimizer=compact.optimizer)
    masked.train(3), compact.train(3)
    for key, value in masked.model.state_dict().items():
        torch.testing.assert_close(compact.model.state_dict()[key], value, rtol=1e-4, atol=1e-5)


def test_capturable_state_has_its_count_left_as_it_is() -> None:
    run = run_of("Adam", False)
    for group in run.optimizer.param_groups:
        group["capturable"] = True
    counts = [state["step"] for state in run.optimizer.state.values()]
    compacted(run.model, run.optimizer)
    assert all(a is s["step"] for a, s in zip(counts, run.optimizer.state.values(), strict=True))
    assert all(int(each) == 3 for each in counts)


def test_several_optimizers_follow_together_and_keep_their_groups() -> None:
    masked, compact = ([], [])
    for runs in (masked, compact):
        model = net()
        first, second = model[0], model[2]
        one = optim.SGD(
            [
                {"params": list(first.parametrizations.parameters()), "lr": 0.2, "momentum": 0.5},
                {"params": [first.bias], "weight_decay": 0.0},
            ],
            lr=0.1,
            momentum=0.9,
            weight_decay=0.1,
        )
        two = optim.AdamW(second.parameters(), lr=0.01)
        runs += [model, [one, two]]
    for model, optimizers in (masked, compact):
        for step in range(6):
            if step == 3 and model is compact[0]:
                compacted(model, optimizers)
            for each in optimizers:
                each.zero_grad()
            x, y = batch(step)
            (model(x) - y).square().mean().backward()
            for each in optimizers:
                each.step()
    groups = [
        [{k: v for k, v in g.items() if k != "params"} for o in runs[1] for g in o.param_groups]
        for runs in (masked, compact)
    ]
    assert groups[0] == groups[1]
    for key, value in masked[0].state_dict().items():
        torch.testing.assert_close(compact[0].state_dict()[key], value, rtol=1e-4, atol=1e-6)


SCHEDULERS: dict[str, Callable[[optim.Optimizer], Any]] = {
    "StepLR": lambda o: optim.lr_scheduler.StepLR(o, 2, gamma=0.5),
    "OneCycleLR": lambda o: optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=20),
    "cosine after warm-up": lambda o: optim.lr_scheduler.SequentialLR(
        o,
        [
            optim.lr_scheduler.LinearLR(o, 0.1, total_iters=3),
            optim.lr_scheduler.CosineAnnealingLR(o, 10),
        ],
        milestones=[3],
    ),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers_go_on(name: str) -> None:
    runs = []
    for compact in (False, True):
        model = net()
        run = Run(model, sgd(model))
        scheduler = SCHEDULERS[name](run.optimizer)
        rates = []
        for step in range(8):
            if compact and step == 4:
                compacted(model, run.optimizer)
            run.train(1)
            scheduler.step()
            rates.append([g["lr"] for g in run.optimizer.param_groups])
        runs.append((model, rates))
    assert runs[0][1] == runs[1][1]
    for key, value in runs[0][0].state_dict().items():
        torch.testing.assert_close(runs[1][0].state_dict()[key], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_gradients_are_none_after_compact_and_expand_and_carried_by_other_calls(form: str) -> None:
    masked, compact = pair(FORMS[form])
    for key, (parameter, mask) in leaves(compact.model).items():
        assert (parameter.grad is None) == (mask is not None), key
    masked.optimizer.zero_grad(), compact.optimizer.zero_grad()
    for run in (masked, compact):
        x, y = batch(7)
        (run.model(x) - y).square().mean().backward()
    pol.imp_prune(masked.model, 0.3), pol.imp_prune(compact.model, 0.3)
    for run in (masked, compact):
        x, y = batch(8)
        (run.model(x) - y).square().mean().backward()
    for (p, mask), (q, _) in zip(
        leaves(masked.model).values(), leaves(compact.model).values(), strict=True
    ):
        torch.testing.assert_close(q.grad, at_survivors(p.grad, mask), rtol=1e-4, atol=1e-6)
    pol.expand(compact.model)
    for parameter, mask in leaves(compact.model).values():
        assert (parameter.grad is None) == (mask is not None)


def test_a_loss_that_is_kept_does_not_fix_the_former_shape() -> None:
    masked, compact = pair()  # both keep their last loss, and with it its graph
    assert compact.loss.grad_fn is not None
    equal_runs(masked, compact)
    compact.train(1)
    pol.imp_prune(compact.model, 0.2, optimizer=compact.optimizer)
    compact.train(1)
    compact.model.load_state_dict(other_survivors())
    compact.optimizer.state.clear()
    compact.train(1)
    pol.expand(compact.model, optimizer=compact.optimizer)
    compact.train(1)
