"""Optimizers follow compact weights exactly, or say at their next step that they were not told."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim

import polarity as pol
from tests.survivors.cases import (
    FORMS,
    Run,
    at_survivors,
    batch,
    compacted,
    equal_runs,
    leaves,
    net,
    pair,
    remembered,
    same_tensors,
    sgd,
)

EVERY: dict[str, Callable[[Any], optim.Optimizer]] = {
    "SGD": lambda p: optim.SGD(p, lr=0.01),
    "SGD, momentum": lambda p: optim.SGD(p, lr=0.01, momentum=0.9),
    "SGD, foreach": lambda p: optim.SGD(p, lr=0.01, momentum=0.9, foreach=True),
    "SGD, fused": lambda p: optim.SGD(p, lr=0.01, momentum=0.9, fused=True),
    "Adam": lambda p: optim.Adam(p, lr=0.01),
    "Adam, amsgrad": lambda p: optim.Adam(p, lr=0.01, amsgrad=True),
    "Adam, foreach": lambda p: optim.Adam(p, lr=0.01, foreach=True),
    "Adam, fused": lambda p: optim.Adam(p, lr=0.01, fused=True),
    "AdamW, fused amsgrad": lambda p: optim.AdamW(p, lr=0.01, amsgrad=True, fused=True),
    "NAdam": lambda p: optim.NAdam(p, lr=0.01),
    "RAdam": lambda p: optim.RAdam(p, lr=0.01),
    "Adamax": lambda p: optim.Adamax(p, lr=0.01),
    "Adagrad": lambda p: optim.Adagrad(p, lr=0.01),
    "Adadelta": lambda p: optim.Adadelta(p, lr=0.5),
    "RMSprop": lambda p: optim.RMSprop(p, lr=0.01, momentum=0.5, centered=True),
    "Rprop": lambda p: optim.Rprop(p, lr=0.01),
    "ASGD": lambda p: optim.ASGD(p, lr=0.01),
}


def run_of(name: str, product: bool, steps: int = 3) -> Run:
    model = net(product)
    return Run(model, EVERY[name](model.parameters())).train(steps)


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


def other_survivors() -> dict[str, Any]:
    pruned = net()
    pol.imp_prune(pruned, density=0.25)
    return pruned.state_dict()


def from_file(model: nn.Module, folder: Any) -> None:
    pruned = net()
    pol.imp_prune(pruned, density=0.25)
    pol.save(pruned, folder / "m.safetensors")
    pol.load(model, folder / "m.safetensors")


NOT_TOLD: dict[str, tuple[Callable[[nn.Module, Any], object], str]] = {
    "expand": (lambda m, f: pol.expand(m), r"expand\(model, optimizer=optimizer\)"),
    "imp_prune": (lambda m, f: pol.imp_prune(m, 0.3), "pass it optimizer=optimizer"),
    "lrr_step": (
        lambda m, f: pol.lrr_step(m, 0.3, rewind=pol.RewindPoint.capture(m)),
        "lrr_step .* pass it optimizer=optimizer",
    ),
    "prune": (
        lambda m, f: pol.prune(m, pol.scores.magnitude, density=0.1),
        "prune changed .* optimizer",
    ),
    "load_masks": (
        lambda m, f: pol.load_masks(m, pol.masks(sparser(m))),
        r"load_masks changed .* expand\(model, optimizer=optimizer\)",
    ),
    "load_state_dict": (
        lambda m, f: m.load_state_dict(other_survivors()),
        "load_state_dict brought other survivors; load the optimizer's state_dict too",
    ),
    "load": (from_file, r"load changed which entries .* build the optimizer afterwards"),
}


def sparser(model: nn.Module) -> nn.Module:
    twin = copy.deepcopy(model)
    pol.imp_prune(twin, 0.3)
    return twin


@pytest.mark.parametrize("name", ["SGD, momentum", "Adam", "Adagrad"])
@pytest.mark.parametrize("call", NOT_TOLD)
def test_an_optimizer_that_was_not_told_raises_at_its_next_step(
    call: str, name: str, tmp_path: Any
) -> None:
    run = run_of(name, False)
    compacted(run.model, run.optimizer)
    run.train(2)
    change, said = NOT_TOLD[call]
    change(run.model, tmp_path)
    before = copy.deepcopy(run.model.state_dict())
    with pytest.raises(RuntimeError, match=said):
        run.train(1)
    assert same_tensors(before, run.model.state_dict())
    fresh = EVERY[name](run.model.parameters())
    Run(run.model, fresh).train(2)  # the remedy


@pytest.mark.parametrize("name", [name for name in EVERY if name != "SGD"])
def test_an_optimizer_that_compact_was_not_told_of_raises_at_its_next_step(name: str) -> None:
    run = run_of(name, False)
    compacted(run.model)
    with pytest.raises(RuntimeError, match=r"compact\(model, optimizer=optimizer\)"):
        run.train(1)


@pytest.mark.parametrize("call", ["expand", "imp_prune", "load_state_dict"])
def test_an_optimizer_without_state_goes_on(call: str, tmp_path: Any) -> None:
    run = run_of("SGD", False)
    compacted(run.model, run.optimizer)
    NOT_TOLD[call][0](run.model, tmp_path)
    before = copy.deepcopy(run.model.state_dict())
    run.train(2)
    assert not same_tensors(before, run.model.state_dict())


def test_an_optimizer_that_never_stepped_goes_on() -> None:
    model = net()
    run = Run(model, EVERY["Adam"](model.parameters()))
    compacted(model)
    run.train(2)
    pol.expand(model, optimizer=run.optimizer)
    run.train(2)


@pytest.mark.parametrize("way", ["load_state_dict", "load"])
def test_as_many_other_survivors_load_and_their_optimizer_state_is_loaded_with_them(
    way: str, tmp_path: Any
) -> None:
    run = pair()[1].train(1)
    others = pol.expand(copy.deepcopy(run.model))
    masks = {n: m.view(-1).roll(1).view(m.shape) for n, m in pol.masks(others).items()}
    shrunk = {n: m & masks[n] for n, m in pol.masks(others).items()}
    pol.load_masks(others, shrunk)
    pol.load_masks(others, masks)
    if way == "load":
        pol.save(others, tmp_path / "m.safetensors")
        pol.load(run.model, tmp_path / "m.safetensors")
    else:
        run.model.load_state_dict(others.state_dict())
    assert same_tensors(pol.masks(run.model), masks)
    run.optimizer.load_state_dict(copy.deepcopy(run.optimizer.state_dict()))
    run.train(1)


def test_adafactor_starts_afresh_where_it_is_told_and_raises_where_it_is_not() -> None:
    def run() -> Run:
        model = net()
        return Run(model, optim.Adafactor(model.parameters(), lr=0.01)).train(2)

    told, untold = run(), run()
    with pytest.warns(UserWarning, match="Adafactor remembers col_var, row_var"):
        compacted(told.model, told.optimizer)
    told.train(2)
    pol.imp_prune(told.model, 0.3, optimizer=told.optimizer)  # a vector's moments follow
    told.train(1)
    assert all(int(state["step"]) > 2 for state in told.optimizer.state.values())
    with pytest.warns(UserWarning, match="Adafactor remembers variance"):
        pol.expand(told.model, optimizer=told.optimizer)
    told.train(2)
    compacted(untold.model)
    with pytest.raises(RuntimeError, match=r"compact\(model, optimizer=optimizer\)"):
        untold.train(1)


def test_state_of_the_former_shape_that_is_loaded_later_is_refused_too() -> None:
    run = run_of("Adam", False)
    dense = copy.deepcopy(run.optimizer.state_dict())
    compacted(run.model, run.optimizer)
    run.train(1)
    run.optimizer.load_state_dict(dense)
    with pytest.raises(RuntimeError, match=r"compact\(model, optimizer=optimizer\)"):
        run.train(1)


def test_lbfgs_is_built_after_the_call() -> None:
    def closure_of(model: nn.Module, optimizer: optim.Optimizer) -> Callable[[], Tensor]:
        def closure() -> Tensor:
            optimizer.zero_grad()
            x, y = batch(0)
            loss = (model(x) - y).square().mean()
            loss.backward()
            return loss

        return closure

    model = net()
    optimizer = optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)
    optimizer.step(closure_of(model, optimizer))
    with pytest.raises(ValueError, match=r"LBFGS keeps one flat state .* build it after this call"):
        compacted(model, optimizer)
    compacted(model)
    with pytest.raises(RuntimeError, match="LBFGS remembers a parameter as it no longer is"):
        optimizer.step(closure_of(model, optimizer))

    masked = net()
    masked.load_state_dict(model.state_dict())
    for each in (masked, model):
        fresh = optim.LBFGS(each.parameters(), lr=0.1, max_iter=3)
        for _ in range(3):
            fresh.step(closure_of(each, fresh))
    for key, value in masked.state_dict().items():
        torch.testing.assert_close(model.state_dict()[key], value, rtol=1e-3, atol=1e-4)


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
