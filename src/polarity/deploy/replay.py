"""Repeat a layer's recorded calls in two forms, and settle which of them it gets."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from polarity.deploy.calls import Call
from polarity.deploy.report import LayerDecision
from polarity.deploy.timing import Measure

__all__ = ["Replay", "agree", "settled"]

Decision = TypeVar("Decision", bound=LayerDecision)


@dataclass(frozen=True)
class Replay:
    """One round of a layer's recorded calls, on random inputs.

    Attributes:
        calls: those that have rows, each of them as often in proportion as it was recorded.
        times: how many such rounds were recorded.
        inputs: one for each different call.
    """

    calls: tuple[Call, ...]
    times: int
    inputs: dict[Call, Tensor]

    @classmethod
    def of(cls, recorded: Sequence[Call], generator: torch.Generator) -> "Replay":
        """Draw inputs for the calls that were recorded."""
        counts = Counter(call for call in recorded if call.rows)
        times = math.gcd(*counts.values())
        calls = tuple(call for call, count in counts.items() for _ in range(count // times))
        return cls(calls, times, {call: _input_like(call, generator) for call in counts})


def settled(
    before: Decision,
    replay: Replay,
    measure: Measure,
    margin: float,
    dense: Callable[[], object],
    sparse: Callable[[], object],
) -> Decision:
    """Time one round in both forms, and return the decision with its times and its reason."""
    measured = measure(dense, sparse)
    try:
        first, second = map(float, measured)
    except (TypeError, ValueError):
        raise TypeError(f"measure returned {measured!r}, expected two numbers of seconds") from None
    timed = replace(
        before, dense_seconds=replay.times * first, sparse_seconds=replay.times * second
    )
    assert timed.speedup is not None
    if timed.speedup >= margin:
        return replace(timed, swapped=True, reason="faster")
    why = "slower" if timed.speedup < 1 else f"not {margin:.3g}x faster"
    return replace(timed, swapped=False, reason=why)


def _input_like(call: Call, generator: torch.Generator) -> Tensor:
    """Draw random numbers in the shape, and in the memory layout, of a recorded input."""
    values = torch.randn(call.shape, generator=generator, dtype=call.dtype, device=generator.device)
    strides = tuple(max(1, stride) for stride in call.stride)  # an expanded input is one value
    by_stride = sorted(range(len(strides)), key=lambda axis: -strides[axis])
    back = [by_stride.index(axis) for axis in range(len(strides))]
    return values.permute(by_stride).contiguous().permute(back).to(call.device)


def agree(
    x: Tensor, weight: Tensor, bias: Tensor | None, output: Tensor, where: Tensor | None = None
) -> bool:
    r"""Whether every output is within rounding of the exact one.

    In any order of summation, the error of a sum of k products is at most about
    :math:`k\,u \sum |x_i w_i|`, with u the unit roundoff; twice that is allowed, against a product
    in float64. Of many rows about 256 are checked.

    Args:
        x: (..., in).
        weight: (out, in).
        bias: (out,) or None.
        output: (..., out), what is to be checked.
        where: ones for the outputs that are; by default all.
    """
    x, output = x.reshape(-1, x.shape[-1]), output.reshape(-1, output.shape[-1])
    step = max(1, -(-x.shape[0] // 256))
    x, output = x[::step], output[::step]
    products = weight.double().t()
    wide, exact_bias = x.double(), 0.0 if bias is None else bias.double()
    size = wide.abs() @ products.abs() + (0.0 if bias is None else bias.double().abs())
    error = (output.double() - (wide @ products + exact_bias)).abs()
    allowed = 2 * (weight.shape[1] + 1) * torch.finfo(weight.dtype).eps
    within = error <= allowed * size
    return bool((within if where is None else within | (where[::step] == 0)).all())
