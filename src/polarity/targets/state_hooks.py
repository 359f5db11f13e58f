"""The checkpoints that a module reads once it is masked, and the form in which it writes them."""

from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.hooks import RemovableHandle

from polarity._shards import is_sharded
from polarity.optimizers.replaced import note_resized
from polarity.parametrizations.masked import MaskedWeight, NotEnforced
from polarity.parametrizations.places import Places
from polarity.parametrizations.sign_in import SignInMW, balanced_factors
from polarity.parametrizations.soft_threshold import SoftThreshold
from polarity.targets.state_keys import (
    ENFORCED,
    FACTORS,
    MASK,
    STORED,
    THRESHOLD,
    inside,
    split_key,
    taken,
)

__all__ = [
    "accept_plain_checkpoints",
    "forget_plain_checkpoints",
    "original_order",
    "store_densely",
]

_ATTRIBUTE = "_polarity_plain_checkpoints"
_OTHERS = (
    "load_state_dict brought other survivors; load the optimizer's state_dict too, or build the "
    "optimizer afterwards"
)


class _PlainCheckpoints:
    """The ``load_state_dict`` hooks of one module, and its parameters' order before attaching."""

    def __init__(self, module: nn.Module) -> None:
        self.order = tuple(module._parameters)
        self.handle: RemovableHandle = module.register_load_state_dict_pre_hook(  # type: ignore[no-untyped-call]
            self
        )
        self.after: RemovableHandle = module.register_load_state_dict_post_hook(  # type: ignore[no-untyped-call]
            _clear_gradients
        )

    def __call__(
        self,
        module: nn.Module,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: Mapping[str, Any],
        *_: object,
    ) -> None:
        """Convert what is dense or masked by torch, before the module reads it."""
        if not parametrize.is_parametrized(module):
            return
        assigns = local_metadata.get("assign_to_params_buffers", False)
        for tensor_name, chain in module.parametrizations.items():  # type: ignore[union-attr, operator]
            plain = f"{prefix}{tensor_name}"
            if assigns:
                _refuse_to_replace(chain[0], plain)
            attached = inside(plain)
            held = chain.state_dict()
            ours = {f"{attached}{key}" for key in held if "." not in key}
            _complete_tied(chain, state_dict, attached, plain)
            both_or_neither = (THRESHOLD in held) == (f"{attached}{THRESHOLD}" in state_dict)
            _complete_mask(chain, state_dict, attached)
            # Without its mask it is another's form, torch.ao's for instance: torch refuses it.
            foreign = f"{attached}{STORED}" in state_dict and f"{attached}{MASK}" not in state_dict
            if not (ours <= state_dict.keys() and both_or_neither) and not foreign:
                given = taken(state_dict, attached, plain)
                if given is not None:
                    for key, value in _converted(chain, *given):
                        state_dict[f"{attached}{key}"] = value
            _compact(chain, state_dict, attached)


def _clear_gradients(module: nn.Module, _: object) -> None:
    """Zero the gradients outside the masks that were loaded (a ``load_state_dict`` post-hook)."""
    if parametrize.is_parametrized(module):
        for chain in cast(Any, module.parametrizations).values():
            if isinstance(chain[0], MaskedWeight):
                chain[0].clear_gradients(tuple(chain.parameters(recurse=False)))


def _refuse_to_replace(first: nn.Module, name: str) -> None:
    """Raise if a sharded weight is enforced in the step, which would not follow another tensor."""
    kept = isinstance(first, MaskedWeight) and is_sharded(first.mask) and first.in_step
    if kept and not isinstance(kept, NotEnforced):
        raise RuntimeError(
            f"load_state_dict(assign=True) would replace {name!r}, which is sharded and enforced "
            "in the optimizer's step, expected its values to be written: leave assign out, use "
            "torch.distributed.checkpoint.state_dict.set_model_state_dict, or load before "
            "enforce_in_step"
        )


def _complete_tied(chain: Any, state_dict: dict[str, Any], attached: str, plain: str) -> None:
    """Give a tied, sharded weight the mask that was loaded under its first name.

    When ``torch.distributed.checkpoint`` distributes a whole ``state_dict``, it visits a module
    that two weights share once, and leaves its tensors whole under the other name, or leaves them
    out.
    """
    first = chain[0]
    sharded = any(is_sharded(leaf) for leaf in chain.parameters(recurse=False))
    if not (sharded and isinstance(first, MaskedWeight)) or f".{plain}".endswith(f".{first.name}"):
        return
    if f"{attached}{STORED}" in state_dict or f"{attached}{FACTORS[0]}" in state_dict:
        for key, value in first.state_dict().items():
            given = state_dict.get(f"{attached}0.{key}")
            if given is None or is_sharded(value) > is_sharded(given):
                state_dict[f"{attached}0.{key}"] = value


def _complete_mask(chain: Any, state_dict: dict[str, Any], attached: str) -> None:
    """Give a mask of a checkpoint the weight's dtype, for ``assign``, and a word on enforcing it.

    Masks of torch.ao's FakeSparsity say nothing of it: they are always enforced.
    """
    key = f"{attached}{MASK}"
    if key in state_dict and isinstance(chain[0], MaskedWeight):
        state_dict[key] = state_dict[key].to(chain[0].mask.dtype)
        state_dict.setdefault(f"{attached}{ENFORCED}", torch.tensor(True, device="cpu"))


@torch.no_grad()
def _converted(
    chain: Any, weight: Tensor, mask: Tensor | None, enforced: bool
) -> Iterator[tuple[str, Any]]:
    """Yield what the checkpoint of this chain would hold with this value and this mask."""
    first = chain[0]
    for place, each in enumerate(chain):
        for key, value in each.state_dict().items():
            yield f"{place}.{key}", value
    if not isinstance(first, MaskedWeight):
        yield STORED, weight
        return
    # A mask that comes with the checkpoint is enforced as it was there; ours stays as it is.
    enforced = first.enforce if mask is None else enforced
    if len(chain) > 1 and isinstance(chain[1], SoftThreshold):
        weight = chain[1].right_inverse(weight)
    if mask is not None:
        mask = (mask != 0).to(first.mask.dtype)
    elif first.mask.is_meta and not weight.is_meta:
        mask = torch.ones_like(first.mask, device=weight.device)
    else:
        mask = first.mask
    mask = mask.to(weight.device)
    yield MASK, mask
    yield ENFORCED, torch.tensor(enforced, device="cpu")
    fits = weight.shape == mask.shape  # or else load_state_dict says so
    if fits and enforced:
        weight = weight.masked_fill(mask == 0, 0)
    if isinstance(first, SignInMW):
        m, v = balanced_factors(weight, first.beta.to(weight.device))
        yield FACTORS[0], m.masked_fill_(mask == 0, 0) if fits and enforced else m
        yield FACTORS[1], v
    else:
        yield STORED, weight


@torch.no_grad()
def _compact(chain: Any, state_dict: dict[str, Any], attached: str) -> None:
    """Let a compact weight take a dense one from a checkpoint, with the survivors that it has."""
    masking = chain[0]
    if not isinstance(masking, MaskedWeight) or masking.stored_places is None:
        return
    if not bool(state_dict.get(f"{attached}{ENFORCED}", True)):
        raise RuntimeError(
            f"{split_key(attached + STORED)[0]!r} is compact, and the checkpoint holds it with a "
            "mask that is not enforced: call expand(model) first"
        )
    before = masking.stored_places
    mask = state_dict.get(f"{attached}{MASK}", masking.mask)
    keys = (STORED,) if chain.is_tensor else FACTORS
    given = {
        key: state_dict[f"{attached}{key}"] for key in keys if f"{attached}{key}" in state_dict
    }
    if any(each.shape != masking.mask.shape for each in (mask, *given.values())):
        return  # load_state_dict says so
    mask = mask.to(masking.mask.device)
    places = Places.of(mask, multiplies=before.multiplies, known=before)
    for key in keys:
        leaf = getattr(chain, key)
        if key in given:
            dense = given[key]
            state_dict[f"{attached}{key}"] = places.to(dense.device).gather(dense)
        if places is not before:  # a checkpoint without values changes the mask alone
            shape, gradient, leaf.grad = leaf.shape, leaf.grad, None
            leaf.data = places.gather(before.scatter(leaf.data))
            if gradient is not None:
                leaf.grad = places.gather(before.scatter(gradient))
            if leaf.shape != shape:
                note_resized(leaf, shape, _OTHERS)
    masking.places = places


def store_densely(chain: nn.Module) -> None:
    """Let a chain of parametrizations write a compact weight as a dense one with its zeros."""
    if _spread not in chain._state_dict_hooks.values():
        chain.register_state_dict_post_hook(_spread)  # type: ignore[no-untyped-call]


@torch.no_grad()
def _spread(chain: Any, state_dict: dict[str, Any], prefix: str, _: object) -> None:
    """Give a compact weight of a ``state_dict`` its dense form (a ``state_dict`` post-hook)."""
    places = chain[0].stored_places if isinstance(chain[0], MaskedWeight) else None
    if places is None:
        return
    for key in (STORED, *FACTORS):
        if (stored := state_dict.get(f"{prefix}{key}")) is not None:
            state_dict[f"{prefix}{key}"] = places.scatter(stored)


def accept_plain_checkpoints(module: nn.Module) -> None:
    """Let a module take dense checkpoints, and those of ``torch.nn.utils.prune``, once masked.

    A dense checkpoint leaves the masks as they are; what it holds outside them is dropped.
    """
    if not hasattr(module, _ATTRIBUTE):
        setattr(module, _ATTRIBUTE, _PlainCheckpoints(module))


def original_order(module: nn.Module) -> tuple[str, ...]:
    """Return the order of a module's parameters before masks were attached, or none if unknown."""
    return getattr(module, _ATTRIBUTE).order if hasattr(module, _ATTRIBUTE) else ()


def forget_plain_checkpoints(module: nn.Module) -> None:
    """Undo :func:`accept_plain_checkpoints` when the last mask is gone, and restore the order."""
    if _is_masked(module) or not hasattr(module, _ATTRIBUTE):
        return
    hook: _PlainCheckpoints = getattr(module, _ATTRIBUTE)
    hook.handle.remove()
    hook.after.remove()
    delattr(module, _ATTRIBUTE)
    # Parametrizing moves a parameter behind its siblings, and optimizer checkpoints go by order.
    for name in hook.order:
        if name in module._parameters:
            module._parameters[name] = module._parameters.pop(name)


def _is_masked(module: nn.Module) -> bool:
    if not parametrize.is_parametrized(module):
        return False
    chains = cast(nn.ModuleDict, module.parametrizations).values()
    return any(
        isinstance(each, MaskedWeight) for chain in chains for each in cast(nn.ModuleList, chain)
    )
