"""Reinitialise the survivors of pruning to signed constants: where signs come from."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from polarity._checks import check_fraction, check_scope
from polarity.parametrizations.masked import as_mask
from polarity.perturb import Perturbation, Phi
from polarity.rewind import RewindPoint, weights_of
from polarity.selection import all_finite
from polarity.sign_report import LayerSigns, SignReport
from polarity.targets import Target, attached

__all__ = ["Strategy", "reinit_signs", "signed_constants"]

Strategy: TypeAlias = Literal["mask1", "mask0", "gradual", "standard", "initial", "trained"]
Perturb: TypeAlias = Perturbation | Phi | Sequence[Perturbation | Phi] | None

_PAPER_NAMES = {"initial": "mask1", "trained": "mask0"}
_STRATEGIES = ("mask1", "mask0", "gradual", "standard")
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
            :class:`~polarity.perturb.Perturbation`, or a sequence of them (at most one ``Phi``).
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
    new_weights, report = signed_constants(
        {name: _with_parked(target) for name, target in targets.items()},
        {name: reference[name] for name in targets if name in reference},
        {name: target.mask for name, target in targets.items()},
        strategy,
        perturb,
        scope=scope,
        mix=mix,
        generator=generator,
    )
    for name, target in targets.items():
        assert target.masking is not None
        target.masking.unpark()
        target.masking.enforce = report.strategy != "standard"
        target.write(new_weights[name])
    return report


@torch.no_grad()
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
    strategy = _checked_strategy(strategy)
    check_scope(scope)
    check_fraction("mix", mix)
    phi, perturbations = _checked_perturbations(perturb)
    masks = {name: as_mask(mask) for name, mask in masks.items()}
    _check_tensors(trained, init, masks)

    alive = {name: mask.flatten().nonzero().squeeze(1) for name, mask in masks.items()}
    now = {name: trained[name].flatten()[index] for name, index in alive.items()}
    first = {name: init[name].to(index.device).flatten()[index] for name, index in alive.items()}
    reference = _reference(strategy, now, first, mix, generator)
    signs = {name: phi.polarity(values) for name, values in reference.items()}
    signs = _perturbed(signs, now, perturbations, scope, generator)

    new_weights, layers = {}, []
    for name, mask in masks.items():
        sigma = _sigma(name, init[name])
        weight = (
            trained[name].clone() if strategy == "standard" else torch.zeros_like(trained[name])
        )
        weight[mask] = signs[name].to(weight.dtype) * sigma
        new_weights[name] = weight
        revived = int(weight[~mask].count_nonzero()) if strategy == "standard" else 0
        layers.append(
            _count(name, sigma, signs[name], reference[name], first[name], now[name], revived)
        )
    return new_weights, SignReport(tuple(layers), strategy)


def _with_parked(target: Target) -> Tensor:
    assert target.masking is not None
    return target.masking.with_parked(target.weight)


def _checked_strategy(strategy: str) -> Strategy:
    plain = _PAPER_NAMES.get(strategy, strategy)
    if plain not in _STRATEGIES:
        known = ", ".join(repr(name) for name in (*_STRATEGIES, *_PAPER_NAMES))
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


def _check_tensors(
    trained: Mapping[str, Tensor], init: Mapping[str, Tensor], masks: Mapping[str, Tensor]
) -> None:
    for name, mask in masks.items():
        for role, tensors in (("trained", trained), ("init", init)):
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
            if not all_finite(tensors[name]):
                bad = int((~tensors[name].isfinite()).count_nonzero())
                raise ValueError(f"{role} weight {name!r} holds {bad} NaN or infinite entries")


def _reference(
    strategy: Strategy,
    now: dict[str, Tensor],
    first: dict[str, Tensor],
    mix: float,
    generator: torch.Generator | None,
) -> dict[str, Tensor]:
    """Return the weight that each survivor takes its polarity from."""
    if strategy == "mask1":
        return first
    if strategy != "gradual":
        return now
    device = generator.device if generator is not None else torch.device("cpu")
    mixed = {}
    for name, values in now.items():
        from_now = torch.rand(values.shape, generator=generator, device=device) < mix
        mixed[name] = torch.where(from_now.to(values.device), values, first[name])
    return mixed


def _perturbed(
    signs: dict[str, Tensor],
    now: dict[str, Tensor],
    perturbations: list[Perturbation],
    scope: str,
    generator: torch.Generator | None,
) -> dict[str, Tensor]:
    """Apply the perturbations to each layer's field of signs, or to all layers' as one field."""
    if not perturbations:
        return signs
    if scope == "layer":
        for name in signs:
            for each in perturbations:
                try:
                    signs[name] = each(signs[name], now[name].abs(), generator)
                except ValueError as error:
                    raise ValueError(f"{name}: {error}") from None
        return signs
    device = next(iter(signs.values())).device
    sizes = [field.numel() for field in signs.values()]
    wide = torch.promote_types(torch.float32, max((v.dtype for v in now.values()), key=_bits))
    field = torch.cat([each.to(device) for each in signs.values()])
    magnitudes = torch.cat([each.to(device, wide).abs() for each in now.values()])
    for each in perturbations:
        field = each(field, magnitudes, generator)
    parts = torch.split(field, sizes)
    return {name: part.to(now[name].device) for name, part in zip(signs, parts, strict=True)}


def _bits(dtype: torch.dtype) -> int:
    return torch.finfo(dtype).bits


def _sigma(name: str, init: Tensor) -> float:
    """Return the population standard deviation of a whole initial tensor, computed in float64."""
    if init.numel() == 0:
        return 0.0
    low, high = init.aminmax()
    # Rounding would make the deviation of a constant tensor tiny instead of zero.
    sigma = float(init.double().std(correction=0)) if low < high else 0.0
    if sigma == 0.0:
        warnings.warn(
            f"init of {name!r} is constant, so its sigma is 0 and its survivors start at zero",
            stacklevel=5,
        )
    return sigma


def _count(
    name: str,
    sigma: float,
    signs: Tensor,
    reference: Tensor,
    first: Tensor,
    now: Tensor,
    revived: int,
) -> LayerSigns:
    """Compare the new signs with those they came from."""
    total = signs.numel()

    def agreement(values: Tensor) -> int:
        return int((signs == _ZERO.polarity(values)).sum())

    return LayerSigns(
        name=name,
        survivors=total,
        sigma=sigma,
        positive=int((signs > 0).sum()) / total if total else 0.0,
        agree_init=agreement(first) / total if total else 0.0,
        agree_trained=agreement(now) / total if total else 0.0,
        flipped=total - agreement(reference),
        revived=revived,
    )
