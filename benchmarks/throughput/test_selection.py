"""Global magnitude pruning beside `torch.nn.utils.prune`, and its growth up to 1 B weights."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import polarity as pol
from benchmarks.throughput.memory import WORTH_WEIGHING, peak_bytes
from benchmarks.throughput.pruners import AMOUNT, CALLS, Masked, TorchPruned, layers, plain
from polarity.selection.top_k import keep_largest

# Times faster than torch.nn.utils.prune, first round and at 80 % sparsity, from the targets.
FASTER = {"25 M": (50, 18), "100 M": (100, 30)}
SIZES = {"0.27 M": (3, 300), "25 M": (10, 1600), "100 M": (10, 3162)}
GROWTH = {"1 M": (4, 500), "10 M": (4, 1581), "100 M": (10, 3162), "1 B": (40, 5000)}
MOMENTS = {"first round": 1.0, "at 80 % sparsity": 0.2}
AT_THE_LARGEST = ("selection alone", "lrr_step", "imp_prune", "cat + topk")
ROUNDS = {"0.27 M": 25, "25 M": 7, "100 M": 3}
LARGE = [
    "0.27 M",
    pytest.param("25 M", marks=pytest.mark.large),
    pytest.param("100 M", marks=pytest.mark.large),
]


def weights_of(size: str, device: torch.device) -> list[Tensor]:
    return [layer.weight.detach() for layer in layers(*SIZES[size], device)]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("size", LARGE)
def test_pruning_a_fifth_of_the_survivors(
    beside: Any, device: torch.device, benchmark: Any, size: str, moment: str, call: str
) -> None:
    if size == "100 M" and call not in AT_THE_LARGEST:
        pytest.skip("a matter of minutes, and like the row at 25 M")
    benchmark.group = f"imp_prune, {size} weights, {moment}"
    values, density = weights_of(size, device), MOMENTS[moment]
    ours, theirs = Masked(values, density), TorchPruned(values, density)
    total = sum(value.numel() for value in values)
    ours.prepare()
    extra = peak_bytes(lambda: CALLS[call](ours), device) if total >= WORTH_WEIGHING else None
    beside(
        lambda: CALLS[call](ours),
        theirs.prune,
        what=call,
        against="torch.nn.utils.prune.global_unstructured",
        prepare_contender=ours.prepare,
        prepare_reference=theirs.prepare,
        rounds=ROUNDS[size],
        target=None if call.startswith("cat") else _target(size, moment),
        extra_bytes_per_weight=None if extra is None else extra / total,
    )
    kept = sum(int(mask.sum()) for mask in pol.masks(ours.model).values())
    assert kept == ours.living - round(AMOUNT * ours.living) or call == "cat + kthvalue"


@pytest.mark.parametrize("size", LARGE)
def test_pruning_a_model_that_is_still_plain(
    beside: Any, device: torch.device, benchmark: Any, size: str
) -> None:
    """Attaching the masks is part of the call, as it is for `torch.nn.utils.prune`."""
    benchmark.group = f"imp_prune, {size} weights, first round"
    values = weights_of(size, device)
    theirs = TorchPruned(values, 1.0)
    total = sum(value.numel() for value in values)
    fresh = plain(values)
    extra = None
    if total >= WORTH_WEIGHING:
        extra = peak_bytes(lambda: pol.imp_prune(fresh, AMOUNT), device)
    beside(
        lambda model: pol.imp_prune(model, AMOUNT),
        theirs.prune,
        what="imp_prune, plain model",
        against="torch.nn.utils.prune.global_unstructured",
        prepare_contender=lambda: plain(values),
        prepare_reference=theirs.prepare,
        rounds=ROUNDS[size],
        target=_target(size, "first round"),
        extra_bytes_per_weight=None if extra is None else extra / total,
    )


@pytest.mark.large
@pytest.mark.parametrize("call", [each for each in CALLS if not each.startswith("cat")])
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("size", ["25 M", "100 M"])
def test_pruning_beside_one_pass_over_the_weights(
    beside: Any, device: torch.device, benchmark: Any, size: str, moment: str, call: str
) -> None:
    benchmark.group = f"imp_prune, {size} weights, {moment}"
    values = weights_of(size, device)
    ours = Masked(values, MOMENTS[moment])
    if size == "100 M" and call not in AT_THE_LARGEST:
        pytest.skip("as at 25 M")
    beside(
        lambda: CALLS[call](ours),
        lambda: [value.sum() for value in values],
        what=call,
        against="one read pass (a sum)",
        prepare_contender=ours.prepare,
        rounds=11,
        target=8.0,
    )


def _target(size: str, moment: str) -> float | None:
    faster = FASTER.get(size)
    return None if faster is None else 1 / faster[list(MOMENTS).index(moment)]


@pytest.mark.parametrize(
    "size", ["1 M", *(pytest.param(each, marks=pytest.mark.large) for each in list(GROWTH)[1:])]
)
def test_growth(device: torch.device, benchmark: Any, size: str) -> None:
    """Time and peak memory for each weight must not depend on how many there are."""
    benchmark.group = "growth of pruning and masking, bfloat16"
    count, width = GROWTH[size]
    total = count * width**2
    model = layers(count, width, device, torch.bfloat16)
    noted: dict[str, float | None] = {}

    def note(name: str, call: Callable[[], Any], rounds: int) -> None:
        """Notes the memory of the first call and the time of the later ones, or of that if none."""
        seconds: list[float] = []

        def timed() -> None:
            start = time.perf_counter()
            call()
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)

        extra = peak_bytes(timed, device)
        for _ in range(rounds):
            timed()
        noted[f"{name}_nanoseconds_per_weight"] = 1e9 * median(seconds[-rounds:]) / total
        noted[f"{name}_extra_bytes_per_weight"] = None if extra is None else extra / total

    note("attach", lambda: pol.mask_weights(model), 0)
    leaves = {name: target.stored[0].detach() for name, target in pol.find_targets(model).items()}
    masks = {name: target.mask for name, target in pol.find_targets(model).items()}
    note("selection", lambda: keep_largest(leaves, total - total // 5, masks), 0)
    for mask in masks.values():
        mask.fill_(True)
    point = pol.RewindPoint({})
    note("lrr_step", lambda: pol.lrr_step(model, AMOUNT, rewind=point), 2)
    note("masked_weight", lambda: _read_weights(model), 2)

    def setup() -> tuple[tuple[Any, ...], dict[str, Any]]:
        living = sum(int(mask.count_nonzero()) for mask in masks.values())
        return (leaves, living - round(AMOUNT * living), masks), {}

    benchmark.pedantic(keep_largest, setup=setup, rounds=3)
    if benchmark.stats is not None:
        noted["selection_nanoseconds_per_weight"] = 1e9 * benchmark.stats.stats.median / total
    benchmark.extra_info.update(
        what=size, weights=total, threads=torch.get_num_threads(), device=str(device), **noted
    )


@torch.no_grad()
def _read_weights(model: nn.Module) -> None:
    """Compute every masked weight once, as evaluation does."""
    for layer in model.children():
        layer.weight  # noqa: B018
