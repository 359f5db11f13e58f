"""Choose the linear layers to swap: those for which a sparse product is measured faster."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn.utils import parametrize

from polarity._csr import CSR, encode, has_kernel
from polarity._progress import Watch
from polarity.deploy.calls import Call
from polarity.deploy.reasons import why_no_product, why_not_called, why_not_linear
from polarity.deploy.replay import Replay, agree, settled
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
    if why := why_not_linear(layer):
        return why
    weight = layer.weight
    if type(weight) is not nn.Parameter or weight.layout is not torch.strided:
        return f"its weight is a {type(weight).__name__} of layout {weight.layout}"
    return why_not_called(calls, autocast=False) or why_no_product(weight, weight.dtype, has_kernel)


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
    watch: Watch,
) -> dict[str, CSR]:
    """Measure the candidates, enter their decisions, and return the weights to be swapped."""
    chosen = {}
    for name, candidate in watch(candidates.items()):
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
    layer, replay = candidate.layer, Replay.of(candidate.calls, generator)
    given = [replay.inputs[call] for call in replay.calls]
    # Whole layers are timed: in small ones the overhead matters as much as the product.
    twin = sparse_twin(layer, candidate.matrix)
    for x in replay.inputs.values():
        if not agree(x, layer.weight, layer.bias, twin.forward(x)):
            return replace(before, swapped=False, reason="the sparse product is not exact enough")
    return settled(
        before,
        replay,
        measure,
        margin,
        lambda: [layer.forward(x) for x in given],
        lambda: [twin.forward(x) for x in given],
    )
