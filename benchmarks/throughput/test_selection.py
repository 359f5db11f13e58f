"""Global magnitude pruning compared with `torch.nn.utils.prune`, and its growth to 1 B weights."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import polarity as pol

from .memory import WORTH_WEIGHING, kept_bytes, peak_bytes
from .pruners import AMOUNT, CALLS, Masked, TorchPruned, layers, plain

# Times faster than torch.nn.utils.prune, first round and at 80 % sparsity, from the targets.
FASTER = {"0.27 M": (10, 5), "25 M": (42, 16), "100 M": (40, 20)}
SIZES = {"0.27 M": (3, 300), "25 M": (10, 1600), "100 M": (10, 3162)}
GROWTH = {"1 M": (4, 500), "10 M": (4, 1581), "100 M": (10, 3162), "1 B": (40, 5000)}
MOMENTS = {"first round": 1.0, "at 80 % sparsity": 0.2}
AT_THE_LARGEST = ("lrr_step", "imp_prune", "cat + topk")
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
    in_turns: Any, device: torch.device, benchmark: Any, size: str, moment: str, call: str
) -> None:
    if size == "100 M" and call not in AT_THE_LARGEST:
        pytest.skip("a matter of minutes, and like the row at 25 M")
    benchmark.group = f"imp_prune, {size} weights, {moment}"
    values, density = weights_of(size, device), MOMENTS[moment]
    ours, theirs = Masked(values, density), TorchPruned(values, density)
    total = sum(value.numel() for value in values)
    ours.prepare()
    weighed = _weigh(ours, theirs, call, total, device) if total >= WORTH_WEIGHING else {}
    in_turns(
        lambda: CALLS[call](ours),
        theirs.prune,
        what=call,
        against="torch.nn.utils.prune.global_unstructured",
        prepare_contender=ours.prepare,
        prepare_reference=theirs.prepare,
        rounds=ROUNDS[size],
        target=_target(size, moment) if call == "imp_prune" else None,
        **weighed,
    )
    kept = sum(int(mask.sum()) for mask in pol.masks(ours.model).values())
    assert kept == ours.survivors - round(AMOUNT * ours.survivors) or call == "cat + kthvalue"


@pytest.mark.parametrize("size", LARGE)
def test_pruning_a_model_that_is_still_plain(
    in_turns: Any, device: torch.device, benchmark: Any, size: str
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
    in_turns(
        lambda model: pol.imp_prune(model, AMOUNT),
        theirs.prune,
        what="imp_prune, plain model",
        against="torch.nn.utils.prune.global_unstructured",
        prepare_contender=lambda: plain(values),
        prepare_reference=theirs.prepare,
        rounds=ROUNDS[size],
        target=None,
        extra_bytes_per_weight=None if extra is None else extra / total,
    )


@pytest.mark.large
@pytest.mark.parametrize("moment", MOMENTS)
def test_pruning_compared_with_one_pass_over_the_weights(
    in_turns: Any, device: torch.device, benchmark: Any, moment: str
) -> None:
    benchmark.group = f"imp_prune, 25 M weights, {moment}"
    values = weights_of("25 M", device)
    ours = Masked(values, MOMENTS[moment])
    in_turns(
        ours.imp_prune,
        lambda: [value.sum() for value in values],
        what="imp_prune",
        against="one read pass (a sum)",
        prepare_contender=ours.prepare,
        rounds=11,
    )


def _weigh(
    ours: Masked, theirs: TorchPruned, call: str, total: int, device: torch.device
) -> dict[str, float | None]:
    """Return the peak memory of a call and of the peer's, and what stays after the next forward.

    In bytes per weight, beyond the weights and, for ours, the masks that were there before.
    """

    def per_weight(count: int | None) -> float | None:
        return None if count is None else count / total

    weighed = {"extra_bytes_per_weight": per_weight(peak_bytes(lambda: CALLS[call](ours), device))}
    if call == "imp_prune":
        ours.prepare()
        kept = kept_bytes(lambda: (ours.imp_prune(), _read_weights(ours.model)), device)
        theirs.prepare()
        peak = peak_bytes(theirs.prune, device)
        weighed |= {
            "kept_bytes_per_weight": per_weight(kept),
            "peer_extra_bytes_per_weight": per_weight(peak),
        }
    return weighed


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
    note("masked_weight", lambda: _read_weights(model), 2)
    point = pol.RewindPoint({})
    note("lrr_step", lambda: pol.lrr_step(model, AMOUNT, rewind=point), 0)
    benchmark.pedantic(lambda: pol.lrr_step(model, AMOUNT, rewind=point), rounds=3)
    if benchmark.stats is not None:
        noted["lrr_step_nanoseconds_per_weight"] = 1e9 * benchmark.stats.stats.median / total
    benchmark.extra_info.update(
        what=size, weights=total, threads=torch.get_num_threads(), device=str(device), **noted
    )


@torch.no_grad()
def _read_weights(model: nn.Module) -> None:
    """Compute every masked weight once, as evaluation does."""
    for layer in model.children():
        layer.weight  # noqa: B018
