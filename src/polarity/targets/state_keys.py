"""The keys of a ``state_dict``, plain and attached, and checkpoints that go from one to the other.

A weight ``0.weight`` that carries a mask is stored under ``0.parametrizations.weight.original``
(``original0`` and ``original1`` for Sign-In), its mask under ``0.parametrizations.weight.0.mask``.
``torch.nn.utils.prune`` stores ``0.weight_orig`` and ``0.weight_mask``. No other file spells these.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from polarity.parametrizations.soft_threshold import soft_threshold

__all__ = [
    "ALPHA",
    "BETA",
    "ENFORCED",
    "FACTORS",
    "INITIAL",
    "MASK",
    "STORED",
    "STREAM",
    "THRESHOLD",
    "TORCH_MASK",
    "TORCH_STORED",
    "attached_parts",
    "buffer_keys",
    "factor_keys",
    "inside",
    "leads_inside",
    "plain_checkpoint",
    "split_key",
    "taken",
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
            found = taken(plain, inside(name), name)
            assert found is not None
            weight, mask, enforced = found
            plain[name] = weight
            if mask is not None and enforced:
                plain[name] = torch.where(mask.to(weight.device) != 0, weight, 0.0)
    return plain


def taken(
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
