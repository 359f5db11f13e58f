"""Global magnitude pruning beside `torch.nn.utils.prune`, and its growth up to 1 B weights."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import polarity as pol
from benchmarks.throughput.memory import peak_bytes

# Times faster than torch.nn.utils.prune, first round and at 80 % sparsity, from the targets.
FASTER = {"25 M": (50, 18), "100 M": (100, 30)}
SIZES = {"0.27 M": (3, 300), "25 M": (10, 1600), "100 M": (10, 3162)}
GROWTH = {"1 M": (4, 500), "10 M": (4, 1581), "100 M": (10, 3162), "1 B": (40, 5000)}
LARGE = [
    "0.27 M",
    pytest.param("25 M", marks=pytest.mark.large),
    pytest.param("100 M", marks=pytest.mark.large),
]


def layers(
    count: int, width: int, device: torch.device, dtype: torch.dtype = torch.float32
) -> nn.Sequential:
    """A model that is nothing but square weights."""
    torch.manual_seed(0)
    model = nn.Sequential()
    for _ in range(count):
        layer = nn.Linear(1, 1, bias=False, device="meta")
        layer.weight = nn.Parameter(torch.randn(width, width, device=device, dtype=dtype))
        model.append(layer)
    return model


@pytest.mark.parametrize("moment", ["first round", "at 80 % sparsity"])
@pytest.mark.parametrize("size", LARGE)
def test_pruning_a_fifth_of_the_survivors(
    beside: Any, device: torch.device, benchmark: Any, size: str, moment: str
) -> None:
    benchmark.group = f"imp_prune, {size} weights, {moment}"
    ours, theirs = layers(*SIZES[size], device), layers(*SIZES[size], device)
    values = [layer.weight.detach().clone() for layer in theirs]
    parameters = [(layer, "weight") for layer in theirs]
    pol.mask_weights(ours)
    start = pol.RewindPoint.capture(ours)
    first = moment == "first round"

    def prepare_ours() -> None:
        for layer, value in zip(ours, values, strict=True):
            layer.parametrizations.weight[0].mask.fill_(True)
            with torch.no_grad():
                layer.parametrizations.weight.original.copy_(value)
        if not first:
            pol.imp_prune(ours, density=0.2)

    def prepare_theirs() -> None:
        for layer, value in zip(theirs, values, strict=True):
            if hasattr(layer, "weight_mask"):
                prune.remove(layer, "weight")
            with torch.no_grad():
                layer.weight.copy_(value)
        if not first:
            prune.global_unstructured(parameters, prune.L1Unstructured, amount=0.8)

    def prune_ours() -> None:
        pol.lrr_step(ours, 0.2, rewind=start)

    prepare_ours()
    extra = peak_bytes(prune_ours, device)
    total = sum(value.numel() for value in values)
    faster = FASTER.get(size, (None, None))[0 if first else 1]
    beside(
        prune_ours,
        lambda: prune.global_unstructured(parameters, prune.L1Unstructured, amount=0.2),
        what="lrr_step",
        against="torch.nn.utils.prune.global_unstructured",
        prepare_contender=prepare_ours,
        prepare_reference=prepare_theirs,
        rounds=5,
        target=None if faster is None else 1 / faster,
        extra_bytes_per_weight=None if extra is None else extra / total,
    )
    kept = sum(int(mask.sum()) for mask in pol.masks(ours).values())
    before = total if first else round(0.2 * total)
    assert kept == before - round(0.2 * before)


@pytest.mark.large
@pytest.mark.parametrize("size", ["25 M", "100 M"])
def test_pruning_beside_one_pass_over_the_weights(
    beside: Any, device: torch.device, benchmark: Any, size: str
) -> None:
    benchmark.group = f"imp_prune, {size} weights, first round"
    model = pol.mask_weights(layers(*SIZES[size], device))
    start = pol.RewindPoint.capture(model)
    stored = [layer.parametrizations.weight.original for layer in model]

    def prepare() -> None:
        for place, leaf in enumerate(stored):
            model[place].parametrizations.weight[0].mask.fill_(True)
            with torch.no_grad():
                leaf.copy_(start.weights[f"{place}.weight"])

    beside(
        lambda: pol.lrr_step(model, 0.2, rewind=start),
        lambda: [leaf.detach().sum() for leaf in stored],
        what="lrr_step",
        against="one read pass (a sum)",
        prepare_contender=prepare,
        rounds=5,
        target=8.0,
    )


@pytest.mark.large
@pytest.mark.parametrize("size", GROWTH)
def test_growth(device: torch.device, benchmark: Any, size: str) -> None:
    """Time and peak memory for each weight must not depend on how many there are."""
    benchmark.group = "growth of pruning and masking, bfloat16"
    count, width = GROWTH[size]
    model = layers(count, width, device, torch.bfloat16)
    total = count * width**2
    attaching = peak_bytes(lambda: pol.mask_weights(model), device)
    point = pol.RewindPoint({})
    seconds = []

    def prune_once() -> None:
        start = time.perf_counter()
        pol.lrr_step(model, 0.2, rewind=point)
        seconds.append(time.perf_counter() - start)

    extra = peak_bytes(prune_once, device)
    benchmark.pedantic(prune_once, rounds=3)
    benchmark.extra_info.update(
        what=f"lrr_step, {size}",
        weights=total,
        nanoseconds_per_weight=1e9 * sorted(seconds)[len(seconds) // 2] / total,
        extra_bytes_per_weight=None if extra is None else extra / total,
        mask_bytes_per_weight=None if attaching is None else attaching / total,
        device=str(device),
    )
