"""Prune a model by any scores: exact masks, installed whole or not at all."""

from collections.abc import Mapping
from typing import TypeAlias

import torch
from torch import Tensor, nn

from polarity.attach.masks import attach_masks, masked_leaves
from polarity.optimizers.pruned_state import zero_pruned_state
from polarity.pruning.install import install
from polarity.pruning.plan import HowMany, Scope, check_names
from polarity.pruning.report import LayerReport, PruneReport
from polarity.scores.score import Score, score_weights
from polarity.scores.weight import magnitude
from polarity.selection.top_k import choose_top
from polarity.targets.entries import choose_by_magnitude
from polarity.targets.search import attached, find_targets
from polarity.targets.target import Target

__all__ = ["Optimizer", "Scope", "prune", "prune_targets"]

Optimizer: TypeAlias = torch.optim.Optimizer


def prune(
    model: nn.Module,
    scores: Mapping[str, Tensor] | Score,
    *,
    amount: float | None = None,
    density: float | None = None,
    densities: Mapping[str, float] | None = None,
    scope: Scope = "global",
    optimizer: Optimizer | None = None,
    generator: torch.Generator | None = None,
) -> PruneReport:
    r"""Keep the highest-scored living entries of a model, exactly as many as asked for.

    Over :math:`N` entries of which :math:`n` live, ``density`` :math:`d` keeps
    :math:`\operatorname{round}(dN)` and ``amount`` :math:`a` prunes
    :math:`\operatorname{round}(an)`; ties go to the lower index, in the model's order.

    A pruned entry is zero from here on: what is stored and, where ``optimizer`` is given, what the
    optimizer remembers of it are zeroed, and no gradient reaches it.

    Args:
        model: any module; without masks, every weight that ``scores`` names is masked first, or
            where that is a function, every weight that ``densities`` names, or every prunable one.
        scores: ``{plain name: floating tensor of the weight's shape}``, one for every masked
            weight; or a function ``(name, weight) -> tensor`` that makes them from the effective
            weights, as those of :mod:`polarity.scores`.
        amount: fraction of the survivors to prune, in [0, 1].
        density: fraction of all entries that live afterwards, in [0, 1].
        densities: the same for each weight, ``{plain name: density}``, instead of the two above.
        scope: ``"global"`` ranks all weights together; ``"layer"`` applies the fraction to each.
        optimizer: its state at pruned entries is zeroed.
        generator: handed on as ``scores(name, weight, generator=generator)`` to a function that
            takes one.

    Returns:
        The :class:`PruneReport`.

    Raises:
        ValueError: unless exactly one of ``amount``, ``density`` and ``densities`` is given and in
            range; if the density exceeds the present one; if a score is missing, of another shape,
            NaN or infinite; if ``optimizer`` holds none of the pruned parameters. Model, masks and
            optimizer are left as they were.
        TypeError: if ``scores`` is neither a mapping nor a function, or ``densities`` no mapping.

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

        A random mask with as many non-zeros in every layer:

        >>> model = nn.Sequential(nn.Linear(10, 30), nn.Linear(30, 20))
        >>> draw = torch.Generator().manual_seed(0)
        >>> densities = pol.densities.balanced(model, 0.1)
        >>> print(pol.prune(model, pol.scores.random, densities=densities, generator=draw))
        weight    shape  before  after  density
        ---------------------------------------
        0.weight  30x10     300     45   0.1500
        1.weight  20x30     600     45   0.0750
        total       900     900     90   0.1000
    """
    if not isinstance(scores, Mapping) and not callable(scores):
        raise TypeError(
            "scores must be {name: tensor} or a function (name, weight) -> tensor, "
            f"got {type(scores).__name__}"
        )
    wanted = HowMany(amount, density, densities, scope)
    found = attached(model)
    if not found and isinstance(scores, Mapping):
        found = _named("scores", scores, model)
    elif not found:
        found = (
            dict(find_targets(model))
            if densities is None
            else _named("densities", densities, model)
        )
    tensors: Mapping[str, Tensor] | None = None
    if isinstance(scores, Mapping):
        tensors = scores
    elif scores is not magnitude:
        tensors = score_weights(found, scores, generator)
    return prune_targets(found, wanted, tensors, optimizer)


def prune_targets(
    found: Mapping[str, Target],
    wanted: HowMany,
    scores: Mapping[str, Tensor] | None = None,
    optimizer: Optimizer | None = None,
    values: Mapping[str, Tensor] | None = None,
) -> PruneReport:
    """Prune weights as :func:`prune` does, without ``scores`` by magnitude.

    Everything is checked and chosen before anything is changed; what is written then cannot fail.

    Args:
        found: the weights.
        wanted: how many of their entries stay.
        scores: by plain name, one for each weight.
        optimizer: its state at pruned entries is zeroed.
        values: new values for the survivors, by name. By default they keep theirs.
    """
    before = {name: target.survivors for name, target in found.items()}
    if scores is not None:
        check_names("scores", scores, found)
    keep = wanted.keep(found, before)
    if scores is None:
        chosen = choose_by_magnitude(found, keep)
    else:
        live = {name: target.live for name, target in found.items()}
        chosen = choose_top({name: scores[name] for name in found}, keep, live)
    _check_optimizer(optimizer, found)
    attach_masks(found)
    install(found, chosen, values)
    if optimizer is not None:
        zero_pruned_state(optimizer, masked_leaves(found.values()))
    return PruneReport(
        tuple(
            LayerReport(name, tuple(target.shape), before[name], chosen.kept[name])
            for name, target in found.items()
        )
    )


def _named(parameter: str, values: Mapping[str, object], model: nn.Module) -> dict[str, Target]:
    """Return the prunable weights of a plain model that ``values`` names."""
    try:
        return dict(find_targets(model, tuple(values)))
    except ValueError as error:
        raise ValueError(f"{parameter} names what cannot be pruned: {error}") from None


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
