"""Which forms the weights of a checkpoint have, and whether all that belongs to them is sound."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from polarity._checks import check_entries
from polarity.attach.norm_alpha import check_stream, norm_interps
from polarity.parametrizations.arithmetic import check_mask
from polarity.parametrizations.masked import MaskedWeight
from polarity.parametrizations.norm_interp import NormInterp
from polarity.parametrizations.shared_alpha import SharedAlpha
from polarity.parametrizations.sign_in import SignInMW, check_factors
from polarity.targets.search import why_not
from polarity.targets.state_keys import (
    ALPHA,
    BETA,
    ENFORCED,
    FACTORS,
    INITIAL,
    MASK,
    STORED,
    STREAM,
    TORCH_MASK,
    TORCH_STORED,
    attached_parts,
    inside,
    torch_masked,
)
from polarity.targets.target import Target
from polarity.targets.torch_prune import refuse_uneven_masks

__all__ = ["check_masked", "forms_to_attach"]

State = Mapping[str, Tensor]
_ALL = {STORED, *FACTORS, MASK, ENFORCED, BETA, INITIAL, ALPHA, STREAM}


def forms_to_attach(
    model: nn.Module, targets: Mapping[str, Target], state: State
) -> dict[str, nn.Module]:
    """Return the new form of every weight that a checkpoint holds in another form than the model.

    A model keeps the forms that it has: what is stored as one tensor is loaded into a product.

    Args:
        model: the model.
        targets: its weights by each of their plain names.
        state: the checkpoint.

    Returns:
        New forms by the weights' own plain names, with all that the checkpoint says of them.

    Raises:
        ValueError: if a form is incomplete, holds values that it cannot have, or belongs to a
            weight that the model does not have or that cannot take it.
    """
    forms: dict[str, nn.Module] = {}
    norms: dict[str, Target] = {}
    for name, parts in attached_parts(state).items():
        if not {MASK, BETA, INITIAL} & parts and parts != {STORED}:
            continue  # another's parametrization
        target = _known(name, targets)
        if target.chain and target.masking is None and target.interpolation is None:
            continue  # another's with the same names: the model reads it
        if parts == {STORED}:
            raise ValueError(
                f"holds {name!r} without the mask that it was stored under, as torch.ao's "
                "sparsifiers do, which keep masks in their own state_dict: save the model after "
                "sparsifier.squash_mask(), which makes it plain"
            )
        _check_complete(name, parts)
        if INITIAL not in parts:
            check_masked(name, state, target)
            if target.name not in forms and _is_other_form(target, parts):
                forms[target.name] = _masked_form(target, *_mask_of(name, state))
        else:
            _check_interpolated(name, state, target)
            if target.interpolation is None:
                _check_attachable(target)
                norms.setdefault(target.name, target)
    for name in torch_masked(state):
        if f"{name}{TORCH_STORED}" in targets:
            continue  # the model calls it so itself
        target = _known(name, targets)
        if target.torch_mask is None:
            _check_mask(name, state[f"{name}{TORCH_MASK}"], target)
            if target.name not in forms and not target.chain:
                mask = state[f"{name}{TORCH_MASK}"]
                forms[target.name] = _masked_form(target, mask, None, enforced=True)
    # A file is in the order of the alphabet. Attaching decides the order of a state_dict.
    order = list(dict.fromkeys(target.name for target in targets.values()))
    in_order = {name: norms[name] for name in order if name in norms}
    forms |= _interpolated_forms(model, in_order, state)
    return {name: forms[name] for name in order if name in forms}


def _known(name: str, targets: Mapping[str, Target]) -> Target:
    """Return the weight of a literal name: what a file holds is no pattern."""
    if name not in targets:
        raise ValueError(f"holds {name!r}, which is not in the model")
    return targets[name]


def _check_complete(name: str, parts: set[str]) -> None:
    """Raise unless a form has all its parts, and none of another form."""
    needed = {STORED, INITIAL, ALPHA, STREAM}
    if INITIAL not in parts:
        needed = {*FACTORS, MASK, BETA} if BETA in parts else {STORED, MASK}
    optional = {ENFORCED} & parts if INITIAL not in parts else set()
    stray = (parts & _ALL) - needed - optional
    if missing := sorted(needed - parts):
        raise ValueError(f"is missing {missing[0]!r} of {name!r}, which has {sorted(parts)}")
    if stray:
        raise ValueError(f"holds {min(stray)!r} of {name!r}, which does not belong to its form")


def _is_other_form(target: Target, parts: set[str]) -> bool:
    """Whether a masked weight of a checkpoint needs a form that its weight does not have."""
    if target.interpolation is not None:
        raise ValueError(f"holds a mask of {target.name!r}, which the model interpolates: merge it")
    if target.masking is None:
        _check_attachable(target)
        return True
    if BETA not in parts or isinstance(target.masking, SignInMW):
        return False
    if len(target.chain) > 1:
        raise ValueError(
            f"holds factors of {target.name!r}, which is also parametrized by "
            f"{type(target.chain[-1]).__name__}, expected a mask at most"
        )
    return True


def _check_attachable(target: Target) -> None:
    """Raise if nothing can be attached to a weight; a frozen one is as good as any."""
    if target.masking is not None:
        raise ValueError(f"holds {target.name!r} interpolated, which the model masks: merge it")
    refuse_uneven_masks(target.owners)
    if (why := why_not(target, frozen_too=True)) is not None:
        raise ValueError(f"holds a form of {target.name!r}, which is {why}")


def _mask_of(name: str, state: State) -> tuple[Tensor, Tensor | None, bool]:
    enforced = state.get(f"{inside(name)}{ENFORCED}")
    beta = state.get(f"{inside(name)}{BETA}")
    return state[f"{inside(name)}{MASK}"], beta, enforced is None or bool(enforced)


def _masked_form(target: Target, mask: Tensor, beta: Tensor | None, enforced: bool) -> nn.Module:
    """Return a mask, or a mask and a product, in the dtype and memory layout of the weight."""
    like = torch.ones_like(target.stored[0].detach())
    mask = like.mul_((mask != 0).to(like.device))
    if beta is None:
        return MaskedWeight(mask, enforce=enforced)
    return SignInMW(mask, float(beta), enforce=enforced)


def _interpolated_forms(
    model: nn.Module, norms: Mapping[str, Target], state: State
) -> dict[str, nn.Module]:
    """Return the forms of norms: with one stream for all, or one for each layer, as they had."""
    streams = [state[f"{inside(name)}{STREAM}"] for name in norms]
    per_layer = len({id(stream) for stream in streams}) > 1
    alphas: dict[str, SharedAlpha] = {}
    if not per_layer and (present := norm_interps(model)):
        alphas[""] = present[0].shared
    told: dict[str, tuple[Tensor, Tensor]] = {}
    forms: dict[str, nn.Module] = {}
    for name, target in norms.items():
        layer = name.rpartition(".")[0] if per_layer else ""
        leaf = target.stored[0].detach()
        alpha, stream = (state[f"{inside(name)}{part}"] for part in (ALPHA, STREAM))
        first = told.setdefault(layer, (alpha, stream))
        if not all(map(torch.equal, first, (alpha, stream))):
            raise ValueError(
                f"holds another {ALPHA!r} or {STREAM!r} of {name!r} than of a parameter that "
                "shares it, expected one for both"
            )
        if layer not in alphas:
            value = alpha.to(leaf.device, torch.float32, copy=True)
            alphas[layer] = SharedAlpha(value, stream.to(leaf.device, copy=True))
        initial = state[f"{inside(name)}{INITIAL}"].to(leaf.device, leaf.dtype)
        forms[name] = NormInterp(initial, alphas[layer])
    return forms


def check_masked(name: str, state: State, target: Target) -> None:
    """Raise unless what belongs to a masked weight is what polarity could have written."""
    key = inside(name)
    for part in (STORED, *FACTORS):
        if f"{key}{part}" in state:
            _check_tensor(name, part, state[f"{key}{part}"], _shape_here(target))
    if f"{key}{STORED}" in state:  # pruned entries too, which a product would drop
        check_entries(f"holds {name!r}, which", state[f"{key}{STORED}"])
    _check_mask(name, state[f"{key}{MASK}"], target)
    enforced, beta = state.get(f"{key}{ENFORCED}"), state.get(f"{key}{BETA}")
    if enforced is not None and (enforced.dtype != torch.bool or enforced.dim() != 0):
        raise ValueError(
            f"holds {ENFORCED!r} of {name!r} of dtype {enforced.dtype} and shape "
            f"{tuple(enforced.shape)}, expected one bool"
        )
    if beta is not None:
        _check_tensor(name, BETA, beta, ())
        if not 0 < float(beta) < math.inf:
            raise ValueError(
                f"holds {BETA!r} of {name!r} as {float(beta)}, expected a positive, finite number"
            )
        m, v = (state[f"{key}{factor}"].to(target.stored[0].dtype) for factor in FACTORS)
        check_entries(f"holds factors of {name!r}, whose product", m * v)
        try:
            check_factors(name, beta, m * v)
        except ValueError:
            raise ValueError(
                f"holds {BETA!r} of {name!r} as {float(beta)}, which gives factors that {m.dtype} "
                "cannot hold, expected one nearer to 1"
            ) from None


def _check_mask(name: str, mask: Tensor, target: Target) -> None:
    if mask.shape != _shape_here(target):
        raise ValueError(
            f"holds the mask of {name!r} in shape {tuple(mask.shape)}, expected the model's "
            f"{tuple(_shape_here(target))}"
        )
    try:
        check_mask(mask)
    except (ValueError, RuntimeError, TypeError):  # torch counts in no 8-bit float
        raise ValueError(
            f"holds values other than 0 and 1 in the mask of {name!r}, expected a mask"
        ) from None


def _shape_here(target: Target) -> torch.Size:
    """Return the shape that a checkpoint's tensors have here: of sharded weights rows are read."""
    return target.pieces[0].shape if target.is_sharded else target.shape


def _check_interpolated(name: str, state: State, target: Target) -> None:
    """Raise unless what belongs to an interpolated parameter could have been written by us."""
    key = inside(name)
    for part in (STORED, INITIAL):
        _check_tensor(name, part, state[f"{key}{part}"], target.shape)
    if not bool(state[f"{key}{INITIAL}"].to(torch.float64).isfinite().all()):
        raise ValueError(f"holds NaN or infinite initial values of {name!r}, expected finite ones")
    _check_tensor(name, ALPHA, state[f"{key}{ALPHA}"], ())
    alpha = float(state[f"{key}{ALPHA}"])
    if not 0 <= alpha <= 1:
        raise ValueError(f"holds {ALPHA!r} of {name!r} as {alpha}, expected a number in [0, 1]")
    try:
        check_stream(f"{STREAM!r} of {name!r}", state[f"{key}{STREAM}"])
    except ValueError as error:
        raise ValueError(f"is damaged: {error}") from None


def _check_tensor(name: str, part: str, value: Tensor, shape: tuple[int, ...]) -> None:
    """Raise unless a part is floating point and of the right shape."""
    if tuple(value.shape) != tuple(shape):
        what = f"{name!r}" if part == STORED else f"{part!r} of {name!r}"
        raise ValueError(
            f"holds {what} in shape {tuple(value.shape)}, expected the model's {tuple(shape)}"
        )
    if not value.is_floating_point():
        raise ValueError(f"holds {part!r} of {name!r} of dtype {value.dtype}, expected a float")
