"""Signed masks in a safetensors file: two bits per entry or fewer, and nothing to unpickle.

The file holds one uint8 tensor per signed tensor, under its plain name, as
:func:`polarity.tickets.packing.pack_signs` lays it out. Everything else is one JSON object, the
metadata entry ``polarity_signed_mask`` (one entry, because safetensors writes several in any
order, and the same ticket shall give the same bytes)::

    {"version": 1,
     "tensors": {name: {"shape": [...], "masked": true, "crc32": ...}, ...},
     "network": {name: [...], ...},
     "recipe": {...}}

``masked`` is false for a tensor that lends its signs but has no mask, ``crc32`` is of the packed
bytes (that of zlib), and ``network`` has the shape of every parameter of the network that the
ticket was found in. The order of names is that of the network.
"""

import json
import zlib
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from torch import Tensor

from polarity.tickets.packing import pack_signs, unpack_signs

__all__ = ["Contents", "read_ticket", "write_ticket"]

VERSION = 1
_ENTRY = "polarity_signed_mask"


class Contents(NamedTuple):
    """What a file holds; the fields of :class:`polarity.SignedMask`."""

    signs: dict[str, Tensor]
    masks: dict[str, Tensor]
    network: dict[str, tuple[int, ...]]
    recipe: dict[str, str]


def write_ticket(path: str | Path, contents: Contents) -> None:
    """Write a signed mask to a file."""
    tensors, header = {}, {}
    for name, signs in contents.signs.items():
        mask = contents.masks.get(name)
        # Every entry of an unmasked tensor lives, so the third plane has nothing to say.
        packed = pack_signs(signs, mask if mask is not None else signs != 0)
        tensors[name] = packed
        header[name] = {
            "shape": list(signs.shape),
            "masked": mask is not None,
            "crc32": zlib.crc32(packed.numpy().data),
        }
    about = {
        "version": VERSION,
        "tensors": header,
        "network": contents.network,
        "recipe": contents.recipe,
    }
    _safetensors().torch.save_file(tensors, str(path), metadata={_ENTRY: json.dumps(about)})


def read_ticket(path: str | Path) -> Contents:
    """Read a file of :func:`write_ticket`.

    Raises:
        ValueError: if the file is not one, is of another version, or is damaged.
    """
    safetensors = _safetensors()
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
        if _ENTRY not in metadata:
            raise ValueError(f"{path} holds no signed mask (pol.load reads models)")
        tensors = safetensors.torch.load_file(str(path))
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from error
    about = _parsed(path, metadata[_ENTRY])
    header = about["tensors"]
    if missing := [name for name in header if name not in tensors]:
        raise ValueError(f"{path} is damaged: it lacks the signs of {missing[0]!r}")
    if stray := [name for name in tensors if name not in header]:
        raise ValueError(f"{path} is damaged: it says nothing of {stray[0]!r}")
    signs, masks = {}, {}
    for name, each in header.items():
        try:
            signs[name], mask = unpack_signs(tensors[name], each["shape"])
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise ValueError(f"{path} is damaged: {name}: {error}") from None
        if zlib.crc32(tensors[name].numpy().data) != each.get("crc32"):
            raise ValueError(f"{path} is damaged: the checksum of {name!r} does not match")
        if each["masked"]:
            masks[name] = mask
    network = {name: tuple(shape) for name, shape in about["network"].items()}
    return Contents(signs, masks, network, about["recipe"])


def _parsed(path: str | Path, text: str) -> dict[str, Any]:
    """Return the JSON object once everything in it is what it has to be."""
    try:
        about: dict[str, Any] = json.loads(text)
        version = about["version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(f"{path} is damaged: its {_ENTRY} is not an object of JSON") from None
    if version != VERSION:
        raise ValueError(
            f"{path} is a signed mask of version {version!r}, this polarity reads {VERSION}"
        )
    try:
        shapes = [each["shape"] for each in about["tensors"].values()]
        shapes += about["network"].values()
        sizes = [size for shape in shapes for size in shape]
        flags = [each["masked"] for each in about["tensors"].values()]
        recipe = [*about["recipe"], *about["recipe"].values()]
        sound = (
            all(type(shape) is list for shape in shapes)
            and all(type(size) is int and size >= 0 for size in sizes)
            and all(type(flag) is bool for flag in flags)
            and all(type(each) is str for each in recipe)
        )
    except (KeyError, TypeError, AttributeError):
        sound = False
    if not sound:
        raise ValueError(f"{path} is damaged: its {_ENTRY} is not of the form of version {VERSION}")
    return about


def _safetensors() -> ModuleType:
    try:
        import safetensors
        import safetensors.torch
    except ImportError as error:
        raise ImportError(
            "SignedMask.save and SignedMask.load need safetensors: pip install safetensors"
        ) from error
    return safetensors
