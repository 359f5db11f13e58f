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
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from polarity._files import parse_json, read_tensors, write_tensors
from polarity._shards import piece_of
from polarity.selection.ranks import Ranks
from polarity.tickets.packing import joined_planes, planes_of, unpack_signs

__all__ = ["Contents", "packed_by_ranks", "read_ticket", "write_ticket"]

VERSION = 1
_ENTRY = "polarity_signed_mask"
_FIELDS = {"version", "tensors", "network", "recipe"}
_TENSOR_FIELDS = {"shape", "masked", "crc32"}


class Contents(NamedTuple):
    """The contents of a file: the fields of :class:`polarity.SignedMask`."""

    signs: dict[str, Tensor]
    masks: dict[str, Tensor]
    network: dict[str, tuple[int, ...]]
    recipe: dict[str, str]


def packed_by_ranks(contents: Contents, ranks: Ranks | None) -> dict[str, Tensor]:
    """Return the packed signs of each tensor on the first of its ranks, empty ones on the others.

    Args:
        contents: whole tensors, or DTensors that all these ranks hold the rows of.
        ranks: they, or None.
    """
    packed = {}
    for name, signs in contents.signs.items():
        mask = contents.masks.get(name)
        here = piece_of(signs)
        # Without a mask, the entries with a sign stand for the survivors: no third plane is needed.
        survives = piece_of(mask) if mask is not None else here != 0
        planes = planes_of(here, survives)
        pieces = [planes] if ranks is None else ranks.gathered(planes)
        packed[name] = joined_planes(pieces)
    return packed


def write_ticket(path: str | Path, contents: Contents, tensors: Mapping[str, Tensor]) -> None:
    """Write a signed mask to a file, given its packed signs."""
    header = {}
    for name, signs in contents.signs.items():
        packed = tensors[name]
        header[name] = {
            "shape": list(signs.shape),
            "masked": name in contents.masks,
            "crc32": zlib.crc32(packed.numpy().data),
        }
    about = {
        "version": VERSION,
        "tensors": header,
        "network": contents.network,
        "recipe": contents.recipe,
    }
    write_tensors(path, tensors, {_ENTRY: json.dumps(about)}, "SignedMask.save")


def read_ticket(path: str | Path) -> Contents:
    """Read a file of :func:`write_ticket`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is not one, is of another version, or is damaged.
    """
    tensors, metadata = read_tensors(path, "SignedMask.load")
    if _ENTRY not in metadata:
        raise ValueError(f"{path} holds no signed mask: polarity.load reads models")
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
        if zlib.crc32(tensors[name].numpy().data) != each["crc32"]:
            raise ValueError(f"{path} is damaged: the checksum of {name!r} does not match")
        if each["masked"]:
            masks[name] = mask
        elif not torch.equal(mask, signs[name] != 0):
            raise ValueError(f"{path} is damaged: {name!r} has survivors but no mask")
    network = {name: tuple(shape) for name, shape in about["network"].items()}
    return Contents(signs, masks, network, about["recipe"])


def _parsed(path: str | Path, text: str) -> dict[str, Any]:
    """Return the JSON object, after checking everything in it."""
    try:
        about: dict[str, Any] = parse_json(text)
        version = about["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged: its {_ENTRY} is not a JSON object with a version ({error})"
        ) from None
    if type(version) is not int or version != VERSION:
        raise ValueError(
            f"{path} is a signed mask of version {version!r}, expected {VERSION}: another version "
            "of polarity reads it"
        )
    if (fault := _fault(about)) is not None:
        raise ValueError(
            f"{path} is damaged: its {_ENTRY} does not follow version {VERSION}: {fault}"
        )
    return about


def _fault(about: dict[str, Any]) -> str | None:
    """Say what is not as version 1 has it, or None."""
    if about.keys() != _FIELDS:
        return f"it holds {sorted(about)}, expected {sorted(_FIELDS)}"
    for field in ("tensors", "network", "recipe"):
        if type(about[field]) is not dict:
            return f"{field} is no object"
    for name, each in about["tensors"].items():
        if type(each) is not dict or each.keys() != _TENSOR_FIELDS:
            return f"{name!r} is not described by {sorted(_TENSOR_FIELDS)}"
        if not _is_shape(each["shape"]):
            return f"the shape of {name!r} is {each['shape']!r:.80}"
        if type(each["masked"]) is not bool or type(each["crc32"]) is not int:
            return f"{name!r} has masked={each['masked']!r:.80}, crc32={each['crc32']!r:.80}"
    for name, shape in about["network"].items():
        if not _is_shape(shape):
            return f"the network has {name!r} in shape {shape!r:.80}"
    for key, words in about["recipe"].items():
        if type(words) is not str:
            return f"the recipe says {key!r}: {words!r:.80}, expected a string"
    return None


def _is_shape(shape: object) -> bool:
    """Whether this is the shape of a tensor that could exist."""
    if type(shape) is not list or not all(type(size) is int and size >= 0 for size in shape):
        return False
    entries = 1
    for size in shape:
        entries *= max(1, size)
        if entries >= 2**63:  # here, before a product of millions of sizes is computed
            return False
    return True
