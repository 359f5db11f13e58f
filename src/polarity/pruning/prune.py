"""Prune a model by any scores: exact masks, installed whole or not at all."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from polarity._bits.random import state_of, undrawn_on_error
from polarity._checks import check_module, check_names
from polarity._running import outside_inference_mode
from polarity.attach.masks import before_masking, masked_leaves
from polarity.optimizers.given import Optimizers, as_optimizers
from polarity.optimizers.pruned_state import zero_pruned_state
from polarity.optimizers.states import check_holds, note_of_divided
from polarity.pruning.install import install
from polarity.pruning.plan import HowMany, Scope
from polarity.pruning.reached import reached
from polarity.pruning.report import LayerReport, PruneReport, note_on_ties
from polarity.scores.score import Score, check_named_scores, check_score, score_weights
from polarity.scores.weight import magnitude
from polarity.selection.chosen import Chosen
from polarity.selection.ranks import Ranks
from polarity.selection.ties import Ties, draw_for
from polarity.selection.top_k import choose_among_ranks, choose_top
from polarity.targets.dense_leaves import on_dense_leaves
from polarity.targets.entries import choose_by_magnitude
from polarity.targets.replicas import chosen_alike, replicas_of
from polarity.targets.search import all_targets, attached, find_targets, masked_or_prunable
from polarity.targets.selectors import Selector, settled
from polarity.targets.shards import added, ranks_of, together
from polarity.targets.target import Target, check_has_values, count_survivors
from polarity.targets.writing import check_writable

__all__ = ["Scope", "prune", "prune_targets"]

Pairs = Sequence[tuple[Tensor, Tensor]]


@outside_inference_mode
@on_dense_leaves
def prune(
    model: nn.Module,
    scores: Mapping[str, Tensor] | Score,
    amount: float | None = None,
    *,
    density: float | None = None,
    densities: Mapping[str, float] | None = None,
    scope: Scope = "global",
    ties: Ties = "index",
    optimizer: Optimizers | None = None,
    targets: Selector | None = None,
    exclude: Selector | None = None,
    generator: torch.Generator | None = None,
) -> PruneReport:
    r"""Keep the highest-scored live entries of a model, exactly as many as asked for.

    Of :math:`N` entries, :math:`n` of them live, ``density`` :math:`d` keeps
    :math:`\operatorname{round}(dN)` and ``amount`` :math:`a` prunes
    :math:`\operatorname{round}(an)`. Of entries with equal scores those of lower index survive, in
    the model's order, or random ones, see ``ties``.

    A pruned entry is zero from here on: its stored value is zeroed, its state in ``optimizer`` too
    if that is given, and no gradient reaches it.

    Args:
        model: any module. Without masks and ``targets``, the weights that ``scores`` names are
            masked first; if ``scores`` is a function, those that ``densities`` names, or every
            prunable one. Given a ``DistributedDataParallel``, all its ranks call, and compare the
            masks that they chose before any of them changes its model.
        scores: ``{plain name: floating tensor of the weight's shape}``, one for every weight that
            the call prunes; or a function ``(name, weight) -> tensor`` of the effective weights,
            such as those of :mod:`polarity.scores`.
        amount: fraction of the survivors to prune, in [0, 1]; by position, or by name.
        density: fraction of all entries that are live afterwards, in [0, 1].
        densities: the same for each weight, ``{plain name: density}``, instead of the two above.
        scope: ``"global"`` ranks all weights together; ``"layer"`` applies the fraction to each.
        ties: which of equal entries survive where not all do: those of lower ``"index"``, or
            ``"random"`` ones. Many equal scores and the index give structured masks: whole first
            rows and first layers survive. Random ones depend on the seed, the weight's name and the
            entry's position alone.
        optimizer: an optimizer or a list of them, whose state at pruned entries is zeroed. Of the
            state that a ``ZeroRedundancyOptimizer`` keeps, each rank's call zeroes that rank's.
        targets: which weights the call prunes, in the forms of :func:`find_targets`; by default the
            masked ones. Plain ones are masked first, other masked weights keep their masks, and
            amount and density refer to the selected ones.
        exclude: which weights to leave as they are, in the same forms.
        generator: passed on as ``scores(name, weight, generator=generator)`` to a function that
            takes one; then the source of the seed of ``ties="random"``, by default the global one
            of the CPU. By default all ranks of an initialised ``torch.distributed`` group must make
            a call that draws, by :func:`polarity.scores.random` or for ties: they draw from rank
            0's seeds. With a generator nothing is communicated.

    Returns:
        The :class:`PruneReport`; a note says so if more than 1 % of the survivors were chosen among
        equal entries.

    Raises:
        ValueError: unless exactly one of ``amount``, ``density`` and ``densities`` is given and in
            range; if ``scope`` or ``ties`` is another word; if the density exceeds the present one;
            if a score is missing, of another shape, NaN or infinite; if the ranks of a
            ``DistributedDataParallel`` would prune differently; if ``optimizer`` holds none of
            the pruned parameters, or its state has another shape than its parameter. Model, masks,
            optimizer and random state are left as they were.
        TypeError: if ``scores`` is neither a mapping nor a function, if ``densities`` is not a
            mapping, if ``model``, ``optimizer`` or ``generator`` is of another type, or if a model
            that is wrapped in ``DistributedDataParallel`` has yet to be masked.

    Warns:
        UserWarning: if weights that can be pruned have no mask and are left alone; or, without
            ``targets`` and ``exclude``, if less than 90 % of the model's matrix entries are in
            reach. The largest of the rest are named.

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
        in reach: 4 of 4 matrix entries
        >>> model.weight.detach()
        tensor([[1., 0.],
                [0., 4.]])

        A random mask with the same number of survivors in every layer:

        >>> model = nn.Sequential(nn.Linear(10, 30), nn.Linear(30, 20))
        >>> draw = torch.Generator().manual_seed(0)
        >>> densities = pol.densities.balanced(model, 0.1)
        >>> print(pol.prune(model, pol.scores.random, densities=densities, generator=draw))
        weight    shape  before  after  density
        ---------------------------------------
        0.weight  30x10     300     45   0.1500
        1.weight  20x30     600     45   0.0750
        total       900     900     90   0.1000
        in reach: 900 of 900 matrix entries
    """
    check_module(model)
    if isinstance(scores, Mapping):
        check_named_scores("scores", scores)
    else:
        check_score(
            "scores", scores, "{name: tensor} or a function (name, weight) -> tensor", generator
        )
    wanted = HowMany(amount, density, densities, scope, ties)
    targets, exclude = settled(targets), settled(exclude)
    by_name = targets is None and not attached(model)
    if by_name and isinstance(scores, Mapping):
        found = _named("scores", scores, model, exclude)
    elif by_name and densities is not None:
        found = _named("densities", densities, model, exclude)
    else:
        by_name, found = False, masked_or_prunable(model, targets, exclude)
    if isinstance(scores, Mapping) and (targets is not None or exclude is not None):
        others = {target.name for target in all_targets(model)} - found.keys()
        scores = {name: value for name, value in scores.items() if name not in others}
    before_masking(model, found, "prune")
    reach, notes = reached(model, found, targets, exclude, by_name=by_name)
    report = prune_targets(found, wanted, scores, optimizer, generator, replicas=replicas_of(model))
    return replace(report, notes=notes + report.notes, reach=reach)


def prune_targets(
    found: Mapping[str, Target],
    wanted: HowMany,
    scores: Mapping[str, Tensor] | Score,
    optimizer: Optimizers | None = None,
    generator: torch.Generator | None = None,
    values: Callable[[], Pairs] | None = None,
    replicas: Ranks | None = None,
) -> PruneReport:
    """Prune weights as :func:`prune` does: everything is checked before anything is changed.

    Args:
        found: the weights.
        wanted: how many of their entries stay.
        scores: as for :func:`prune`.
        optimizer: as for :func:`prune`.
        generator: as for :func:`prune`.
        values: returns (tensor, new values) to write, of the survivors and of other tensors. By
            default everything keeps its values.
        replicas: the ranks that hold copies of the model and prune them alike, or none.
    """
    check_has_values(found.values())
    optimizers = as_optimizers(optimizer)
    ranks = ranks_of(target.stored[0] for target in found.values())
    before = count_survivors(found.values())

    def checked() -> Pairs:
        check_holds(optimizers, {name: target.stored for name, target in found.items()})
        for name, target in found.items():
            for leaf in target.stored:
                check_writable(leaf, f"what {name!r} is stored as")
        return () if values is None else values()

    # Copies may have generators in different states where nothing is drawn.
    alike = () if ranks is None else (wanted, state_of(generator))
    with undrawn_on_error(generator):
        pairs = together(ranks or replicas, checked, list(found), *alike)
        keep = wanted.keep(found, before)
        chosen = chosen_alike(
            replicas,
            lambda: _choose(found, keep, scores, wanted.ties, generator, ranks),
            lambda chosen: ((name, chosen.new_mask(name)) for name in found),
        )
        # The last that ranks tell each other: writing comes after it.
        after = added(ranks, chosen.kept)
        install(found, chosen, pairs)
        if optimizers:
            zero_pruned_state(optimizers, masked_leaves(found.values()))
    return PruneReport(
        tuple(
            LayerReport(name, tuple(target.shape), before[name], after[name])
            for name, target in found.items()
        ),
        note_on_ties(chosen.by_ties, sum(after.values()), wanted.ties)
        + note_of_divided(optimizers),
    )


def _choose(
    found: Mapping[str, Target],
    keep: int | dict[str, int],
    scores: Mapping[str, Tensor] | Score,
    ties: Ties,
    generator: torch.Generator | None,
    ranks: Ranks | None,
) -> Chosen:
    """Choose the entries that stay; magnitudes are read where they lie, without a copy."""
    if scores is magnitude:
        starts = {name: target.start for name, target in found.items()}
        return choose_by_magnitude(found, keep, draw_for(ties, generator, starts), ranks)
    if not isinstance(scores, Mapping):
        scores = score_weights(found, scores, generator)
    given = scores

    def checked() -> dict[str, Tensor]:
        check_names("scores", given, found, what="masked")
        return {name: target.piece(given[name], "scores") for name, target in found.items()}

    in_order = together(ranks, checked)
    live = {name: target.live for name, target in found.items()}
    if ranks is not None:
        return choose_among_ranks(in_order, keep, live, ties, generator, ranks)
    return choose_top(in_order, keep, live, draw_for(ties, generator))


def _named(
    parameter: str, values: Mapping[str, object], model: nn.Module, exclude: Selector | None
) -> dict[str, Target]:
    """Return the prunable weights of a plain model that ``values`` names."""
    try:
        return dict(find_targets(model, tuple(values), exclude))
    except ValueError as error:
        raise ValueError(f"{parameter} names what cannot be pruned: {error}") from None
