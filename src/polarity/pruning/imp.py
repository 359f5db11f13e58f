"""Rounds of iterative pruning: IMP, weight rewinding and learning-rate rewinding."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from polarity._checks import check_module, check_type
from polarity._running import outside_inference_mode
from polarity.attach.masks import before_masking, masked_leaves
from polarity.optimizers.given import (
    Optimizers,
    Schedulers,
    as_optimizers,
    as_schedulers,
    described,
)
from polarity.optimizers.pruned_state import zero_pruned_state
from polarity.pruning.plan import HowMany, Scope
from polarity.pruning.prune import Pairs, prune_targets
from polarity.pruning.reached import reached
from polarity.pruning.report import PruneReport
from polarity.rewind import RewindPoint
from polarity.scores import Score, magnitude
from polarity.scores.score import check_score
from polarity.selection.ties import Ties
from polarity.targets.dense_leaves import on_dense_leaves
from polarity.targets.replicas import replicas_of
from polarity.targets.search import all_targets, attached, masked_or_prunable
from polarity.targets.selectors import Selector, settled
from polarity.targets.shards import ranks_of_model, together

__all__ = ["imp_prune", "lrr_step"]


@outside_inference_mode
@on_dense_leaves
def imp_prune(
    model: nn.Module,
    amount: float | None = None,
    *,
    density: float | None = None,
    scope: Scope = "global",
    ties: Ties = "index",
    score: Score | None = None,
    rewind: RewindPoint | None = None,
    optimizer: Optimizers | None = None,
    scheduler: Schedulers | None = None,
    targets: Selector | None = None,
    exclude: Selector | None = None,
    generator: torch.Generator | None = None,
) -> PruneReport:
    """Prune the smallest weights and, with ``rewind``, rewind the rest: one round of IMP.

    Iterative magnitude pruning trains, prunes a fraction of the survivors, restores the initial
    values of the rest, and repeats. With a point captured after some warm-up it is weight
    rewinding. Without ``rewind`` the survivors keep their trained values, for
    :func:`reinit_signs` or for gradual pruning. Pruned values are lost: capture a
    :class:`RewindPoint` before the call if strategy ``standard`` is to restore them.

    Args:
        model: any module; without masks, all its prunable weights are masked first. Given a
            ``DistributedDataParallel``, all its ranks call, as for :func:`prune`.
        amount: fraction of the survivors to prune, in [0, 1]; 0.2 if neither is given.
        density: fraction of all entries that are live afterwards, in [0, 1].
        scope: ``"global"`` ranks all weights together; ``"layer"`` applies the fraction to each.
        ties: which of equal entries survive where not all do: those of lower ``"index"``, or
            ``"random"`` ones. After :func:`reinit_signs` all magnitudes of a layer are equal: the
            index then empties whole rows, random ones leave each row its share.
        score: ``(name, weight) -> tensor`` of the weight's shape, the highest survive;
            :func:`polarity.scores.magnitude` by default.
        rewind: the point to restore: survivors, other parameters, buffers, and the state of the
            optimizer and scheduler that are given below.
        optimizer: an optimizer or a list of them. Its state is restored from ``rewind`` if that
            holds one, and zeroed at pruned entries. Of the state that a ``ZeroRedundancyOptimizer``
            keeps, each rank's call zeroes that rank's.
        scheduler: a scheduler or a list of them, whose state is restored from ``rewind``.
        targets: which weights to prune, in the forms of :func:`find_targets`; by default the masked
            ones, or all prunable ones if none is masked. Plain ones are masked first, other masked
            weights keep their masks, and amount and density refer to the selected ones.
        exclude: which weights to leave as they are, in the same forms.
        generator: passed on as ``score(name, weight, generator=generator)`` to a score that takes
            one; then the source of the seed of ``ties="random"``. Otherwise nothing is drawn.
            Without it, all ranks of an initialised ``torch.distributed`` group must make a call
            that draws.

    Returns:
        The :class:`PruneReport`; its notes say what was rewound, and if more than 1 % of the
        survivors were chosen among equal entries.

    Raises:
        ValueError: if both ``amount`` and ``density`` are given or one is out of range; if
            ``scope`` or ``ties`` is another word; if the density exceeds the present one; if
            ``amount`` is given while a mask is not enforced; if the model has no prunable weights;
            if a weight or score is NaN or infinite; if the ranks of a ``DistributedDataParallel``
            would prune differently; if ``rewind`` does not fit the model, has
            parameters that are not finite, or holds the state of another class of optimizer or
            scheduler; if a weight that it rewinds has a further parametrization without
            ``right_inverse``; if ``optimizer`` holds none of the pruned parameters, or its state
            has another shape than its parameter. Model, masks, optimizer and random state are left
            as they were.
        TypeError: if an argument is of another type, or a model that is wrapped in
            ``DistributedDataParallel`` has yet to be masked.

    Warns:
        UserWarning: if weights that can be pruned have no mask and are left alone; or, without
            ``targets`` and ``exclude``, if less than 90 % of the model's matrix entries are in
            reach. The largest of the rest are named.

    Example:
        >>> from torch import nn
        >>> import polarity as pol
        >>> model = nn.Sequential(nn.Linear(10, 10), nn.ReLU(), nn.Linear(10, 5))
        >>> start = pol.RewindPoint.capture(model)
        >>> for _ in range(3):  # train in between
        ...     report = pol.imp_prune(model, 0.2, rewind=start)
        >>> report.survivors, report.total
        (77, 150)

    Source: Frankle & Carbin (2019), strategy 1; *Fragility of Polarity*, section 2.
    """
    _check(model, score, scheduler, generator)
    wanted = _how_many(amount, density, scope, ties)
    if rewind is None:
        if scheduler is not None:
            given = described(as_schedulers(scheduler))
            raise ValueError(
                f"scheduler={given} is given without rewind, expected both: "
                "pass rewind=RewindPoint.capture(model, optimizer, scheduler)"
            )
        return _prune(model, wanted, score, optimizer, generator, targets, exclude)
    _check_rewind(rewind)
    point, restored = rewind, optimizer if rewind.optimizer is not None else None

    def checked() -> Callable[[], None]:
        point.check(model)
        return _staged_schedule(model, point, restored, scheduler)

    restore = together(ranks_of_model(model) or replicas_of(model), checked)
    report = _prune(model, wanted, score, optimizer, generator, targets, exclude, rewind)
    restore()
    rewound = "rewound: every parameter and buffer to the rewind point"
    notes = _after_restoring(model, rewind, optimizer, scheduler)
    return replace(report, notes=(*report.notes, rewound, *notes))


@outside_inference_mode
@on_dense_leaves
def lrr_step(
    model: nn.Module,
    amount: float | None = None,
    *,
    rewind: RewindPoint,
    density: float | None = None,
    scope: Scope = "global",
    ties: Ties = "index",
    score: Score | None = None,
    optimizer: Optimizers | None = None,
    scheduler: Schedulers | None = None,
    targets: Selector | None = None,
    exclude: Selector | None = None,
    generator: torch.Generator | None = None,
) -> PruneReport:
    """Prune the smallest weights, keep the rest as trained and rewind the schedule: a round of LRR.

    Learning-rate rewinding restores the optimizer (learning rate, momentum) and the scheduler to
    the rewind point; no weight, bias, or running statistic is rewound.

    Args:
        model: as for :func:`imp_prune`.
        amount: fraction of the survivors to prune, in [0, 1]; 0.2 if neither is given.
        rewind: the point whose schedule is restored.
        density: fraction of all entries that are live afterwards, in [0, 1].
        scope: as for :func:`imp_prune`.
        ties: as for :func:`imp_prune`.
        score: as for :func:`imp_prune`.
        optimizer: an optimizer or a list of them. Its state is restored from ``rewind``, and zeroed
            at pruned entries. Leave it out if your loop builds a new optimizer each round.
        scheduler: a scheduler or a list of them, whose state is restored from ``rewind``.
        targets: as for :func:`imp_prune`.
        exclude: as for :func:`imp_prune`.
        generator: as for :func:`imp_prune`.

    Returns:
        The :class:`PruneReport`; its notes say what was rewound and what was not.

    Raises:
        ValueError: as :func:`imp_prune`; or if ``rewind`` holds no state for the optimizer or
            scheduler that is given.
        TypeError: as :func:`imp_prune`.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> import polarity as pol
        >>> model = pol.mask_weights(nn.Linear(10, 10))
        >>> sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        >>> start = pol.RewindPoint.capture(model, sgd)
        >>> sgd.param_groups[0]["lr"] = 0.001  # the schedule ran
        >>> report = pol.lrr_step(model, 0.2, rewind=start, optimizer=sgd)
        >>> report.survivors, sgd.param_groups[0]["lr"]
        (80, 0.1)

    Source: Renda et al. (2020), section 3; *Find a Winning Sign*, section 2.
    """
    _check(model, score, scheduler, generator)
    _check_rewind(rewind)
    restore = together(
        ranks_of_model(model) or replicas_of(model),
        lambda: _staged_schedule(model, rewind, optimizer, scheduler),
    )
    wanted = _how_many(amount, density, scope, ties)
    report = _prune(model, wanted, score, optimizer, generator, targets, exclude)
    restore()
    notes = _after_restoring(model, rewind, optimizer, scheduler)
    return replace(report, notes=(*report.notes, *notes))


def _check(
    model: object, score: object, scheduler: Schedulers | None, generator: torch.Generator | None
) -> None:
    """Raise unless the model, the score and the scheduler are what they are called."""
    check_module(model)
    if score is not None:
        check_score("score", score, "a function (name, weight) -> tensor", generator)
    as_schedulers(scheduler)


def _check_rewind(rewind: object) -> None:
    """Raise unless ``rewind`` is a rewind point."""
    expected = "a RewindPoint: RewindPoint.capture(model), for instance"
    check_type("rewind", rewind, RewindPoint, expected)


def _how_many(amount: float | None, density: float | None, scope: Scope, ties: Ties) -> HowMany:
    """Return the request as one value, by default to prune the papers' fifth of the survivors."""
    if amount is None and density is None:
        amount = 0.2
    return HowMany(amount, density, scope=scope, ties=ties)


def _prune(
    model: nn.Module,
    wanted: HowMany,
    score: Score | None,
    optimizer: Optimizers | None,
    generator: torch.Generator | None,
    targets: Selector | None,
    exclude: Selector | None,
    rewind: RewindPoint | None = None,
) -> PruneReport:
    """Prune the selected weights, and with ``rewind`` rewind the whole model."""
    targets, exclude = settled(targets), settled(exclude)
    found = masked_or_prunable(model, targets, exclude)
    before_masking(model, found, "imp_prune")
    reach, notes = reached(model, found, targets, exclude)

    def rewound() -> Pairs:
        assert rewind is not None
        return rewind.staged(model, pruned=tuple(found))

    values = None if rewind is None else rewound
    report = prune_targets(
        found,
        wanted,
        score or magnitude,
        optimizer,
        generator,
        values,
        replicas=replicas_of(model),
    )
    return replace(report, notes=notes + report.notes, reach=reach)


def _staged_schedule(
    model: nn.Module,
    rewind: RewindPoint,
    optimizer: Optimizers | None,
    scheduler: Schedulers | None,
) -> Callable[[], None]:
    """Check what is to be restored of optimizers and schedulers, and return what restores it."""
    names = {id(leaf): target.name for target in all_targets(model) for leaf in target.stored}
    rewind.check_schedule(optimizer, scheduler, names)
    return rewind.staged_schedule(optimizer, scheduler)


def _after_restoring(
    model: nn.Module,
    rewind: RewindPoint,
    optimizer: Optimizers | None,
    scheduler: Schedulers | None,
) -> tuple[str, ...]:
    """Zero the restored state of pruned entries, and note what was restored."""
    if optimizer is not None and rewind.optimizer is not None:
        # The restored state is older than the masks.
        leaves = masked_leaves(attached(model).values())
        zero_pruned_state(as_optimizers(optimizer), leaves)
    notes = []
    for role, given, held in (
        ("optimizer", optimizer, rewind.optimizer),
        ("scheduler", scheduler, rewind.scheduler),
    ):
        if given is not None and held is not None:
            notes.append(f"rewound: {role}")
        elif given is not None:
            notes.append(f"not rewound: {role} (the rewind point holds none)")
        elif held is not None:
            notes.append(f"not rewound: {role} (none given)")
    return tuple(notes)
