"""Reinitialise the survivors of pruning to signed constants: where signs come from."""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from polarity._bits.random import seed_from
from polarity._checks import check_fraction, check_scope
from polarity.parametrizations.arithmetic import as_mask
from polarity.rewind import RewindPoint, weights_of
from polarity.signs.captured import HOW_TO_CAPTURE, check_untrained
from polarity.signs.layer import (
    Reference,
    Survivors,
    check_finite,
    perturb_signs,
    read_survivors,
)
from polarity.signs.perturb import Perturbation, Phi
from polarity.signs.report import LayerSigns, SignReport
from polarity.targets.search import attached
from polarity.targets.target import Target

__all__ = ["Strategy", "reinit_signs", "signed_constants"]

Strategy: TypeAlias = Literal["mask1", "mask0", "gradual", "standard", "initial", "trained"]
Perturb: TypeAlias = Perturbation | Phi | Sequence[Perturbation | Phi] | None

_PAPER_NAMES = {"initial": "mask1", "trained": "mask0"}
_REFERENCES: dict[str, Reference] = {
    "mask1": "init",
    "mask0": "trained",
    "gradual": "mixed",
    "standard": "trained",
}
_ZERO = Phi(0.0)


def reinit_signs(
    model: nn.Module,
    strategy: Strategy = "mask1",
    perturb: Perturb = None,
    *,
    init: RewindPoint | Mapping[str, Tensor],
    trained: RewindPoint | Mapping[str, Tensor] | None = None,
    scope: Literal["layer", "global"] = "layer",
    mix: float = 0.7,
    generator: torch.Generator | None = None,
) -> SignReport:
    r"""Set every survivor of a masked model to :math:`\pm\sigma`, in place.

    A survivor of layer :math:`l` becomes :math:`\sigma_l\, p`, where :math:`\sigma_l` is the
    (population) standard deviation of the layer's whole initial tensor and the polarity :math:`p`
    is :math:`+1` if its reference weight is at least :math:`\varphi` (zero without
    :class:`Phi`), else :math:`-1`. The strategy chooses the reference; then the other perturbations
    act on the polarities in the order given.

    ========================  ==================================  ===============
    strategy                  reference of a survivor             pruned entries
    ========================  ==================================  ===============
    ``mask1`` (``initial``)   its initial weight                  zero
    ``mask0`` (``trained``)   its trained weight                  zero
    ``gradual``               trained with probability ``mix``,   zero
                              else initial, each by itself
    ``standard``              its trained weight                  trained value
    ========================  ==================================  ===============

    The trained weights are those of ``trained``, by default the model's present ones. A pruned
    weight no longer has the values that ``standard`` gives back, so ``standard`` needs
    ``trained``, captured immediately before the pruning call::

        trained = pol.RewindPoint.capture(model)
        pol.imp_prune(model, density=0.5)
        pol.reinit_signs(model, "standard", init=start, trained=trained)

    With ``standard`` the masks are remembered but no longer enforced: the next pruning has to give
    its absolute ``density=``. The other strategies enforce the masks. Only the masked weights are
    touched: biases, normalisation and the optimizer are the caller's.

    Args:
        model: a model with masked weights.
        strategy: where signs come from.
        perturb: an :class:`Epsilon`, :class:`Delta` or :class:`Phi`, any
            :class:`~polarity.signs.perturb.Perturbation`, or a sequence (at most one ``Phi``).
        init: the initial weights, a :class:`RewindPoint` or ``{plain name: tensor}``.
        trained: the weights before the pruning call, in the same forms. Nothing may have trained
            the survivors since: each must have its value in ``trained``, or after rewinding in
            ``init``, to within a few units of the last place.
        scope: whether fractions and draws are of each layer's survivors (``"layer"``) or of all
            layers' together (``"global"``). :math:`\sigma` is a layer's own in both.
        mix: for ``gradual``, the probability of the trained reference, in [0, 1].
        generator: source of the seed of every draw. A draw depends on its seed, the weight's name
            and the entry's flat position alone: same seed, same signs, on any device, as long as
            :data:`polarity.__draws_version__` is the same.

    Returns:
        The :class:`SignReport`.

    Raises:
        ValueError: if the model has no masks; the strategy or scope is unknown; ``init`` or
            ``trained`` is missing a layer or holds it in another shape; a weight, its trained or
            its initial value is NaN or infinite; ``standard`` is asked for without ``trained``;
            survivors have neither their value in ``trained`` nor in ``init``; ``mix`` is outside
            [0, 1]; or :class:`Delta` meets a layer without survivors. The model is left as it was.
        TypeError: if a perturbation, ``init`` or ``trained`` is of another type.

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
    targets = attached(model)
    if not targets:
        raise ValueError(f"{type(model).__name__} has no masked weights; prune it first")
    strategy, phi, perturbations = _checked(strategy, perturb, scope, mix)
    if strategy == "standard" and trained is None:
        raise ValueError(
            "strategy 'standard' gives pruned entries their trained value back, which the model "
            f"no longer has: {HOW_TO_CAPTURE}"
        )
    first = _checked_tensors("init", weights_of(init), targets)
    captured = None
    if trained is not None:
        captured = _checked_tensors("trained", weights_of(trained, "trained"), targets)
    with torch.no_grad():
        read = _of_model(targets, first, captured)
        signed = _signed(read, strategy, phi, perturbations, scope, mix, generator)
        rows = [
            _write(
                targets[each.name],
                each,
                strategy,
                None if captured is None else captured[each.name],
            )
            for each in signed
        ]
    return SignReport(tuple(rows), strategy)


def signed_constants(
    trained: Mapping[str, Tensor],
    init: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    strategy: Strategy = "mask1",
    perturb: Perturb = None,
    *,
    scope: Literal["layer", "global"] = "layer",
    mix: float = 0.7,
    generator: torch.Generator | None = None,
) -> tuple[dict[str, Tensor], SignReport]:
    """Return signed constants for tensors: :func:`reinit_signs` as a pure function.

    Args:
        trained: ``{name: trained weight}``; ``standard`` gives its pruned entries back.
        init: ``{name: initial weight}``, same shapes.
        masks: ``{name: bool tensor}``, same shapes, True for survivors.
        strategy: as for :func:`reinit_signs`.
        perturb: as for :func:`reinit_signs`.
        scope: as for :func:`reinit_signs`.
        mix: as for :func:`reinit_signs`.
        generator: as for :func:`reinit_signs`.

    Returns:
        New tensors (dtype and device of ``trained``) and the :class:`SignReport`. The arguments are
        not changed.

    Raises:
        ValueError: as :func:`reinit_signs`.
        TypeError: as :func:`reinit_signs`.

    Example:
        >>> import torch
        >>> w, mask = torch.tensor([0.5, -2.0, 0.1]), torch.tensor([True, True, False])
        >>> new, report = signed_constants({"w": w}, {"w": -w}, {"w": mask}, "mask0")
        >>> new["w"]
        tensor([ 1.0965, -1.0965,  0.0000])
    """
    masks = {name: as_mask(mask) for name, mask in masks.items()}
    strategy, phi, perturbations = _checked(strategy, perturb, scope, mix)
    trained = _checked_tensors("trained", trained, masks)
    init = _checked_tensors("init", init, masks)
    with torch.no_grad():
        for name, weight in trained.items():
            check_finite("trained", name, weight)
        read = ((n, trained[n], init[n], mask.to(trained[n].device)) for n, mask in masks.items())
        signed = _signed(read, strategy, phi, perturbations, scope, mix, generator)
        new, rows = {}, []
        for each in signed:
            new[each.name], row = _new_weight(each, trained[each.name], strategy)
            rows.append(row)
    return new, SignReport(tuple(rows), strategy)


def _of_model(
    targets: Mapping[str, Target],
    init: Mapping[str, Tensor],
    captured: Mapping[str, Tensor] | None,
) -> Iterator[tuple[str, Tensor, Tensor, Tensor]]:
    """Yield the name, trained weight, initial weight and mask of a model's weights, checked."""
    for name, target in targets.items():
        now, mask = _present(target), _checked_mask(target)
        trained = now
        if captured is not None:
            check_finite("trained", name, captured[name])
            trained = captured[name].to(now)
            check_untrained(name, mask, now, trained, init[name])
        yield name, trained, init[name], mask


def _signed(
    weights: Iterable[tuple[str, Tensor, Tensor, Tensor]],
    strategy: Strategy,
    phi: Phi,
    perturbations: Sequence[Perturbation],
    scope: str,
    mix: float,
    generator: torch.Generator | None,
) -> list[Survivors]:
    """Find all new signs, so that what is left to do cannot fail."""
    reference = _REFERENCES[strategy]
    seed = seed_from(generator) if reference == "mixed" else 0
    signed = [read_survivors(*each, reference, phi=phi, mix=mix, seed=seed) for each in weights]
    perturb_signs(signed, perturbations, scope, generator)
    for each in signed:
        if each.sigma == 0.0 and each.mask.numel():
            warnings.warn(
                f"init of {each.name!r} is constant, so its sigma is 0 and its survivors start at "
                "zero",
                stacklevel=3,
            )
    return signed


def _write(
    target: Target, survivors: Survivors, strategy: Strategy, captured: Tensor | None
) -> LayerSigns:
    """Write new signs to a weight of a model; where it is one stored tensor, in place."""
    masking, leaf = target.masking, target.stored[0].detach()
    assert masking is not None
    masking.enforce = strategy != "standard"
    if strategy != "standard" and _is_stored(target):
        survivors.write(leaf, keep_pruned=False)
        return survivors.report()
    like = torch.empty(target.shape, dtype=leaf.dtype, device=leaf.device)
    if captured is not None:
        like.copy_(captured)
    new, row = _new_weight(survivors, like, strategy)
    target.write(new)
    return row


def _new_weight(
    survivors: Survivors, trained: Tensor, strategy: Strategy
) -> tuple[Tensor, LayerSigns]:
    """Return a new weight like a trained one, and what its signs are."""
    if strategy != "standard":
        new = torch.empty_like(trained)
        survivors.write(new, keep_pruned=False)
        return new, survivors.report()
    new = trained.detach().clone()
    survivors.write(new, keep_pruned=True)
    revived = int(((new.reshape(-1) != 0) & (survivors.mask == 0)).count_nonzero())
    return new, survivors.report(revived)


def _checked_mask(target: Target) -> Tensor:
    """Return the mask itself, after counting its ones, which raises if there are other values."""
    survivors, masking = target.survivors, target.masking
    assert masking is not None, survivors
    return masking.mask


def _present(target: Target) -> Tensor:
    """Return the weight as it is; where it is one stored tensor, that tensor behind its mask."""
    return target.stored[0].detach() if _is_stored(target) else target.weight


def _is_stored(target: Target) -> bool:
    """Whether the weight is one stored tensor, row-major, seen through a mask at most."""
    return target.is_stored and target.stored[0].is_contiguous()


def _checked(
    strategy: str, perturb: Perturb, scope: str, mix: float
) -> tuple[Strategy, Phi, list[Perturbation]]:
    """Return the papers' name of the strategy, the centre of polarity, and what acts afterwards."""
    plain = _PAPER_NAMES.get(strategy, strategy)
    if plain not in _REFERENCES:
        known = ", ".join(repr(name) for name in (*_REFERENCES, *_PAPER_NAMES))
        raise ValueError(f"strategy={strategy!r} is unknown, expected one of {known}")
    check_scope(scope)
    check_fraction("mix", mix)
    given = [] if perturb is None else list(perturb) if isinstance(perturb, Sequence) else [perturb]
    centers = [each for each in given if isinstance(each, Phi)]
    if len(centers) > 1:
        raise ValueError(f"perturb holds {len(centers)} Phi ({centers}), expected at most one")
    others = [each for each in given if not isinstance(each, Phi)]
    for each in others:
        if isinstance(each, type) or not callable(each):
            raise TypeError(f"perturb takes Epsilon, Delta, Phi or a Perturbation, got {each!r}")
    return plain, centers[0] if centers else _ZERO, others  # type: ignore[return-value]


def _checked_tensors(
    role: str, tensors: Mapping[str, Tensor], like: Mapping[str, Tensor] | Mapping[str, Target]
) -> dict[str, Tensor]:
    """Return the tensors of the named weights, after a look at their types and shapes."""
    checked = {}
    for name, weight in like.items():
        if name not in tensors:
            raise ValueError(f"{role} has no {name!r}, which is masked")
        checked[name] = tensor = tensors[name]
        if not isinstance(tensor, Tensor):
            raise TypeError(
                f"{role} holds a {type(tensor).__name__} for {name!r}, expected a tensor"
            )
        if tensor.shape != weight.shape:
            raise ValueError(
                f"{role} holds {name!r} in shape {tuple(tensor.shape)}, "
                f"expected its mask's {tuple(weight.shape)}"
            )
    return checked
