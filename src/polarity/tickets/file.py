"""Write and read signed masks as safetensors files: at most two bits per entry, no pickle.

The file holds one uint8 tensor per signed tensor, under its plain name, as
:func:`polarity.tickets.packing.pack_signs` lays it out. Everything else is one JSON object, the
metadata entry ``polarity_signed_mask`` (one entry, because safetensors writes several in any
order, and the same ticket must give the same bytes)::

    {"version": 1,
     "tensors": {name: {"shape": [...], "masked": true, "crc32": ...}, ...},
     "network": {name: [...], ...},
     "recipe": {...}}

``masked`` is false for a tensor that has signs but no mask, ``crc32`` is zlib's checksum of the
packed bytes, and ``network`` has the shape of every parameter of the network that the ticket was
found in. The order of names is that of the network.
"""

import json
import zlib
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from polarity._files import safetensors_for
from polarity.tickets.packing import pack_signs, unpack_signs

__all__ = ["Contents", "read_ticket", "write_ticket"]

VERSION = 1
_ENTRY = "polarity_signed_mask"


class Contents(NamedTuple):
    """The contents of a file: the fields of :class:`polarity.SignedMask`."""

    signs: dict[str, Tensor]
    masks: dict[str, Tensor]
    network: dict[str, tuple[int, ...]]
    recipe: dict[str, str]


def write_ticket(path: str | Path, contents: Contents) -> None:
    """Write a signed mask to a file."""
    tensors, header = {}, {}
    for name, signs in contents.signs.items():
        mask = contents.masks.get(name)
        # Without a mask, the entries with a sign stand for the survivors: no third plane is needed.
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
    safetensors = safetensors_for("SignedMask.save")
    safetensors.torch.save_file(tensors, str(path), metadata={_ENTRY: json.dumps(about)})


def read_ticket(path: str | Path) -> Contents:
    """Read a file of :func:`write_ticket`.

    Raises:
        ValueError: if the file is not one, is of another version, or is damaged.
    """
    safetensors = safetensors_for("SignedMask.load")
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
        if _ENTRY not in metadata:
            raise ValueError(f"{path} holds no signed mask: polarity.load reads models")
        tensors = safetensors.torch.load_file(str(path))
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from error
    about = _parsed(path, metadata[_ENTRY])
    header = about["tensors"]
    if missing := [name for name in header if name not in tensors]:
        raise ValueError(f"{path} is damaged: it is missing the signs of {missing[0]!r}")
    if stray := [name for name in tensors if name not in header]:
        raise ValueError(f"{path} is damaged: its header is missing {stray[0]!r}")
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
    """Return the JSON object, after checking the type of everything in it."""
    try:
        about: dict[str, Any] = json.loads(text)
        version = about["version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(f"{path} is damaged: its {_ENTRY} is not a JSON object") from None
    if version != VERSION:
        raise ValueError(
            f"{path} is a signed mask of version {version!r}, expected {VERSION}: another version "
            "of polarity reads it"
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
        raise ValueError(f"{path} is damaged: its {_ENTRY} does not follow version {VERSION}")
    return about
