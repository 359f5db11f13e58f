"""Reinitialise the survivors of a pruned model to signed constants."""

from collections.abc import Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from polarity._bits.random import undrawn_on_error
from polarity._checks import (
    check_entries,
    check_floating,
    check_generator,
    check_names,
    check_tensors,
)
from polarity._running import outside_inference_mode
from polarity.attach.masks import masked_weights
from polarity.rewind import RewindPoint, weights_of
from polarity.signs.captured import HOW_TO_CAPTURE, check_untrained
from polarity.signs.constants import Revived, Strategy, checked_request, signed_survivors
from polarity.signs.given import Perturb
from polarity.signs.layer import Survivors, at_sigma, reported
from polarity.signs.report import SignReport
from polarity.targets.dense_leaves import on_dense_leaves
from polarity.targets.left_out import reach_of, why_without_mask
from polarity.targets.search import all_targets
from polarity.targets.shards import ranks_of, together
from polarity.targets.target import Target, check_has_values, count_survivors, refuse_compact
from polarity.targets.writing import check_writable, write_all

__all__ = ["reinit_signs"]


@outside_inference_mode
@on_dense_leaves
def reinit_signs(
    model: nn.Module,
    strategy: Strategy = "mask1",
    perturb: Perturb = None,
    *,
    init: RewindPoint | Mapping[str, Tensor],
    trained: RewindPoint | Mapping[str, Tensor] | None = None,
    scope: Literal["layer", "global"] = "layer",
    mix: float = 0.7,
    revived: Revived = "trained",
    generator: torch.Generator | None = None,
) -> SignReport:
    r"""Set every survivor of a masked model to :math:`\pm\sigma`, in place.

    A survivor of layer :math:`l` becomes :math:`\sigma_l\, p`, where :math:`\sigma_l` is the
    (population) standard deviation of the layer's whole initial tensor and the polarity :math:`p`
    is :math:`+1` if its reference weight is at least :math:`\varphi` (zero unless :class:`Phi` is
    given), else :math:`-1`. The strategy chooses the reference; the other perturbations then act on
    the polarities in the order given.

    ========================  ==================================  ===============
    strategy                  reference of a survivor             pruned entries
    ========================  ==================================  ===============
    ``mask1`` (``initial``)   its initial weight                  zero
    ``mask0`` (``trained``)   its trained weight                  zero
    ``gradual``               trained with probability ``mix``,   zero
                              else initial, independently
    ``standard``              its trained weight                  trained value,
                                                                  see ``revived``
    ========================  ==================================  ===============

    The trained weights are those of ``trained``, by default the present ones of the model. Pruning
    deletes the values that ``standard`` restores, so ``standard`` needs ``trained``, captured
    immediately before the pruning call::

        trained = pol.RewindPoint.capture(model)
        pol.imp_prune(model, density=0.5)
        pol.reinit_signs(model, "standard", init=start, trained=trained)

    The papers describe ``standard`` in two ways, and ``revived`` chooses. Perturbations act on the
    survivors in both.

    - ``"trained"``: "The pruned weights are set to their trained values at that instant" (*Beyond
      the Zero-Crossing*, section 2.1).
    - ``"sigma"``: the strategy "references the trained signs but does not enforce the pruning mask,
      effectively 'reviving' pruned weights" (*Fragility of Polarity*, section 2.1). A pruned entry
      comes back at :math:`\pm\sigma_l`, with the polarity of its trained value. An entry that is 0
      in ``trained``, since an earlier call pruned it, has no trained sign and stays 0.

    With ``standard`` the masks are remembered but no longer enforced: the next pruning call must
    give its absolute ``density=``. The other strategies enforce the masks. Only the masked weights
    are changed, not biases, normalisation or the optimizer.

    Args:
        model: a model with masked weights.
        strategy: the source of the signs, see the table.
        perturb: an :class:`Epsilon`, :class:`Delta` or :class:`Phi`, any
            :class:`~polarity.signs.perturb.Perturbation`, or a sequence (at most one ``Phi``).
        init: the initial weights, a :class:`RewindPoint` or ``{plain name: tensor}``.
        trained: the weights before the pruning call, in the same forms. The survivors must not have
            been trained since: each must have its value in ``trained`` or, after rewinding, in
            ``init``, to within a few units of the last place.
        scope: apply perturbations to each layer's survivors (``"layer"``) or to all survivors
            together (``"global"``). :math:`\sigma` is a layer's own in both.
        mix: for ``gradual``, the probability of the trained reference, in [0, 1].
        revived: for ``standard``, the magnitude with which pruned entries come back: ``"trained"``
            or ``"sigma"``.
        generator: source of the seed of every draw; by default the global one of the CPU. A draw
            depends only on its seed, the weight's name and the entry's flat position: the same seed
            gives the same signs on any device, with the same :data:`polarity.__draws_version__`.
            By default all ranks of an initialised ``torch.distributed`` group must call: they draw
            from rank 0's seeds. With a generator nothing is communicated.

    Returns:
        The :class:`SignReport`.

    Raises:
        ValueError: if the model has no masks; the strategy, scope or ``revived`` is unknown;
            ``init`` or ``trained`` is missing a layer or holds it in another shape; a weight, its
            trained or its initial value is NaN or infinite; ``standard`` is asked for without
            ``trained``; survivors have neither their value in ``trained`` nor in ``init``; ``mix``
            is outside [0, 1]; ``revived`` is ``"sigma"`` with another strategy than ``standard``;
            :class:`Delta` is applied to a layer without survivors; or a weight has a further
            parametrization without ``right_inverse``. The model and the random state are left as
            they were.
        TypeError: if ``model``, a perturbation, ``init``, ``trained`` or ``generator`` is of
            another type.

    Warns:
        UserWarning: if the initial tensor of a layer is constant, so that :math:`\sigma = 0` and
            the layer starts from zeros (torchvision's ViT head does).

    Example:
        >>> import torch
        >>> from torch import nn
        >>> import polarity as pol
        >>> model = nn.Linear(4, 1, bias=False)
        >>> _ = model.weight.data.copy_(torch.tensor([[-1.0, 3.0, -3.0, 1.0]]))
        >>> start = pol.RewindPoint.capture(model)
        >>> _ = pol.imp_prune(model, density=0.5)
        >>> report = pol.reinit_signs(model, "mask1", init=start)
        >>> model.weight.detach()
        tensor([[ 0.0000,  2.2361, -2.2361,  0.0000]])

    Source: *Fragility of Polarity*, section 2; *Beyond the Zero-Crossing*, section 2; the constant
    magnitude from Zhou et al. (2019), section 3.
    """
    targets = masked_weights(model)
    check_generator(generator)
    check_has_values(targets.values())
    strategy, phi, perturbations = checked_request(strategy, perturb, scope, mix, revived)
    if strategy == "standard" and trained is None:
        raise ValueError(
            "trained=None, but strategy 'standard' gives pruned entries their trained value back, "
            f"which the model no longer has: {HOW_TO_CAPTURE}"
        )
    if strategy == "standard":
        refuse_compact(targets, "strategy 'standard'")
    ranks = ranks_of(target.stored[0] for target in targets.values())

    def checked() -> tuple[dict[str, Tensor], dict[str, Tensor] | None]:
        first = _given(init, "init", targets)
        return first, None if trained is None else _given(trained, "trained", targets)

    first, captured = together(ranks, checked, list(targets), strategy, revived, trained is None)
    count_survivors(targets.values())  # raises if a mask holds other values than 0 and 1
    with torch.no_grad(), undrawn_on_error(generator):
        read = _of_model(targets, first, captured)
        signed = signed_survivors(read, strategy, phi, perturbations, scope, mix, generator, ranks)
        remembered = captured if strategy == "standard" else None
        back: dict[str, int] = {}
        pairs: list[tuple[Tensor, Tensor]] = []
        in_place: list[tuple[Survivors, Tensor]] = []
        for each in signed:
            target = targets[each.name]
            leaf, pruned = target.pieces[0].detach(), None
            if target.is_stored and remembered is None:
                # Signs go straight to what is stored: a staged copy takes as much memory again.
                in_place.append((each, leaf))
                continue
            if remembered is not None:
                pruned = remembered[each.name].to(leaf)
                pruned = at_sigma(pruned, phi, each.sigma) if revived == "sigma" else pruned
            new = torch.empty_like(leaf)
            back[each.name] = each.write(new, pruned)
            mask = target.numeric_mask if remembered is None else None
            pairs += [(leaf, new)] if target.is_stored else target.staged_under(new, mask)
        # The last that ranks tell each other: writing comes after it.
        rows = reported(signed, back, ranks)
        write_all(pairs)
        for each, leaf in in_place:
            each.write(leaf)
        for target in targets.values():
            if target.masking is not None:
                target.masking.enforce = remembered is None
    reach = reach_of(all_targets(model), targets, why_without_mask)
    return SignReport(rows, strategy, reach)


def _given(
    given: RewindPoint | Mapping[str, Tensor], parameter: str, targets: Mapping[str, Target]
) -> dict[str, Tensor]:
    """Return the tensors that belong to weights, or to this rank's pieces of them, checked."""
    values = weights_of(given, parameter)
    check_names(parameter, values, values, needed=targets, what="masked")
    for name in targets:
        check_floating(f"{parameter}[{name!r}]", values[name])
    shapes = {name: target.shape_here for name, target in targets.items()}
    pieces = {name: target.piece(values[name], parameter) for name, target in targets.items()}
    check_tensors(parameter, pieces, shapes, what="masked")
    return pieces


def _of_model(
    targets: Mapping[str, Target],
    init: Mapping[str, Tensor],
    captured: Mapping[str, Tensor] | None,
) -> Iterator[tuple[str, int, Tensor, Tensor, Tensor]]:
    """Yield the name, start, trained weight, initial weight and mask of weights, checked."""
    for name, target in targets.items():
        # Stored values outside the mask are never read, so no product with the mask is needed.
        now = target.pieces[0].detach() if target.is_stored else target.weight
        trained, mask = now, target.numeric_mask
        assert mask is not None
        # Refused here, before anything is drawn, if it cannot be written.
        check_writable(target.stored[0].detach(), f"weight {name!r}")
        if not target.is_stored:
            target.staged_under(now, None)
        if captured is not None:
            check_entries(f"trained weight {name!r}", captured[name])
            trained = captured[name].to(now)
            check_untrained(name, mask, now, trained, init[name])
        yield name, target.start, trained, init[name], mask
