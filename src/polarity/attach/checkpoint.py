"""Save a converted model in one safetensors file, and load it without unpickling."""

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from polarity._files import safetensors_for
from polarity.attach.masks import mask_weights
from polarity.attach.norms import interpolate_norms
from polarity.attach.sign_in import sign_in
from polarity.targets.state_keys import buffer_keys
from polarity.targets.wrappers import unwrapped

__all__ = ["load", "save"]


def save(model: nn.Module, path: str | Path) -> None:
    """Write a model's parameters, buffers and masks to a safetensors file.

    Args:
        model: any module, masked or plain.
        path: the file, conventionally ``*.safetensors``.

    Raises:
        ImportError: if safetensors is not installed.
        TypeError: if ``model`` is not a module, or its ``state_dict`` holds other things than
            tensors.

    Example:
        >>> import tempfile
        >>> from torch import nn
        >>> import polarity as pol
        >>> model = pol.load_masks(nn.Linear(2, 2), {"weight": nn.Linear(2, 2).weight > 0})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pol.save(model, f"{folder}/ticket.safetensors")
        ...     copy = pol.load(nn.Linear(2, 2), f"{folder}/ticket.safetensors")
        >>> pol.density(copy) == pol.density(model)
        True
    """
    inner = unwrapped(model)
    safetensors = safetensors_for("polarity.save")
    first: dict[tuple[int, torch.Size, torch.dtype], str] = {}
    tensors, aliases = {}, {}
    for name, value in inner.state_dict().items():
        if not isinstance(value, Tensor):
            raise TypeError(
                f"state_dict holds a {type(value).__name__} under {name!r}, expected a tensor"
            )
        same = first.setdefault((value.data_ptr(), value.shape, value.dtype), name)
        if same == name or value.numel() == 0:
            tensors[name] = value.contiguous()
        else:  # a tied weight: one copy on disk, and all its names
            aliases[name] = same
    safetensors.torch.save_file(tensors, str(path), metadata={"aliases": json.dumps(aliases)})


def load(model: nn.Module, path: str | Path) -> nn.Module:
    """Read a file of :func:`save` into a model, in place, with the same forms attached.

    Args:
        model: a model of the structure that was saved, plain or masked.
        path: the file.

    Returns:
        The model.

    Raises:
        ImportError: if safetensors is not installed.
        ValueError: if the file holds a masked weight that is not in the model.
        RuntimeError: if other names or shapes differ, as ``load_state_dict`` raises.
        TypeError: if ``model`` is not a module.

    Example:
        >>> import tempfile
        >>> from torch import nn
        >>> import polarity as pol
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pol.save(pol.mask_weights(nn.Linear(2, 2)), f"{folder}/model.safetensors")
        ...     model = pol.load(nn.Linear(2, 2), f"{folder}/model.safetensors")
        >>> model.parametrizations.weight[0]
        MaskedWeight((2, 2), density=1)
    """
    inner = unwrapped(model)
    safetensors = safetensors_for("polarity.load")
    with safetensors.safe_open(str(path), framework="pt") as file:
        aliases: dict[str, str] = json.loads((file.metadata() or {}).get("aliases", "{}"))
    state = safetensors.torch.load_file(str(path))
    state |= {name: state[same] for name, same in aliases.items()}
    if masked := tuple(buffer_keys(state, "mask")):
        mask_weights(model, targets=masked)
    if products := tuple(buffer_keys(state, "beta")):
        sign_in(model, targets=products)
    if norms := tuple(buffer_keys(state, "initial")):
        draws = {aliases.get(key, key) for key in buffer_keys(state, "shared.alpha").values()}
        interpolate_norms(model, targets=norms, per_layer=len(draws) > 1)
    inner.load_state_dict(state)
    return model
