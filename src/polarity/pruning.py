"""Prune a model by any scores: exact masks, installed whole or not at all."""

from collections.abc import Mapping
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from polarity._checks import check_fraction, check_scope
from polarity.conversion import attach_masks, masked_leaves, set_mask
from polarity.optimizer_state import zero_pruned_state
from polarity.prune_report import LayerReport, PruneReport
from polarity.selection import keep_top, keep_top_each
from polarity.targets import Target, attached, find_targets

__all__ = ["Optimizer", "Scope", "prune", "prune_targets"]

Scope: TypeAlias = Literal["global", "layer"]
Optimizer: TypeAlias = torch.optim.Optimizer


def prune(
    model: nn.Module,
    scores: Mapping[str, Tensor],
    *,
    amount: float | None = None,
    density: float | None = None,
    densities: Mapping[str, float] | None = None,
    scope: Scope = "global",
    optimizer: Optimizer | None = None,
) -> PruneReport:
    r"""Keep the highest-scored living entries of a model, exactly as many as asked for.

    Over :math:`N` entries of which :math:`n` live, ``density`` :math:`d` keeps
    :math:`\operatorname{round}(dN)` and ``amount`` :math:`a` prunes
    :math:`\operatorname{round}(an)`; ties go to the lower index, in the model's order.

    A pruned entry is zero from here on: what is stored and, where ``optimizer`` is given, what the
    optimizer remembers of it are zeroed, and no gradient reaches it. The value that it had is set
    aside until the next call for :func:`reinit_signs` with strategy ``standard``.

    Args:
        model: any module; without masks, every weight that ``scores`` names is masked first.
        scores: ``{plain name: floating tensor of the weight's shape}``, one for every masked
            weight.
        amount: fraction of the survivors to prune, in [0, 1].
        density: fraction of all entries that live afterwards, in [0, 1].
        densities: the same for each weight, ``{plain name: density}``, instead of the two above.
        scope: ``"global"`` ranks all weights together; ``"layer"`` applies the fraction to each.
        optimizer: its state at pruned entries is zeroed.

    Returns:
        The :class:`PruneReport`.

    Raises:
        ValueError: unless exactly one of ``amount``, ``density`` and ``densities`` is given and in
            range; if the density exceeds the present one; if a score is missing, of another shape,
            NaN or infinite; if ``optimizer`` holds none of the pruned parameters. Model, masks and
            optimizer are left as they were.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> import polarity as pol
        >>> model = nn.Linear(2, 2, bias=False)
        >>> _ = model.weight.data.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        >>> print(pol.prune(model, {"weight": torch.tensor([[9.0, 0], [0, 1]])}, density=0.5))
        weight  shape  before  after  density
        -------------------------------------
        weight    2x2       4      2   0.5000
        total       4       4      2   0.5000
        >>> model.weight.detach()
        tensor([[1., 0.],
                [0., 4.]])
    """
    found = attached(model) or dict(find_targets(model, tuple(scores)))
    return prune_targets(found, scores, amount, density, densities, scope, optimizer, park=True)


def prune_targets(
    found: Mapping[str, Target],
    scores: Mapping[str, Tensor],
    amount: float | None,
    density: float | None,
    densities: Mapping[str, float] | None,
    scope: Scope,
    optimizer: Optimizer | None,
    *,
    park: bool,
) -> PruneReport:
    """Prune targets as :func:`prune` does; ``park`` sets the values of pruned entries aside.

    Whatever can be wrong raises before anything is changed.
    """
    new_masks = _plan(found, scores, amount, density, densities, scope)
    _check_optimizer(optimizer, found)
    report = _report(found, new_masks)
    attach_masks(found)
    for name, target in found.items():
        set_mask(target, new_masks[name], park=park)
    if optimizer is not None:
        zero_pruned_state(optimizer, masked_leaves(found.values()))
    return report


def _plan(
    found: Mapping[str, Target],
    scores: Mapping[str, Tensor],
    amount: float | None,
    density: float | None,
    densities: Mapping[str, float] | None,
    scope: Scope,
) -> dict[str, Tensor]:
    """Return the new masks; everything that can be wrong is found here, before any change."""
    given = {"amount": amount, "density": density, "densities": densities}
    present = {name: value for name, value in given.items() if value is not None}
    if len(present) != 1:
        listed = ", ".join(f"{name}={value!r}" for name, value in given.items())
        raise ValueError(f"give exactly one of amount, density and densities, got {listed}")
    check_scope(scope)
    _check_names("scores", scores, found)
    if densities is not None:
        _check_names("densities", densities, found)
        for name, value in densities.items():
            check_fraction(f"densities[{name!r}]", value)
    alive = {name: _alive(target, amount) for name, target in found.items()}
    ordered = {name: scores[name] for name in found}
    living = {name: int(mask.count_nonzero()) for name, mask in alive.items()}

    if densities is not None or scope == "layer":
        wanted = dict.fromkeys(found, density) if densities is None else densities
        keep = {
            name: _keep(living[name], target.shape.numel(), amount, wanted[name], name)
            for name, target in found.items()
        }
        return keep_top_each(ordered, keep, alive)
    total = sum(target.shape.numel() for target in found.values())
    return keep_top(
        ordered, _keep(sum(living.values()), total, amount, density, "the model"), alive
    )


def _alive(target: Target, amount: float | None) -> Tensor:
    """Which entries can be kept: a mask that is not enforced lets every entry compete again."""
    if target.masking is None or target.masking.enforce:
        return target.mask
    if amount is not None:
        raise ValueError(
            f"amount={amount!r} is a fraction of the survivors, but the mask of {target.name!r} is "
            "not enforced (strategy 'standard'), so every entry lives: give density="
        )
    return torch.ones_like(target.mask)


def _check_names(parameter: str, values: Mapping[str, object], found: Mapping[str, Target]) -> None:
    """Raise unless ``values`` names exactly the weights that are masked."""
    if not isinstance(values, Mapping):
        raise TypeError(f"{parameter} must be {{name: value}}, got {type(values).__name__}")
    for name in found:
        if name not in values:
            raise ValueError(f"{parameter} lacks {name!r}, which is masked")
    for name in values:
        if name not in found:
            raise ValueError(f"{parameter} holds {name!r}, which is not masked")


def _keep(living: int, total: int, amount: float | None, density: float | None, what: str) -> int:
    """Return how many entries of ``what`` live afterwards."""
    if amount is not None:
        check_fraction("amount", amount)
        return living - round(amount * living)
    assert density is not None
    check_fraction("density", density)
    keep = round(density * total)
    if keep > living:
        raise ValueError(
            f"density={density!r} would keep {keep} of {total} entries of {what}, "
            f"but only {living} live (density {living / total:.6g})"
        )
    return keep


def _check_optimizer(optimizer: Optimizer | None, found: Mapping[str, Target]) -> None:
    if optimizer is None:
        return
    held = {id(each) for group in optimizer.param_groups for each in group["params"]}
    leaves = [leaf for target in found.values() for leaf in target.stored]
    if not any(id(leaf) in held for leaf in leaves):
        raise ValueError(
            f"optimizer={type(optimizer).__name__} holds none of the {len(leaves)} prunable "
            f"parameters (the first is {next(iter(found))!r}): was it built for another model?"
        )


def _report(found: Mapping[str, Target], new_masks: Mapping[str, Tensor]) -> PruneReport:
    """Compare the masks as they are with those that will be installed."""
    return PruneReport(
        tuple(
            LayerReport(
                name,
                tuple(target.shape),
                int(target.mask.count_nonzero()),
                int(new_masks[name].count_nonzero()),
            )
            for name, target in found.items()
        )
    )
