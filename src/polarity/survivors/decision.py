"""Decide which masked weights are multiplied as their survivors: by measurement, or by density."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import distributed, nn
from torch.nn.utils import parametrize

from polarity._bits.random import among_ranks
from polarity._csr import has_gradients
from polarity._progress import Watch
from polarity._running import call, evaluation, recordable, recording_gradients
from polarity.deploy.calls import Call, recording
from polarity.deploy.reasons import why_no_product, why_not_called, why_not_linear
from polarity.deploy.replay import Replay, settled
from polarity.deploy.timing import Measure
from polarity.survivors.report import WeightDecision
from polarity.survivors.twins import Step, is_exact, twin
from polarity.targets.target import Target
from polarity.targets.wrappers import unwrapped

__all__ = ["by_density", "by_measurement"]

Decisions = dict[str, WeightDecision]

# Without a measurement: of layers with 64 to 512 rows those gained that are at least this sparse
# and this large. Smaller ones lose at any density, by the overhead of three calls.
SPARSE, LARGE = 0.1, 2**16


def by_density(found: Mapping[str, Target], break_even: float | None) -> Decisions:
    """Give sparse products to every linear layer of at most some density; by default large ones."""
    decisions, limit = {}, SPARSE if break_even is None else break_even
    for name, target in found.items():
        why = _why_never(target) or _why_no_product(target, ())
        if not why and parametrize.type_before_parametrizations(target.module) is not nn.Linear:
            why = "attention reads its weight without calling it"
        if not why and break_even is None and target.shape.numel() < LARGE:
            why = f"too small to gain (fewer than {LARGE} entries), not measured"
        each = _decision(name, target, (), why, limit)
        if not each.reason:
            reason = f"density {each.density:.2g} is at most break_even={limit:.2g}"
            each = replace(each, swapped=True, reason=f"{reason}, not measured")
        decisions[name] = each
    return decisions


def by_measurement(
    model: nn.Module,
    example_inputs: Any,
    found: Mapping[str, Target],
    break_even: float,
    margin: float,
    measure: Measure,
    generator: torch.Generator,
    watch: Watch,
) -> Decisions:
    """Give sparse products to the linear layers that a training step passes faster with them.

    Among several ranks the measurement of rank 0 decides.
    """
    reasons = {name: _why_never(target) for name, target in found.items()}
    layers: dict[str, Any] = {name: t.module for name, t in found.items() if not reasons[name]}
    with evaluation(model), recording_gradients(), recording(layers) as calls:
        call(unwrapped(model), recordable(example_inputs))
    decisions = {}
    for name, target in watch(found.items()):
        seen = calls.get(name, [])
        why = reasons[name] or why_not_called(seen, autocast=True) or _why_no_product(target, seen)
        each = _decision(name, target, seen, why, break_even)
        if not each.reason:
            each = _measured(each, target, seen, margin, measure, generator)
        decisions[name] = each
    if among_ranks():
        told = [decisions]
        distributed.broadcast_object_list(told, src=0)
        decisions = told[0]
    return decisions


def _why_never(target: Target) -> str:
    """Return a reason that lies in the layers of a weight, or an empty string."""
    if len(target.owners) > 1:
        return f"tied to {target.owners[1].name}"
    if target.tensor_name != "weight":
        return f"the {target.tensor_name} of its layer"
    return why_not_linear(target.module)


def _why_no_product(target: Target, calls: Sequence[Call]) -> str:
    """Return a reason that lies in the weight itself, or an empty string."""
    weight = target.weight
    dtypes = {each.autocast or weight.dtype for each in calls} or {weight.dtype}
    reasons = (why_no_product(weight, dtype, has_gradients) for dtype in dtypes)
    return next(filter(None, reasons), "")


def _decision(
    name: str, target: Target, calls: Sequence[Call], why: str, break_even: float
) -> WeightDecision:
    """Return what is known of a weight without a measurement; no reason if it needs one."""
    total = target.shape.numel()
    density = target.survivors / total if total else 1.0
    if not why and density > break_even:
        why = f"density {density:.2g} is above break_even={break_even:.2g}, not measured"
    rows = tuple(each.rows for each in calls)
    return WeightDecision(name, tuple(target.shape), density, rows, False, why)


def _measured(
    before: WeightDecision,
    target: Target,
    calls: Sequence[Call],
    margin: float,
    measure: Measure,
    generator: torch.Generator,
) -> WeightDecision:
    """Time the calls of one layer forward and backward, masked and compact, if both agree."""
    replay = Replay.of(calls, generator)
    step = Step(replay, target.shape[0], generator)
    with recording_gradients():
        if not is_exact(target, step):
            return replace(before, reason="the sparse products are not exact enough")
        masked, compact = twin(target, compact=False), twin(target, compact=True)
        return settled(
            before, replay, measure, margin, lambda: step.of(masked), lambda: step.of(compact)
        )
