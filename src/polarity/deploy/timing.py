"""Time two ways of computing the same result, in turns."""

import math
import time
from collections.abc import Callable, Iterable
from statistics import median
from typing import TypeAlias

import torch
from torch import nn

from polarity._checks import check_callable

__all__ = ["Measure", "machine_of", "time_in_turns"]

Measure: TypeAlias = Callable[[Callable[[], object], Callable[[], object]], tuple[float, float]]

BLOCK = 3e-4  # seconds of one timed block: far above the resolution of the clock
BUDGET = 0.25  # seconds after which no further round begins
ROUNDS = (7, 41)


def time_in_turns(dense: Callable[[], object], sparse: Callable[[], object]) -> tuple[float, float]:
    """Return the median seconds of one call of each, measured in turns after a warm-up.

    Calls are repeated in blocks of at least 0.3 ms. A round is one block of each, so that both meet
    the same load on the machine; there are 7 to 41 rounds, about a quarter of a second in all.

    Example:
        >>> slow, fast = time_in_turns(lambda: sum(range(100_000)), lambda: sum(range(100)))
        >>> slow > fast
        True
    """
    check_callable("dense", dense, "a function without arguments")
    check_callable("sparse", sparse, "a function without arguments")
    repeats = {call: _repeats(call) for call in (dense, sparse)}
    rounds: list[tuple[float, float]] = []
    start = time.perf_counter()
    while len(rounds) < ROUNDS[0] or (
        len(rounds) < ROUNDS[1] and time.perf_counter() - start < BUDGET
    ):
        rounds.append((_block(dense, repeats[dense]), _block(sparse, repeats[sparse])))
    return median(each[0] for each in rounds), median(each[1] for each in rounds)


def _repeats(call: Callable[[], object]) -> int:
    _block(call, 1)  # warm-up: memory is allocated, and kernels are chosen
    return max(1, math.ceil(BLOCK / max(_block(call, 2), 1e-9)))


def _block(call: Callable[[], object], repeats: int) -> float:
    """Return the mean seconds of a call over a block."""
    _finish()
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    _finish()
    return (time.perf_counter() - start) / repeats


def _finish() -> None:
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()


def machine_of(layers: Iterable[nn.Module]) -> str:
    """Return the devices and threads of a measurement of some layers, for its report."""
    devices = {each.device for layer in layers for each in layer.parameters()}
    threads = torch.get_num_threads()
    return "; ".join(
        torch.cuda.get_device_name(each)
        if each.type == "cuda"
        else f"{each}, {threads} thread{'s' if threads > 1 else ''}"
        for each in sorted(devices, key=str)
    )
