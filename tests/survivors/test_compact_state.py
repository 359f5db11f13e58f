"""State of optimizers that has no form for a vector, or none for a matrix."""

import warnings
from typing import Any

import pytest
import torch
from torch import nn

import polarity as pol
from tests.models import x_of
from tests.survivors.test_compact import pruned


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(x_of(4, 6)).square().sum().backward()
    optimizer.step()


def test_factored_moments_start_afresh_with_a_warning_in_both_directions() -> None:
    model = pruned()
    optimizer = torch.optim.Adafactor(model.parameters())
    leaf, bias = model[0].parametrizations.weight.original, model[0].bias
    step(model, optimizer)
    kept = optimizer.state[bias]["variance"].clone()
    with pytest.warns(UserWarning, match="Adafactor remembers col_var, row_var, which has no form"):
        pol.compact(model, break_even=1.0, optimizer=optimizer)
    assert optimizer.state[leaf] == {}
    assert torch.equal(optimizer.state[bias]["variance"], kept)
    step(model, optimizer)
    assert optimizer.state[leaf]["variance"].shape == (10,)
    pol.imp_prune(model, 0.5, optimizer=optimizer, scope="layer")
    assert optimizer.state[leaf]["variance"].shape == (5,)
    step(model, optimizer)
    with pytest.warns(UserWarning, match="Adafactor remembers variance, which has no form"):
        pol.expand(model, optimizer=optimizer)
    assert optimizer.state[leaf] == {}
    step(model, optimizer)


def test_state_for_each_entry_follows_without_a_warning_under_any_name() -> None:
    model = pruned()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    leaf = model[0].parametrizations.weight.original
    step(model, optimizer)
    mask = pol.masks(model)["0.weight"]
    state: Any = optimizer.state[leaf]
    state["hessian"], momentum = torch.arange(48.0).view(8, 6), state["momentum_buffer"].clone()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pol.compact(model, break_even=1.0, optimizer=optimizer)
        compact = optimizer.state[leaf]
        assert torch.equal(compact["hessian"], torch.arange(48.0).view(8, 6)[mask])
        assert torch.equal(compact["momentum_buffer"], momentum[mask])
        pol.expand(model, optimizer=optimizer)
    dense = optimizer.state[leaf]
    assert torch.equal(dense["hessian"], torch.arange(48.0).view(8, 6) * mask)
    assert torch.equal(dense["momentum_buffer"], momentum * mask)


def test_an_optimizer_that_was_not_passed_raises_at_its_next_step() -> None:
    for call in (lambda m: pol.compact(m, break_even=1.0), pol.expand):
        model = pruned()
        if call is pol.expand:
            pol.compact(model, break_even=1.0)
        adam = torch.optim.AdamW(model.parameters())
        step(model, adam)
        call(model)
        with pytest.raises(RuntimeError, match=r"as it no longer is.*optimizer="):
            step(model, adam)
        step(model, torch.optim.AdamW(model.parameters()))
