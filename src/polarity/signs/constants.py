"""Signed constants for tensors: which signs survivors get, as pure functions."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from polarity._bits.random import seed_from, state_of, undrawn_on_error
from polarity._checks import (
    check_choice,
    check_entries,
    check_fraction,
    check_generator,
    check_mapping,
    check_scope,
    check_tensors,
    text_of,
)
from polarity._running import outside_inference_mode
from polarity._warnings import warn_caller
from polarity.parametrizations.arithmetic import as_mask
from polarity.selection.ranks import Ranks
from polarity.signs.given import Perturb, sorted_out
from polarity.signs.layer import (
    Reference,
    Survivors,
    at_sigma,
    find_sigmas,
    mix_references,
    perturb_signs,
    read_survivors,
    reported,
)
from polarity.signs.perturb import Delta, Epsilon, Perturbation, Phi
from polarity.signs.report import SignReport
from polarity.targets.shards import refuse_pieces, together

__all__ = ["Revived", "Strategy", "checked_request", "signed_constants", "signed_survivors"]

Revived: TypeAlias = Literal["trained", "sigma"]
Strategy: TypeAlias = Literal["mask1", "mask0", "gradual", "standard", "initial", "trained"]

_PAPER_NAMES = {"initial": "mask1", "trained": "mask0"}
_REFERENCES: dict[str, Reference] = {
    "mask1": "init",
    "mask0": "trained",
    "gradual": "init",  # the others are drawn when everything has been checked
    "standard": "trained",
}


@outside_inference_mode
def signed_constants(
    trained: Mapping[str, Tensor],
    init: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    strategy: Strategy = "mask1",
    perturb: Perturb = None,
    *,
    scope: Literal["layer", "global"] = "layer",
    mix: float = 0.7,
    revived: Revived = "trained",
    generator: torch.Generator | None = None,
) -> tuple[dict[str, Tensor], SignReport]:
    """Return signed constants for tensors: :func:`reinit_signs` as a pure function.

    Args:
        trained: ``{name: trained weight}``; ``standard`` brings its pruned entries back.
        init: ``{name: initial weight}``, same shapes.
        masks: ``{name: bool tensor}``, same shapes, True for survivors.
        strategy: as for :func:`reinit_signs`.
        perturb: as for :func:`reinit_signs`.
        scope: as for :func:`reinit_signs`.
        mix: as for :func:`reinit_signs`.
        revived: as for :func:`reinit_signs`.
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
    check_mapping("masks", masks, "{name: mask}")
    if not masks:
        raise ValueError("masks is empty, expected at least one {name: mask}")
    masks = {name: _as_mask(name, mask) for name, mask in masks.items()}
    check_generator(generator)
    strategy, phi, perturbations = checked_request(strategy, perturb, scope, mix, revived)
    shapes = {name: mask.shape for name, mask in masks.items()}
    check_tensors("trained", trained, shapes, "masked", "mask")
    check_tensors("init", init, shapes, "masked", "mask")
    refuse_pieces("trained", trained, "signed_constants")
    refuse_pieces("init", init, "signed_constants")
    with torch.no_grad():
        for name in masks:
            check_entries(f"trained weight {name!r}", trained[name])
        read = (
            (n, 0, trained[n], init[n], mask.to(trained[n].device)) for n, mask in masks.items()
        )
        signed = signed_survivors(read, strategy, phi, perturbations, scope, mix, generator)
        new, revived_of = {name: torch.empty_like(trained[name]) for name in masks}, {}
        for each in signed:
            pruned = trained[each.name] if strategy == "standard" else None
            if pruned is not None and revived == "sigma":
                pruned = at_sigma(pruned, phi, each.sigma)
            revived_of[each.name] = each.write(new[each.name], pruned)
    return new, SignReport(reported(signed, revived_of, None), strategy)


def _as_mask(name: str, mask: Tensor) -> Tensor:
    """Return a mask as bools, with its name in the error if it is none."""
    try:
        return as_mask(mask)
    except (TypeError, ValueError) as error:
        raise type(error)(f"masks[{name!r}]: {error}") from None


def checked_request(
    strategy: str, perturb: Perturb, scope: str, mix: float, revived: str
) -> tuple[Strategy, Phi, list[Perturbation]]:
    """Return the papers' name of the strategy, the centre of polarity, and the perturbations."""
    check_choice("strategy", strategy, (*_REFERENCES, *_PAPER_NAMES))
    check_scope(scope)
    check_fraction("mix", mix)
    check_choice("revived", revived, ("trained", "sigma"))
    if revived == "sigma" and strategy != "standard":
        raise ValueError(
            f"revived='sigma' with strategy={strategy!r}, expected strategy 'standard', the only "
            "one in which pruned entries come back: leave revived= out"
        )
    phi, others = sorted_out(perturb)
    plain = _PAPER_NAMES.get(strategy, strategy)
    return plain, phi, others  # type: ignore[return-value]


def signed_survivors(
    weights: Iterable[tuple[str, int, Tensor, Tensor, Tensor]],
    strategy: Strategy,
    phi: Phi,
    perturbations: Sequence[Perturbation],
    scope: str,
    mix: float,
    generator: torch.Generator | None,
    ranks: Ranks | None = None,
) -> list[Survivors]:
    """Return all survivors with their new signs; what is left to do cannot fail.

    All weights are read, and so checked, before anything is drawn.

    Args:
        weights: name, entries before the piece, trained and initial values, and mask of each.
        strategy: under the papers' name.
        phi: the centre of polarity.
        perturbations: the others, in order; :class:`Epsilon` and :class:`Delta` among ranks.
        scope: as for :func:`reinit_signs`.
        mix: as for :func:`reinit_signs`.
        generator: as for :func:`reinit_signs`.
        ranks: those that hold the other pieces of the weights.
    """
    check_generator(generator)

    def checked() -> list[Survivors]:
        if ranks is not None:
            _check_known(perturbations)
        return [read_survivors(*each, _REFERENCES[strategy], phi) for each in weights]

    request = strategy, phi, perturbations, scope, mix, state_of(generator)
    read = together(ranks, checked, request)
    find_sigmas(read, ranks)
    for each in read:
        if each.sigma == 0.0 and each.mask.numel():
            warn_caller(
                f"init of {each.name!r} is constant, so its sigma is 0 and its survivors "
                "start at zero",
            )
    with undrawn_on_error(generator):
        if strategy == "gradual":
            mix_references(read, phi, mix, seed_from(generator))
        perturb_signs(read, perturbations, scope, generator, ranks)
    return read


def _check_known(perturbations: Sequence[Perturbation]) -> None:
    """Raise for a function, which would see the survivors of one rank alone."""
    for each in perturbations:
        if type(each) not in (Epsilon, Delta):
            raise TypeError(
                f"perturb holds {text_of(each)}, expected Epsilon, Delta or Phi for a model that "
                "fully_shard has divided: a function would see this rank's survivors alone"
            )
