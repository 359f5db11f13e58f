"""Choose the linear layers to swap: those for which a sparse product is measured faster."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from torch.nn.utils import parametrize

from polarity._csr import CSR, encode, has_kernel
from polarity.deploy.calls import Call
from polarity.deploy.report import LayerDecision
from polarity.deploy.sparse_linear import sparse_twin
from polarity.deploy.timing import Measure

__all__ = ["Candidate", "choose", "dense_reasons", "find_candidates"]


@dataclass(frozen=True)
class Candidate:
    """A layer that may be swapped, its weight as a sparse matrix, and how it is called."""

    layer: nn.Linear
    matrix: CSR
    calls: tuple[Call, ...]


def dense_reasons(
    model: nn.Module, layers: Mapping[str, nn.Linear], calls: Mapping[str, Sequence[Call]]
) -> dict[str, str]:
    """Return why some layers cannot be swapped at any density, by the name of their weight."""
    users: dict[int, list[str]] = {}
    for path, module in model.named_modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                users.setdefault(id(parameter), []).append(f"{path}.{name}".removeprefix("."))
    reasons = {}
    for name, layer in layers.items():
        why = _why_dense(layer, calls[name])
        tied = [each for each in users.get(id(layer._parameters.get("weight")), []) if each != name]
        if not why and tied:
            why = f"tied to {tied[0]}"
        if why:
            reasons[name] = why
    return reasons


def _why_dense(layer: nn.Linear, calls: Sequence[Call]) -> str:
    """Return a reason that lies in one layer and its calls, or an empty string."""
    if parametrize.is_parametrized(layer) or "weight" not in layer._parameters:
        return "its weight is computed (a parametrization or a hook)"
    if type(layer) not in (nn.Linear, NonDynamicallyQuantizableLinear):
        return f"a {type(layer).__name__} may compute something else than a linear map"
    if "forward" in vars(layer):
        return "its forward was replaced"
    weight = layer.weight
    if type(weight) is not nn.Parameter or weight.layout is not torch.strided:
        return f"its weight is a {type(weight).__name__} of layout {weight.layout}"
    if not calls:
        return "not called (its weight may be read directly)"
    if sum(call.rows for call in calls) == 0:
        return "called with no rows"
    for call in calls:
        if call.dense_only:
            return call.dense_only
    if not has_kernel(weight.device.type, weight.dtype):
        dtype = str(weight.dtype).removeprefix("torch.")
        return f"PyTorch has no sparse product in {dtype} on {weight.device.type}"
    if weight.numel() == 0 or weight.numel() >= 2**31:
        return "empty" if weight.numel() == 0 else "too large for indices of 32 bits"
    return "" if bool(torch.isfinite(weight).all()) else "its weight is not finite"


def find_candidates(
    layers: Mapping[str, nn.Linear],
    calls: Mapping[str, Sequence[Call]],
    reasons: Mapping[str, str],
    break_even: float,
) -> tuple[dict[str, Candidate], dict[str, LayerDecision]]:
    """Return the layers to be measured, and the decisions that are known without measuring.

    Args:
        layers: every linear layer by the plain name of its weight.
        calls: how each was called.
        reasons: why some of them stay dense.
        break_even: density above which the others do.
    """
    candidates: dict[str, Candidate] = {}
    decisions: dict[str, LayerDecision] = {}
    for name, layer in layers.items():
        weight = layer.weight
        density = int(torch.count_nonzero(weight)) / weight.numel() if weight.numel() else 1.0
        why = reasons.get(name, "")
        if not why and density > break_even:
            why = f"density {density:.2g} is above break_even={break_even:.2g}, not measured"
        shape = (layer.out_features, layer.in_features)
        rows = tuple(call.rows for call in calls[name])
        decisions[name] = LayerDecision(name, shape, density, rows, False, why)
        if not why:
            candidates[name] = Candidate(layer, encode(weight), tuple(calls[name]))
    return candidates, decisions


def choose(
    candidates: Mapping[str, Candidate],
    decisions: dict[str, LayerDecision],
    margin: float,
    measure: Measure,
    generator: torch.Generator,
) -> dict[str, CSR]:
    """Measure the candidates, enter their decisions, and return the weights to be swapped."""
    chosen = {}
    for name, candidate in candidates.items():
        decisions[name] = _measured(decisions[name], candidate, margin, measure, generator)
        if decisions[name].swapped:
            chosen[name] = candidate.matrix
    return chosen


def _measured(
    before: LayerDecision,
    candidate: Candidate,
    margin: float,
    measure: Measure,
    generator: torch.Generator,
) -> LayerDecision:
    """Time the calls of one layer as a dense and as a sparse one, if both agree."""
    layer = candidate.layer
    counts = Counter(call for call in candidate.calls if call.rows)
    times = math.gcd(*counts.values())
    calls = [call for call, count in counts.items() for _ in range(count // times)]
    given = {call: _input_like(call, generator) for call in counts}

    # Whole layers are timed: in small ones the overhead matters as much as the product.
    twin = sparse_twin(layer, candidate.matrix)
    if not all(_agree(x, layer.weight, layer.bias, twin.forward(x)) for x in given.values()):
        return replace(before, swapped=False, reason="the sparse product is not exact enough")
    measured = measure(
        lambda: [layer.forward(given[call]) for call in calls],
        lambda: [twin.forward(given[call]) for call in calls],
    )
    try:
        dense, sparse = map(float, measured)
    except (TypeError, ValueError):
        raise TypeError(f"measure returned {measured!r}, expected two numbers of seconds") from None
    timed = replace(before, dense_seconds=times * dense, sparse_seconds=times * sparse)
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


def _agree(x: Tensor, weight: Tensor, bias: Tensor | None, output: Tensor) -> bool:
    r"""Whether every output is within rounding of the exact one.

    In any order of summation, the error of a sum of k products is at most about
    :math:`k\,u \sum |x_i w_i|`, with u the unit roundoff; twice that is allowed, against a product
    in float64. Of many rows about 256 are checked.
    """
    x, output = x.reshape(-1, x.shape[-1]), output.reshape(-1, output.shape[-1])
    step = -(-x.shape[0] // 256)
    x, output = x[::step], output[::step]
    products = weight.double().t()
    wide, exact_bias = x.double(), 0.0 if bias is None else bias.double()
    size = wide.abs() @ products.abs() + (0.0 if bias is None else bias.double().abs())
    error = (output.double() - (wide @ products + exact_bias)).abs()
    allowed = 2 * (weight.shape[1] + 1) * torch.finfo(weight.dtype).eps
    return bool((error <= allowed * size).all())
