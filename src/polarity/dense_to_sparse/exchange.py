"""Exchange entries of weights: the dropped end at zero, the newborn start at zero."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from polarity._bits.arrays import count_true
from polarity.dense_to_sparse.dense_gradients import masking_of
from polarity.dense_to_sparse.report import LayerUpdate
from polarity.optimizers.states import entries_of, state_of
from polarity.parametrizations.arithmetic import zero_outside_
from polarity.parametrizations.sign_in import SignInMW
from polarity.pruning.plan import HowMany
from polarity.pruning.prune import prune_targets
from polarity.scores.weight import magnitude
from polarity.selection.ranks import Ranks
from polarity.targets.replicas import chosen_alike
from polarity.targets.target import Target, count_survivors
from polarity.targets.writing import write_all

__all__ = ["SecondMoment", "forget_gradients", "install_masks", "prune_smallest"]

SecondMoment: TypeAlias = Literal["zero", "keep_mean"]

# Averages of squares, by whose root a step is divided.
_SECOND_MOMENTS = ("exp_avg_sq", "max_exp_avg_sq", "square_avg")

Pairs = list[tuple[Tensor, Tensor]]


@torch.no_grad()
def install_masks(
    found: Mapping[str, Target],
    before: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    optimizers: Sequence[torch.optim.Optimizer],
    second_moment: SecondMoment = "zero",
    replicas: Ranks | None = None,
) -> tuple[LayerUpdate, ...]:
    """Apply other masks to weights. What survives keeps its value and its optimizer state.

    An entry that is live under one of the two masks alone is zero afterwards, and what the
    optimizers remember of it is zero. A newborn Sign-In entry has the factors that can grow.

    Args:
        found: the weights, each with a mask, applied or remembered.
        before: that mask of each, as a bool tensor.
        masks: the new one of each.
        optimizers: those that train them.
        second_moment: ``"keep_mean"`` gives newborn entries the mean second moment of the
            survivors of their weight instead of zero.
        replicas: the ranks that hold copies of the model and change them alike, or none.

    Returns:
        What was done to each weight.
    """
    masks = chosen_alike(replicas, lambda: masks, lambda masks: masks.items())
    survives = {name: mask & masks[name] for name, mask in before.items()}
    forms = {name: (masking_of(target), target.stored) for name, target in found.items()}
    pairs: Pairs = []
    filled: set[int] = set()
    for name, (masking, stored) in forms.items():
        kept = survives[name]
        born = masks[name] & ~kept
        pairs.append((masking.mask, masks[name]))
        if isinstance(masking, SignInMW):
            m = stored[0].detach()
            pairs.append((stored[0], torch.where(born, masking.beta.sqrt().to(m), m)))
        if second_moment == "keep_mean":
            for leaf in stored:
                for value in _second_moments(optimizers, leaf):
                    pairs.append((value, _with_mean(value, kept, born)))
                    filled.add(id(value))
    rows = tuple(_layer_update(name, before[name], masks[name], survives[name]) for name in found)
    write_all(pairs)
    for name, (masking, stored) in forms.items():
        kept = survives[name]
        zero_outside_(stored[-1], kept)  # the weight itself, or the factor v
        for leaf in stored:
            for _, value in _entries_of(optimizers, leaf):
                if id(value) not in filled:
                    zero_outside_(value, kept.to(value.device))
        masking.enforce = True
        masking.clear(stored[:-1])  # the last is zero already
        masking.clear_gradients(stored[-1:])
    return rows


def prune_smallest(
    found: Mapping[str, Target],
    wanted: HowMany,
    optimizers: Sequence[torch.optim.Optimizer],
    seed: int | None,
    replicas: Ranks | None = None,
) -> tuple[tuple[LayerUpdate, ...], tuple[str, ...]]:
    """Prune weights by magnitude, and zero what the optimizers remember of pruned entries.

    Args:
        found: the weights, each with a mask; where it is only remembered every entry can stay.
        wanted: how many of their entries stay.
        optimizers: those that train them.
        seed: of the draws among equal entries; None if the index decides.
        replicas: as for :func:`install_masks`.

    Returns:
        How the masks changed, those that were only remembered included; and what else to report.
    """
    before = count_survivors(found.values())
    # Where a mask is applied it only shrinks; others are compared entry by entry.
    remembered = {n: each.mask for n, each in found.items() if each.enforced_mask is None}
    for name in remembered:
        if found[name].is_sharded:
            raise ValueError(
                f"the mask of {name!r}, which is sharded (DTensor), is remembered and not applied, "
                "expected one that is applied: call load_masks(model, masks(model)) first"
            )
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    report = prune_targets(found, wanted, magnitude, optimizers, generator, replicas=replicas)
    rows = []
    for row in report:
        both = row.after
        if row.name in remembered:
            both = int((remembered[row.name] & found[row.name].mask).count_nonzero())
        dropped, grown = before[row.name] - both, row.after - both
        rows.append(LayerUpdate(row.name, row.shape, row.after, dropped, grown))
    return tuple(rows), report.notes


@torch.no_grad()
def forget_gradients(optimizers: Iterable[torch.optim.Optimizer]) -> None:
    """Zero the averages of gradients and of their squares, and step counts, of all parameters."""
    for each in optimizers:
        for group in each.param_groups:
            for parameter in group["params"]:
                state = state_of(each).get(parameter, {})
                for _, value in entries_of(state, parameter.shape):
                    value.zero_()
                if isinstance(step := state.get("step"), Tensor):
                    step.zero_()
                elif step is not None:
                    state["step"] = 0


def _layer_update(name: str, before: Tensor, after: Tensor, survives: Tensor) -> LayerUpdate:
    """Return the row of a weight with these live entries before, afterwards, and both times."""
    were, live, both = (count_true(each) for each in (before, after, survives))
    return LayerUpdate(name, tuple(after.shape), live, were - both, live - both)


def _with_mean(value: Tensor, kept: Tensor, born: Tensor) -> Tensor:
    """Return a second moment with the survivors' mean at newborn entries, and zero elsewhere."""
    kept, born = kept.to(value.device), born.to(value.device)
    ended = value.masked_fill(~kept, 0.0)
    count = int(kept.count_nonzero())
    mean = ended.double().sum() / count if count else torch.zeros(())
    return torch.where(born, mean.to(value), ended)


def _second_moments(optimizers: Iterable[torch.optim.Optimizer], leaf: Tensor) -> Iterable[Tensor]:
    """Yield the second moments that optimizers keep of the entries of a parameter."""
    return (value for key, value in _entries_of(optimizers, leaf) if key in _SECOND_MOMENTS)


def _entries_of(
    optimizers: Iterable[torch.optim.Optimizer], leaf: Tensor
) -> Iterable[tuple[Any, Tensor]]:
    """Yield key and value of everything that optimizers keep of the entries of a parameter."""
    for each in optimizers:
        yield from entries_of(state_of(each).get(leaf, {}), leaf.shape)
