"""Optimizers that were not told of another form or other survivors say so at their next step."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim

import polarity as pol
from tests.survivors.cases import (
    EVERY,
    Run,
    batch,
    compacted,
    net,
    other_survivors,
    pair,
    run_of,
    same_tensors,
)


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
