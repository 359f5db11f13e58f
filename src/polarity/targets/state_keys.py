"""The keys of a ``state_dict``, plain and attached, and checkpoints that go from one to the other.

A weight ``0.weight`` that carries a mask is stored under ``0.parametrizations.weight.original``
(``original0`` and ``original1`` for Sign-In), its mask under ``0.parametrizations.weight.0.mask``.
``torch.nn.utils.prune`` stores ``0.weight_orig`` and ``0.weight_mask``. No other file spells these.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.hooks import RemovableHandle

from polarity.optimizers.replaced import note_resized
from polarity.parametrizations.masked import MaskedWeight
from polarity.parametrizations.places import Places
from polarity.parametrizations.sign_in import SignInMW, balanced_factors
from polarity.parametrizations.soft_threshold import SoftThreshold, soft_threshold
from polarity.targets.writing import forget_former_shape

__all__ = [
    "ALPHA",
    "BETA",
    "ENFORCED",
    "FACTORS",
    "INITIAL",
    "MASK",
    "STORED",
    "STREAM",
    "TORCH_MASK",
    "TORCH_STORED",
    "accept_plain_checkpoints",
    "attached_parts",
    "buffer_keys",
    "factor_keys",
    "forget_plain_checkpoints",
    "inside",
    "leads_inside",
    "original_order",
    "plain_checkpoint",
    "split_key",
    "store_densely",
    "torch_masked",
    "without_wrappers",
]

# The parts that a parametrized weight is stored as, each one key.
STORED, FACTORS = "original", ("original0", "original1")
MASK, ENFORCED, BETA = "0.mask", "0._extra_state", "0.beta"
THRESHOLD = "1.s"
INITIAL, ALPHA, STREAM = "0.initial", "0.shared.alpha", "0.shared.stream"
# What wrappers put into the names of what they wrap: torch.compile, FSDP, activation checkpointing.
_WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
# What torch.nn.utils.prune appends to the name of a tensor that it masks.
TORCH_STORED, TORCH_MASK = "_orig", "_mask"
_ATTRIBUTE = "_polarity_plain_checkpoints"
_OTHERS = (
    "load_state_dict brought other survivors; load the optimizer's state_dict too, or build the "
    "optimizer afterwards"
)


def inside(name: str) -> str:
    """Return what the keys of a parametrized weight begin with, from its plain name.

    Example:
        >>> inside("0.weight")
        '0.parametrizations.weight.'
    """
    path, dot, tensor_name = name.rpartition(".")
    return f"{path}{dot}parametrizations.{tensor_name}."


def leads_inside(path: str) -> bool:
    """Return whether a key, or the name of a module, is one of parametrizations."""
    return "parametrizations" in path.split(".")


def factor_keys(name: str) -> tuple[str, str]:
    """Return the keys of the factors m and v of a Sign-In weight, from its plain name."""
    return f"{inside(name)}original0", f"{inside(name)}original1"


def buffer_keys(state: Iterable[str], buffer: str) -> dict[str, str]:
    """Return the keys under which first parametrizations hold this buffer, by plain name.

    Example:
        >>> buffer_keys(["0.parametrizations.weight.0.mask", "0.bias"], "mask")
        {'0.weight': '0.parametrizations.weight.0.mask'}
    """
    ending = f".0.{buffer}"
    keys = [key for key in state if key.endswith(ending) and leads_inside(key)]
    return {key.removesuffix(ending).replace("parametrizations.", "", 1): key for key in keys}


def split_key(key: str) -> tuple[str, str]:
    """Return the plain name that a key belongs to, and which part of it the key holds.

    Example:
        >>> split_key("0.parametrizations.weight.0.mask"), split_key("0.bias")
        (('0.weight', '0.mask'), ('0.bias', ''))
    """
    parts = key.split(".")
    if "parametrizations" not in parts:
        return key, ""
    place = parts.index("parametrizations")
    return ".".join(parts[:place] + parts[place + 1 : place + 2]), ".".join(parts[place + 2 :])


def attached_parts(state: Iterable[str]) -> dict[str, set[str]]:
    """Return which parts a checkpoint holds of each parametrized weight, by plain name.

    Example:
        >>> attached_parts(["0.parametrizations.weight.original", "0.bias"])
        {'0.weight': {'original'}}
    """
    parts: dict[str, set[str]] = {}
    for key in state:
        name, part = split_key(key)
        if part:
            parts.setdefault(name, set()).add(part)
    return parts


def torch_masked(state: Collection[str]) -> list[str]:
    """Return the plain names of the weights that ``torch.nn.utils.prune`` masked in a checkpoint.

    Example:
        >>> torch_masked(["0.weight_orig", "0.weight_mask", "0.bias"])
        ['0.weight']
    """
    names = [key.removesuffix(TORCH_STORED) for key in state if key.endswith(TORCH_STORED)]
    return [name for name in names if f"{name}{TORCH_MASK}" in state]


def without_wrappers(state: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """Return a checkpoint of a wrapped model under the names of the model itself.

    ``torch.compile`` writes ``_orig_mod.`` into keys, wherever a module is compiled; DataParallel,
    DistributedDataParallel and AveragedModel put ``module.`` before all of them. What the model
    itself calls so stays.

    Args:
        state: the checkpoint.
        known: the plain names of the model's parameters and buffers.

    Raises:
        ValueError: if two keys would become one.

    Example:
        >>> without_wrappers({"module._orig_mod.0.weight": 1}, ["0.weight"])
        {'0.weight': 1}
    """
    own = {part for name in known for part in name.split(".")}
    keys = {key: [p for p in key.split(".") if p in own or p not in _WRAPPERS] for key in state}
    if "module" not in {name.partition(".")[0] for name in known}:
        averaged = [key for key in keys if key == "n_averaged" and key not in own]
        rest = [parts for key, parts in keys.items() if key not in averaged]
        while rest and all(len(parts) > 1 and parts[0] == "module" for parts in rest):
            rest = [parts[1:] for parts in rest]
            keys = {key: parts for key, parts in keys.items() if key not in averaged}
            keys = dict(zip(keys, rest, strict=True))
    plain: dict[str, Any] = {}
    for key, parts in keys.items():
        name = ".".join(parts)
        if name in plain:
            raise ValueError(f"holds {key!r} and another key for {name!r}, expected one")
        plain[name] = state[key]
    return plain


@torch.no_grad()
def plain_checkpoint(state: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return a checkpoint with the effective weights of these plain names in their place.

    Weights are read that polarity or ``torch.nn.utils.prune`` stored; ``weight_norm`` and others
    keep the keys that they have.
    """
    plain = dict(state)
    for name in names:
        ours = any(f"{inside(name)}0.{buffer}" in state for buffer in ("mask", "initial"))
        torchs = f"{name}{TORCH_STORED}" in state and f"{name}{TORCH_MASK}" in state
        if name not in state and (ours or torchs):
            taken = _taken(plain, inside(name), name)
            assert taken is not None
            weight, mask, enforced = taken
            plain[name] = weight
            if mask is not None and enforced:
                plain[name] = torch.where(mask.to(weight.device) != 0, weight, 0.0)
    return plain


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
        self, module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: object
    ) -> None:
        """Convert what is dense or masked by torch, before the module reads it."""
        if not parametrize.is_parametrized(module):
            return
        for tensor_name, chain in module.parametrizations.items():  # type: ignore[union-attr, operator]
            plain = f"{prefix}{tensor_name}"
            attached = inside(plain)
            held = chain.state_dict()
            ours = {f"{attached}{key}" for key in held if "." not in key}
            both_or_neither = (THRESHOLD in held) == (f"{attached}{THRESHOLD}" in state_dict)
            _complete_mask(chain, state_dict, attached)
            # Without its mask it is another's form, torch.ao's for instance: torch refuses it.
            foreign = f"{attached}original" in state_dict and f"{attached}0.mask" not in state_dict
            if not (ours <= state_dict.keys() and both_or_neither) and not foreign:
                given = _taken(state_dict, attached, plain)
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


def _complete_mask(chain: Any, state_dict: dict[str, Any], attached: str) -> None:
    """Give a mask of a checkpoint the weight's dtype, for ``assign``, and a word on enforcing it.

    Masks of torch.ao's FakeSparsity say nothing of it: they are always enforced.
    """
    key = f"{attached}0.mask"
    if key in state_dict and isinstance(chain[0], MaskedWeight):
        state_dict[key] = state_dict[key].to(chain[0].mask.dtype)
        state_dict.setdefault(f"{attached}0._extra_state", torch.tensor(True, device="cpu"))


def _taken(
    state_dict: dict[str, Any], attached: str, plain: str
) -> tuple[Tensor, Tensor | None, bool] | None:
    """Take a weight of any form out of a checkpoint: its value, its mask, and if it is enforced."""
    factors = [state_dict.pop(f"{attached}original{i}", None) for i in (0, 1)]
    if factors[0] is not None and factors[1] is not None:
        weight = factors[0] * factors[1]
    else:
        keys = (f"{attached}original", plain, f"{plain}{TORCH_STORED}")
        found = [state_dict.pop(key) for key in keys if key in state_dict]
        if not found:
            return None
        weight = found[0]
    masks = [state_dict.pop(key, None) for key in (f"{attached}0.mask", f"{plain}{TORCH_MASK}")]
    mask = masks[0] if masks[0] is not None else masks[1]
    s = state_dict.pop(f"{attached}{THRESHOLD}", None)
    if s is not None:
        weight = soft_threshold(weight, s.to(weight.device))
    enforced = bool(state_dict.pop(f"{attached}0._extra_state", True))
    for key in [key for key in state_dict if key.startswith(attached)]:
        del state_dict[key]
    return weight, mask, enforced


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
        yield "original", weight
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
    yield "0.mask", mask
    yield "0._extra_state", torch.tensor(enforced, device="cpu")
    fits = weight.shape == mask.shape  # or else load_state_dict says so
    if fits and enforced:
        weight = weight.masked_fill(mask == 0, 0)
    if isinstance(first, SignInMW):
        m, v = balanced_factors(weight, first.beta.to(weight.device))
        yield "original0", m.masked_fill_(mask == 0, 0) if fits and enforced else m
        yield "original1", v
    else:
        yield "original", weight


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
    places = Places.of(mask.to(masking.mask.device), multiplies=before.multiplies)
    if places.same_as(before):
        places = before  # which knows its sparse matrices already
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
                forget_former_shape(leaf)
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
