"""Reinitialise the survivors of pruning to signed constants: where signs come from."""

import warnings
from collections.abc import Container, Mapping, Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from polarity._checks import check_fraction, check_scope
from polarity.parametrizations.arithmetic import as_mask
from polarity.parametrizations.masked import MaskedWeight
from polarity.rewind import RewindPoint, weights_of
from polarity.selection.chosen import Entries
from polarity.selection.top_k import all_finite
from polarity.signs.layer import SignField
from polarity.signs.perturb import Perturbation, Phi
from polarity.signs.perturbing import perturb_fields
from polarity.signs.read import Reference, read_signs
from polarity.signs.report import LayerSigns, SignReport
from polarity.targets.search import attached
from polarity.targets.target import Target, parametrizations_of

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
    scope: Literal["layer", "global"] = "layer",
    mix: float = 0.7,
    generator: torch.Generator | None = None,
) -> SignReport:
    r"""Set every survivor of a masked model to :math:`\pm\sigma`, in place.

    A survivor of layer :math:`l` becomes :math:`\sigma_l\, p`, where :math:`\sigma_l` is the
    (population) standard deviation of the layer's whole initial tensor and the polarity :math:`p`
    is :math:`+1` if its reference weight is at least :math:`\varphi` (zero without
    :class:`Phi`), else :math:`-1`. The strategy chooses the reference; then the other perturbations
    act on the polarities in the order given. Call it after pruning, without rewinding.

    ========================  ==================================  ===============
    strategy                  reference of a survivor             pruned entries
    ========================  ==================================  ===============
    ``mask1`` (``initial``)   its initial weight                  zero
    ``mask0`` (``trained``)   its weight as it is now             zero
    ``gradual``               now with probability ``mix``,       zero
                              else initial, each by itself
    ``standard``              its weight as it is now             trained value
    ========================  ==================================  ===============

    With ``standard`` a pruned entry comes back at the value it had when the last pruning call took
    it, and the masks are remembered but no longer enforced: the next pruning has to say its
    absolute ``density=``. The other strategies enforce the masks. Only the masked weights are
    touched: biases, normalisation and the optimizer are the caller's.

    Args:
        model: a model with masked weights.
        strategy: where signs come from.
        perturb: an :class:`Epsilon`, :class:`Delta` or :class:`Phi`, any
            :class:`~polarity.signs.perturb.Perturbation`, or a sequence (at most one ``Phi``).
        init: the initial weights, a :class:`RewindPoint` or ``{plain name: tensor}``.
        scope: whether fractions and draws are of each layer's survivors (``"layer"``) or of all
            layers' together (``"global"``). :math:`\sigma` is a layer's own in both.
        mix: for ``gradual``, the probability of the trained reference, in [0, 1].
        generator: source of every draw; same seed, same signs, on any device.

    Returns:
        The :class:`SignReport`.

    Raises:
        ValueError: if the model has no masks, the strategy or scope is unknown, ``init`` lacks a
            layer or holds it in another shape, ``mix`` is outside [0, 1], a weight or its initial
            value is NaN or infinite, or :class:`Delta` meets a layer without survivors. The model
            is left as it was.
        TypeError: if a perturbation or ``init`` is of another type.

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
    reference = weights_of(init)
    with torch.no_grad():
        strategy, fields = _signed(
            {name: _entries(target) for name, target in targets.items()},
            {name: reference[name] for name in targets if name in reference},
            strategy,
            perturb,
            scope=scope,
            mix=mix,
            generator=generator,
            hidden={name for name, target in targets.items() if _masking(target).enforce},
        )
        _check_parked(targets)
        _warn_of_constants(fields)
        layers = [_install(target, fields[name], strategy) for name, target in targets.items()]
    return SignReport(tuple(layers), strategy)


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
        trained: ``{name: weight as it is now}``; ``standard`` gives its pruned entries back.
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
    _check_tensors("trained", trained, masks)
    masks = {name: mask.to(trained[name].device) for name, mask in masks.items()}
    with torch.no_grad():
        strategy, fields = _signed(
            {name: Entries.of(trained[name], mask) for name, mask in masks.items()},
            init,
            strategy,
            perturb,
            scope=scope,
            mix=mix,
            generator=generator,
        )
        _warn_of_constants(fields)
        new_weights, layers = {}, []
        for name, field in fields.items():
            new_weights[name], layer = _new_weight(name, field, trained[name], strategy)
            layers.append(layer)
    return new_weights, SignReport(tuple(layers), strategy)


def _signed(
    trained: Mapping[str, Entries],
    init: Mapping[str, Tensor],
    strategy: str,
    perturb: Perturb,
    *,
    scope: str,
    mix: float,
    generator: torch.Generator | None,
    hidden: Container[str] = (),
) -> tuple[Strategy, dict[str, SignField]]:
    """Check everything and find all new signs, so that what is left to do cannot fail."""
    plain = _checked_strategy(strategy)
    check_scope(scope)
    check_fraction("mix", mix)
    phi, perturbations = _checked_perturbations(perturb)
    masks = {name: _mask(entries) for name, entries in trained.items()}
    _check_tensors("init", init, masks)
    fields = {
        name: read_signs(
            name,
            entries,
            masks[name],
            init[name],
            _REFERENCES[plain],
            center=phi.center,
            mix=mix,
            hidden=name in hidden,
            generator=generator,
        )
        for name, entries in trained.items()
    }
    perturb_fields(fields, perturbations, scope, generator)
    return plain, fields


def _install(target: Target, field: SignField, strategy: Strategy) -> LayerSigns:
    """Write new signs to a weight of a model; if it is a stored tensor under a mask, in place."""
    masking, leaf = _masking(target), target.stored[0].detach()
    if strategy == "standard":
        values, layer = _new_weight(target.name, field, _with_parked(target), strategy)
    elif _is_stored(target):
        values, layer = None, field.report(target.name)
        field.write(leaf, keep_pruned=False)
    else:
        like = torch.empty(target.shape, dtype=leaf.dtype, device=leaf.device)
        values, layer = _new_weight(target.name, field, like, strategy)
    masking.unpark()
    masking.enforce = strategy != "standard"
    if values is not None:
        target.write(values)
    return layer


def _new_weight(
    name: str, field: SignField, trained: Tensor, strategy: Strategy
) -> tuple[Tensor, LayerSigns]:
    """Return a new weight like a trained one, and what its signs are."""
    if strategy != "standard":
        new = torch.empty_like(trained)
        field.write(new, keep_pruned=False)
        return new, field.report(name)
    new = trained.clone()
    field.write(new, keep_pruned=True)
    return new, field.report(name, revived=int(((new != 0) & ~_mask(field.entries)).sum()))


def _entries(target: Target) -> Entries:
    """Return the trained weight with its mask, unread where it is a stored tensor."""
    leaf = target.stored[0]
    if _is_stored(target):
        return Entries.of(leaf, target.mask)
    return Entries(lambda: target.weight, target.mask, target.shape, leaf.dtype, leaf.device)


def _is_stored(target: Target) -> bool:
    """Whether the weight is one stored tensor, row-major, seen through a mask at most."""
    chain = parametrizations_of(target.uses[0].module, target.uses[0].tensor_name)
    only = chain is not None and len(chain) == 1 and type(chain[0]) is MaskedWeight
    return only and target.stored[0].is_contiguous()


def _masking(target: Target) -> MaskedWeight:
    assert target.masking is not None
    return target.masking


def _mask(entries: Entries) -> Tensor:
    assert entries.alive is not None
    return entries.alive


def _with_parked(target: Target) -> Tensor:
    return _masking(target).with_parked(target.weight)


def _check_parked(targets: Mapping[str, Target]) -> None:
    for name, target in targets.items():
        parked = _masking(target).parked_values
        if parked is not None and not all_finite(parked):
            bad = int((~parked.isfinite()).count_nonzero())
            raise ValueError(f"trained weight {name!r} holds {bad} NaN or infinite entries")


def _warn_of_constants(fields: Mapping[str, SignField]) -> None:
    for name, field in fields.items():
        if field.sigma == 0.0 and field.mask.numel():
            warnings.warn(
                f"init of {name!r} is constant, so its sigma is 0 and its survivors start at zero",
                stacklevel=3,
            )


def _checked_strategy(strategy: str) -> Strategy:
    plain = _PAPER_NAMES.get(strategy, strategy)
    if plain not in _REFERENCES:
        known = ", ".join(repr(name) for name in (*_REFERENCES, *_PAPER_NAMES))
        raise ValueError(f"strategy={strategy!r} is unknown, expected one of {known}")
    return plain  # type: ignore[return-value]


def _checked_perturbations(perturb: Perturb) -> tuple[Phi, list[Perturbation]]:
    """Split the centre of polarity from what acts on the signs afterwards."""
    given = [] if perturb is None else list(perturb) if isinstance(perturb, Sequence) else [perturb]
    centers = [each for each in given if isinstance(each, Phi)]
    if len(centers) > 1:
        raise ValueError(f"perturb holds {len(centers)} Phi ({centers}), expected at most one")
    others = [each for each in given if not isinstance(each, Phi)]
    for each in others:
        if isinstance(each, type) or not callable(each):
            raise TypeError(f"perturb takes Epsilon, Delta, Phi or a Perturbation, got {each!r}")
    return (centers[0] if centers else _ZERO), others


def _check_tensors(role: str, tensors: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> None:
    for name, mask in masks.items():
        if name not in tensors:
            raise ValueError(f"{role} lacks {name!r}, which is masked")
        if not isinstance(tensors[name], Tensor):
            given = type(tensors[name]).__name__
            raise TypeError(f"{role} holds a {given} for {name!r}, expected a tensor")
        if tensors[name].shape != mask.shape:
            raise ValueError(
                f"{role} holds {name!r} in shape {tuple(tensors[name].shape)}, "
                f"expected its mask's {tuple(mask.shape)}"
            )
