"""Masks of a model: attach, read and write them."""

from collections.abc import Iterable, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from polarity._checks import check_flag, check_mapping, check_module, check_names, check_shape
from polarity._running import outside_inference_mode
from polarity._shards import piece_of
from polarity.attach.forms import attach_form, make_plain
from polarity.parametrizations.arithmetic import as_mask
from polarity.parametrizations.masked import MaskedWeight
from polarity.parametrizations.sign_in import SignInMW
from polarity.targets.dense_leaves import on_dense_leaves
from polarity.targets.replicas import chosen_alike, replicas_of
from polarity.targets.search import all_targets, attached, find_targets
from polarity.targets.selectors import Selector
from polarity.targets.shards import ranks_of_model, together
from polarity.targets.state_keys import TORCH_MASK
from polarity.targets.target import Target, check_has_values
from polarity.targets.torch_prune import warn_of_torch_masks
from polarity.targets.wrappers import refuse_ddp
from polarity.targets.writing import check_writable, write_all

__all__ = [
    "attach_masks",
    "before_masking",
    "checked_masks",
    "load_masks",
    "mask_weights",
    "masked_leaves",
    "masked_weights",
    "masks",
    "set_masks",
]


@outside_inference_mode
@on_dense_leaves
def mask_weights(
    model: nn.Module,
    *,
    targets: Selector | None = None,
    exclude: Selector | None = None,
    masks: Mapping[str, Tensor] | None = None,
    verbose: bool = False,
) -> nn.Module:
    """Put a :class:`MaskedWeight` on every prunable weight of a model, in place.

    The masks start as all ones, so nothing changes until something is pruned. The parameters stay
    the same objects: an optimizer built earlier keeps training them. Weights that carry a mask
    keep it, so a second call changes nothing. A weight pruned by ``torch.nn.utils.prune`` is taken
    over with its mask.

    Call it before wrapping the model in ``DistributedDataParallel``, before ``fully_shard`` and
    before ``torch.compile``. After ``fully_shard`` call :func:`enforce_in_step`.

    Args:
        model: any module.
        targets: which weights, see :func:`find_targets`; by default all that it finds, or those
            that ``masks`` names.
        exclude: which weights to leave out, in the same forms.
        masks: masks to start from, ``{name: mask}`` under plain names or under those of
            ``torch.nn.utils.prune``'s buffers (``layer.weight_mask``); bool, or zeros and ones of
            any dtype, in the shape of their weight.
        verbose: print the table of what was masked and what was skipped, and why.

    Returns:
        The model.

    Raises:
        ValueError: if there is nothing to prune (see :func:`find_targets`), or a mask has an
            unknown name, another shape, or values other than zeros and ones. The model is left as
            it was.
        TypeError: if ``model`` is not a module, or is wrapped in ``DistributedDataParallel`` and
            has yet to be masked; or if a mask is not a tensor.

    Warns:
        UserWarning: if ``torch.nn.utils.prune`` also holds a mask on a tensor that is not selected,
            such as a bias: it stays there, with its hook.

    Example:
        >>> from torch import nn
        >>> model = mask_weights(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))
        >>> model[0].parametrizations.weight[0]
        MaskedWeight((3, 4), density=1)
    """
    check_flag("verbose", verbose)
    if masks is not None:
        given, names = masks, list(masks) if isinstance(masks, Mapping) else ()
        ranks = ranks_of_model(model)
        masks = chosen_alike(
            replicas_of(model),
            lambda: together(ranks, lambda: checked_masks(model, given), names),
            lambda masks: masks.items(),
        )
        targets = tuple(masks) if targets is None else targets
    found = find_targets(model, targets, exclude)
    if masks is not None and (stray := [name for name in masks if name not in found]):
        why = found.skipped.get(stray[0], "not among the selected weights")
        raise ValueError(f"masks holds {stray[0]!r}, which is {why}")
    before_masking(model, found, "mask_weights")
    masks = masks or {}
    check_has_values(found[name] for name in masks)
    set_masks({name: found[name] for name in masks}, masks)
    attach_masks(found)
    if verbose:
        print(found)
    return model


def before_masking(model: nn.Module, found: Mapping[str, Target], call: str) -> None:
    """Refuse to mask plain weights inside DDP, and warn of masks that torch keeps on others."""
    if all(target.masking is not None for target in found.values()):
        return
    refuse_ddp(model, call)
    uses = (use for target in all_targets(model) for use in target.uses)
    warn_of_torch_masks(uses, {use.name for t in found.values() for use in t.uses}, call)


def attach_masks(found: Mapping[str, Target], buffers: Mapping[str, Tensor] | None = None) -> None:
    """Register one MaskedWeight per weight, shared by all its owners; keep existing ones.

    Args:
        found: the weights.
        buffers: for weights without a MaskedWeight, the tensor that becomes its mask; by default
            all ones, or the mask of ``torch.nn.utils.prune``.
    """
    fresh = {
        name: _new_masking(target, None if buffers is None else buffers.get(name))
        for name, target in found.items()
        if target.masking is None
    }
    for name, target in found.items():
        masking, theirs = target.masking or fresh[name], target.torch_mask
        if theirs is not None:
            make_plain(target)
        attach_form(target, masking)
        if theirs is not None:
            masking.clear(target.stored)


def _new_masking(target: Target, buffer: Tensor | None) -> MaskedWeight:
    """Return the parametrization of a weight that has none, with this tensor for its mask."""
    masking, theirs = MaskedWeight(torch.empty(0, device="cpu")), target.torch_mask
    masking.written = None  # who brings a buffer notes its ones
    if buffer is None:
        # In the weight's memory layout, so that one pass can read both.
        like = target.stored[0].detach()
        if theirs is None:
            buffer, masking.written = torch.ones_like(like), like.numel()
        else:
            buffer = theirs.to(like, copy=True)
            masking.written = int(buffer.count_nonzero())
    masking.mask = buffer
    return masking


@torch.no_grad()
def set_masks(
    found: Mapping[str, Target],
    masks: Mapping[str, Tensor],
    values: Iterable[tuple[Tensor, Tensor]] = (),
) -> None:
    """Install bool masks and zero the stored values outside them; revived entries start at zero.

    Everything that can fail comes before one call that writes all tensors.

    Args:
        found: the weights that get a mask, with or without one now.
        masks: a mask for each of them.
        values: (tensor, new values) that are written by the same call.
    """
    pairs: list[tuple[Tensor, Tensor]] = []
    buffers: dict[str, Tensor] = {}
    ones = {name: int(masks[name].count_nonzero()) for name in found}
    for name, target in found.items():
        masking, first = target.masking, target.pieces[0].detach()
        mask = masks[name].to(first.device)
        for leaf in target.stored:
            check_writable(leaf, f"what {name!r} is stored as")
        if masking is None:
            buffers[name] = torch.ones_like(first).mul_(mask)
            continue
        now = piece_of(masking.mask)
        pairs.append((now, mask))
        born = mask & (now == 0) if masking.enforce else None
        if born is not None and masking.places is not None and bool(born.any()):
            raise ValueError(
                f"masks[{name!r}] gives back {int(born.sum())} pruned entries, and a compact "
                "weight stores none of them, expected some of its survivors: call "
                "expand(model, optimizer=optimizer) first"
            )
        if born is not None and bool(born.any()):
            # Old momentum may have moved what is stored there.
            starts = [0.0] * len(target.stored)
            if isinstance(masking, SignInMW):
                starts[0] = float(masking.beta) ** 0.5
            for leaf, start in zip(target.pieces, starts, strict=True):
                pairs.append((leaf, leaf.detach().masked_fill(born, start)))
    write_all([*pairs, *values])
    attach_masks(found, buffers)
    for name, target in found.items():
        masking = cast(MaskedWeight, target.masking)
        masking.enforce = True
        masking.clear(target.stored, ones[name])


def masked_weights(model: nn.Module) -> dict[str, Target]:
    """Return the weights that carry a mask, by plain name, and raise if there are none."""
    found = attached(model)
    if not found:
        raise ValueError(
            f"{type(model).__name__} has no masked weights: prune it or call mask_weights first"
        )
    return found


def masked_leaves(found: Iterable[Target]) -> list[tuple[Tensor, Tensor]]:
    """Return (trained leaf, mask as the model holds it) of weights, for their optimizers' state."""
    return [(leaf, cast(Tensor, t.held_mask)) for t in found for leaf in t.stored]


@outside_inference_mode
def masks(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of every mask of a model, ``{plain name: bool tensor}``, True for survivors.

    A mask that is remembered but not enforced (strategy ``standard``) is returned like any other.
    Of a model that ``fully_shard`` has divided every mask is a DTensor that is divided like its
    weight; all ranks call.

    Raises:
        ValueError: if the model carries no mask.
        TypeError: if ``model`` is not a module.

    Example:
        >>> from torch import nn
        >>> import polarity as pol
        >>> model = pol.mask_weights(nn.Linear(2, 2))
        >>> pol.masks(model)
        {'weight': tensor([[True, True],
                [True, True]])}
    """
    found = masked_weights(model)
    ranks = ranks_of_model(model)
    pieces = together(ranks, lambda: {name: target.mask for name, target in found.items()})
    return {name: found[name].as_given(piece) for name, piece in pieces.items()}


@outside_inference_mode
@on_dense_leaves
def load_masks(model: nn.Module, masks: Mapping[str, Tensor]) -> nn.Module:
    """Install masks in place, and zero the stored values outside them.

    Weights that ``masks`` does not name keep theirs. Named weights that are plain are masked first.
    An entry that is pruned now and becomes live starts at zero. Gradients that were accumulated
    outside the masks are zeroed too.

    This is also the remedy for a mask that was changed from outside. Averages that include buffers
    (``AveragedModel(model, use_buffers=True)``, timm's ``ModelEmaV2`` and ``ModelEmaV3``) make
    fractions of masks; one line gives them the masks of their model:
    ``pol.load_masks(average.module, pol.masks(model))``. Lightning's ``EMAWeightAveraging`` copies
    its average into the model: pass it ``use_buffers=False``, or keep ``masks = pol.masks(model)``
    and call ``pol.load_masks(model, masks)`` afterwards.

    Args:
        model: any module.
        masks: ``{plain name: mask}``, bool, or zeros and ones of any dtype, in the weight's shape.
            For a model that ``fully_shard`` has divided they are whole, divided like the model as
            those of :func:`masks` are, or this rank's rows; all ranks call.

    Returns:
        The model.

    Raises:
        ValueError: if ``masks`` is empty, or one has an unknown name, another shape, or values
            other than zeros and ones; the model is left as it was.
        TypeError: if ``model`` is not a module, or a mask is not a tensor.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> import polarity as pol
        >>> model = load_masks(nn.Linear(2, 2), {"weight": torch.eye(2)})
        >>> pol.density(model)
        0.5

        An average of models gets the masks of its model:

        >>> from torch.optim.swa_utils import AveragedModel
        >>> average = AveragedModel(pol.mask_weights(nn.Linear(2, 2)), use_buffers=True)
        >>> for _ in range(3):
        ...     average.update_parameters(model)
        >>> _ = pol.load_masks(average.module, pol.masks(model))
        >>> pol.density(average.module)
        0.5
    """
    check_module(model)
    check_mapping("masks", masks, "{name: mask}")
    return mask_weights(model, masks=masks)


def checked_masks(model: nn.Module, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the masks under the targets' own names, as bool tensors of the right shape."""
    check_module(model)
    check_mapping("masks", masks, "{name: mask}")
    if not masks:
        raise ValueError("masks is empty, expected at least one {name: mask}")
    by_name = {use.name: target for target in all_targets(model) for use in target.uses}
    by_name = {f"{name}{TORCH_MASK}": target for name, target in by_name.items()} | by_name
    check_names("masks", masks, by_name, needed=())
    checked: dict[str, Tensor] = {}
    for given, mask in masks.items():
        target = by_name[given]
        mine = target.piece(mask, "masks") if isinstance(mask, Tensor) else mask
        try:
            bools = as_mask(mine)
        except (TypeError, ValueError) as error:
            raise type(error)(f"masks[{given!r}]: {error}") from None
        if not target.is_sharded:
            check_shape("masks", given, bools.shape, target.shape)
        if not torch.equal(checked.setdefault(target.name, bools), bools):
            raise ValueError(f"masks holds {given!r} and another mask of the same tensor")
    return checked
