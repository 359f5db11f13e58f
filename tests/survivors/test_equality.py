"""Fifty steps of compact weights are those of masked ones, up to rounding."""

from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor, nn, optim
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

import polarity as pol
from tests.survivors.cases import FORMS, batch, compacted, is_compact, net, weights

# The largest difference of two weights, relative to the largest weight, that fifty steps in float32
# leave: 3e-6 was seen. Sums of other orders are divided by small roots in the first steps of Adam.
ROUNDING = 1e-5

OPTIMIZERS: dict[str, Callable[[Any], optim.Optimizer]] = {
    "SGD": lambda p: optim.SGD(p, lr=0.05, weight_decay=1e-2),
    "momentum": lambda p: optim.SGD(p, lr=0.02, momentum=0.9, weight_decay=1e-2),
    "Nesterov": lambda p: optim.SGD(p, lr=0.02, momentum=0.9, nesterov=True),
    "Adam": lambda p: optim.Adam(p, lr=1e-3, weight_decay=1e-2),
    "AdamW": lambda p: optim.AdamW(p, lr=1e-3, weight_decay=0.1),
    "RMSprop": lambda p: optim.RMSprop(p, lr=1e-3, momentum=0.5, weight_decay=1e-2),
}
TREATMENTS: dict[str, tuple[Callable[[Any], object], int]] = {
    "alone": (lambda parameters: None, 1),
    "clipped by norm": (lambda parameters: clip_grad_norm_(parameters, 0.05), 1),
    "clipped by value, accumulated": (lambda parameters: clip_grad_value_(parameters, 0.01), 3),
}
# The second is above every size at which products, masks and selection change their way.
SIZES = {"small": (6, 8, 3), "large": (300, 900, 3)}


# What is done to gradients does not depend on sizes: both together take long.
CASES = [
    pytest.param(size, treatment, marks=[pytest.mark.slow] if size == "large" and late else [])
    for size in SIZES
    for late, treatment in enumerate(TREATMENTS)
]


def trained(model: nn.Module, optimizer: optim.Optimizer, treatment: str, inputs: int) -> nn.Module:
    treat, parts = TREATMENTS[treatment]
    for step in range(50):
        optimizer.zero_grad()
        for part in range(parts):
            x, y = batch(parts * step + part, inputs, rows=40)
            (model(x) - y).square().mean().backward()
        treat(model.parameters())
        optimizer.step()
    return model


def difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    assert list(one) == list(other)
    largest = max(float(each.abs().max()) for each in one.values())
    return max(float((one[n] - other[n]).abs().max()) for n in one) / largest


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("size", "treatment"), CASES)
def test_fifty_steps_are_those_of_masks(size: str, form: str, treatment: str, name: str) -> None:
    runs = []
    for compact in (False, True):
        model = net(FORMS[form], 0.1 if size == "large" else 0.4, SIZES[size])
        if compact:
            compacted(model)
        optimizer = OPTIMIZERS[name](model.parameters())
        runs.append(trained(model, optimizer, treatment, SIZES[size][0]))
    masked, compact_model = runs
    one, other = weights(masked), weights(compact_model)
    assert difference(one, other) <= ROUNDING
    start = weights(net(FORMS[form], 0.1 if size == "large" else 0.4, SIZES[size]))
    assert difference(other, start) > 100 * ROUNDING

    # The next pruning takes the same entries, but where a magnitude is within rounding of the cut.
    for model in runs:
        pol.imp_prune(model, 0.2)
    assert is_compact(compact_model)
    kept = pol.masks(masked)
    cut = min(float(one[n][mask].abs().min()) for n, mask in kept.items())
    slack = 2 * ROUNDING * max(float(each.abs().max()) for each in one.values())
    for n, mask in kept.items():
        differ = mask != pol.masks(compact_model)[n]
        assert bool(((one[n].abs() - cut).abs()[differ] <= slack).all()), n
    assert pol.density(masked) == pol.density(compact_model)
