"""Linear layers with few weights left, and a model of them, compared with the dense ones."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import polarity as pol

from .workloads import WORKLOADS

# From the table of targets: how many times faster than dense in its best layout.
TARGETS = {0.9: 1 / 1.8, 0.95: 1 / 3.5, 0.99: 1 / 12}
SHAPES = {  # features out and in, rows
    "DeiT fc1 1536x384, 64 rows": (1536, 384, 64),
    "DeiT fc1 1536x384, 8 x 197 tokens": (1536, 384, 1576),
    "4096x4096, 64 rows": (4096, 4096, 64),
    "4096x4096, 1 row": (4096, 4096, 1),
}
FORMS = ("polarity", "F.linear with a CSR weight")
LAYERS = [
    pytest.param(name, marks=() if name.endswith("384, 64 rows") else pytest.mark.large)
    for name in SHAPES
]


def thinned_(model: nn.Module, sparsity: float) -> nn.Module:
    """Leave a random part of every linear weight."""
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear):
                kept = torch.rand(module.weight.shape, generator=draw) >= sparsity
                module.weight.mul_(kept.to(module.weight.device))
    return model


def compressed(linear: nn.Linear, x: Tensor) -> nn.Module:
    """A copy of a layer as `compress` makes it, whether it is faster here or not."""
    model = nn.Sequential(copy.deepcopy(linear))
    faster = {"break_even": 1.0, "measure": lambda dense, sparse: (2.0, 1.0)}
    pol.deploy.compress(model, x, **faster)
    assert isinstance(model[0], pol.deploy.SparseLinear)
    return model[0]


def dense_ways(linear: nn.Linear, x: Tensor) -> dict[str, Callable[[], Tensor]]:
    """The dense layer on activations in both orders of memory."""
    turned = x.t().contiguous()
    bias = linear.bias[:, None]
    return {
        "dense": lambda: F.linear(x, linear.weight, linear.bias),
        "dense, feature-major": lambda: torch.addmm(bias, linear.weight, turned),
    }


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("sparsity", TARGETS)
@pytest.mark.parametrize("name", LAYERS)
@torch.no_grad()
def test_a_linear_layer(
    in_turns: Any, device: torch.device, benchmark: Any, name: str, sparsity: float, form: str
) -> None:
    benchmark.group = f"deploy: {name}"
    outputs, inputs, rows = SHAPES[name]
    torch.manual_seed(0)
    linear = nn.Linear(inputs, outputs)
    thinned_(linear, sparsity).to(device)
    x = torch.randn(rows, inputs, device=device)
    ours, weight = compressed(linear, x), linear.weight.detach().to_sparse_csr()
    # MKL computes with indices of 32 bits; those of 64 would be converted in every product.
    indices = weight.crow_indices().int(), weight.col_indices().int()
    weight = torch.sparse_csr_tensor(*indices, weight.values(), weight.shape)

    def sparse() -> Tensor:
        return ours(x) if form == FORMS[0] else F.linear(x, weight, linear.bias)

    ways = dense_ways(linear, x)
    usual, turned = pol.deploy.time_in_turns(*ways.values())
    best = list(ways)[usual > turned]
    repeats = 50 if max(rows * outputs * inputs, 1) < 2**26 else 1
    in_turns(
        lambda: [sparse() for _ in range(repeats)],
        lambda: [ways[best]() for _ in range(repeats)],
        what=f"{form}, {sparsity:.0%} pruned",
        against=best,
        target=TARGETS[sparsity] if form == FORMS[0] else None,
        density=weight.values().numel() / linear.weight.numel(),
    )


@pytest.mark.large
@pytest.mark.parametrize("sparsity", [0.8, 0.9, 0.95, 0.99])
@torch.no_grad()
def test_a_compressed_model(
    in_turns: Any, device: torch.device, benchmark: Any, sparsity: float
) -> None:
    workload = WORKLOADS["vit_s"]
    benchmark.group = f"deploy: {workload.name}"
    images = torch.randn(workload.batch, device=device)
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        models.append(thinned_(workload.build(), sparsity).to(device).eval())
    ours, dense = models
    report = pol.deploy.compress(ours, images)
    in_turns(
        lambda: ours(images),
        lambda: dense(images),
        what=f"compressed model, {sparsity:.0%} pruned",
        against="dense model",
        target=1.0,
        swapped_layers=f"{len(report.swapped)} of {len(report)}",
        density=1 - sparsity,
    )
