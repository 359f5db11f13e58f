"""Write and read rewind points as safetensors files, without pickle.

The tensors are entries of the file: ``weights/<plain name>`` for the weights, ``state/<number>``
for those in the states of optimizers and schedulers. Everything else is one JSON object, the
metadata entry ``polarity_rewind_point``::

    {"version": 1,
     "weights": {plain name: entry, ...},
     "optimizer": tree, "scheduler": tree,
     "crc32": {entry: checksum of its bytes, ...}}

Tied weights name the same entry. A tree is a number, a string, a bool, null, or an object with one
key that says what it is: ``{"dict": [[key, tree], ...]}``, ``{"list": [tree, ...]}``, likewise
``tuple`` and ``counter`` (the milestones of ``MultiStepLR``), ``{"tensor": entry}``, and
``{"float": "inf"}`` for numbers that JSON has not.
"""

import json
import math
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from polarity._files import parse_json, read_tensors, write_tensors
from polarity._running import tensors_in
from polarity._shards import is_sharded, piece_of
from polarity.selection.ranks import Ranks
from polarity.targets.pieces_file import write_pieces
from polarity.targets.shards import ranks_of, together

__all__ = ["read_point", "write_point"]

VERSION = 1
_ENTRY = "polarity_rewind_point"
_PARTS = ("weights", "optimizer", "scheduler", "crc32")
_PLAIN_TYPES = (Tensor, nn.Parameter)


def write_point(
    path: str | Path, weights: Mapping[str, Tensor], optimizer: Any, schedule: Any
) -> None:
    """Write the parts of a rewind point to a file.

    Raises:
        TypeError: if a part holds what a file cannot; its key is named.
    """
    tensors = tensors_in((weights, optimizer, schedule))
    ranks = ranks_of([each for each in tensors if is_sharded(each)], "the rewind point")
    entries, about = together(ranks, lambda: _about(weights, optimizer, schedule))
    if ranks is None:
        about["crc32"] = {entry: _checksum(value) for entry, value in entries.items()}
    else:
        about["crc32"] = _checksums_across(entries, ranks)
    metadata = {_ENTRY: json.dumps(about, allow_nan=False)}
    if ranks is None:
        write_tensors(path, entries, metadata, "RewindPoint.save")
    else:
        write_pieces(path, entries, metadata, ranks)


def _about(
    weights: Mapping[str, Tensor], optimizer: Any, schedule: Any
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the entries of a file, and all that it says of them but their checksums."""
    entries: dict[str, Tensor] = {}
    first: dict[int, str] = {}
    for name, value in weights.items():
        entry = first.setdefault(id(value), f"weights/{name}")
        if entry not in entries:
            entries[entry] = _storable(f"weights[{name!r}]", value)
    return entries, {
        "version": VERSION,
        "weights": {name: first[id(value)] for name, value in weights.items()},
        "optimizer": _encoded("optimizer", optimizer, entries),
        "scheduler": _encoded("scheduler", schedule, entries),
    }


def _checksums_across(entries: Mapping[str, Tensor], ranks: Ranks) -> dict[str, int]:
    """Return the checksums of whole tensors: each rank goes on with those of the ranks before.

    What is not sharded is written, and summed, by the first rank.
    """
    sums = np.zeros(len(entries), dtype=np.int64)
    for index in range(ranks.count):
        mine = [
            _checksum(piece_of(value), int(before))
            if index == ranks.index and (index == 0 or is_sharded(value))
            else int(before) * (index == ranks.index)
            for value, before in zip(entries.values(), sums, strict=True)
        ]
        sums = ranks.add(mine)
    return dict(zip(entries, sums.tolist(), strict=True))


def read_point(path: str | Path) -> tuple[dict[str, Tensor], Any, Any]:
    """Return weights, optimizer's and scheduler's state of a file of :func:`write_point`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is not one, is of another version, or is damaged.
    """
    entries, metadata = read_tensors(path, "RewindPoint.load")
    if _ENTRY not in metadata:
        raise ValueError(f"{path} holds no rewind point, expected a file of RewindPoint.save")
    try:
        about = parse_json(metadata[_ENTRY])
        version = about["version"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path} is damaged: its {_ENTRY} is not a JSON object") from None
    if version != VERSION or isinstance(version, bool):
        raise ValueError(
            f"{path} is a rewind point of version {version!r}, expected {VERSION}: another version "
            "of polarity reads it"
        )
    try:
        return _decoded_parts(about, entries)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None


def _decoded_parts(
    about: dict[str, Any], entries: dict[str, Tensor]
) -> tuple[dict[str, Tensor], Any, Any]:
    """Return the three parts, after a check of everything in them."""
    if missing := [part for part in _PARTS if part not in about]:
        raise ValueError(f"it has no {missing[0]!r}")
    names, checksums = about["weights"], about["crc32"]
    for part in ("weights", "crc32"):
        if type(about[part]) is not dict:
            raise ValueError(f"{part!r} is not an object")
    if stray := sorted(entries.keys() ^ checksums.keys()):
        which = "has no checksum" if stray[0] in entries else "is missing"
        raise ValueError(f"the entry {stray[0]!r} {which}")
    for entry, value in entries.items():
        if checksums[entry] != _checksum(value):
            raise ValueError(f"the checksum of {entry!r} does not match")
    used: set[str] = set()
    weights = {name: _entry(f"weights[{name!r}]", e, entries, used) for name, e in names.items()}
    states = []
    for part in ("optimizer", "scheduler"):
        state = _decoded(part, about[part], entries, used)
        if not (state is None or _is_state(state)):
            raise ValueError(f"{part!r} is neither a state, nor a list of them, nor null")
        states.append(state)
    if unused := sorted(entries.keys() - used):
        raise ValueError(f"nothing refers to the entry {unused[0]!r}")
    return weights, states[0], states[1]


def _is_state(state: Any) -> bool:
    """Whether something is a dict, or a list of dicts."""
    each = state if isinstance(state, list) else [state]
    return bool(each) and all(type(one) is dict for one in each)


def _encoded(key: str, value: Any, entries: dict[str, Tensor]) -> Any:
    """Return a nested state as a tree; its tensors go to ``entries``."""
    if isinstance(value, Tensor):
        entry = f"state/{len(entries)}"
        entries[entry] = _storable(key, value)
        return {"tensor": entry}
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"float": str(value)}
    if type(value) in (list, tuple):
        kind = type(value).__name__
        return {kind: [_encoded(f"{key}[{i}]", each, entries) for i, each in enumerate(value)]}
    if isinstance(value, dict):
        kind = "counter" if type(value) is Counter else "dict"
        return {kind: list(_encoded_items(key, value, entries))}
    raise TypeError(
        f"{key} is a {type(value).__name__}, expected tensors, numbers, strings, lists, tuples and "
        "dicts: a file holds nothing else; capture without it"
    )


def _encoded_items(
    key: str, value: Mapping[Any, Any], entries: dict[str, Tensor]
) -> Iterator[list[Any]]:
    """Yield the items of a dict."""
    for name, each in value.items():
        if type(name) not in (str, int, float, bool):
            raise TypeError(f"{key} has the key {name!r}, expected strings and numbers as keys")
        yield [_encoded(key, name, entries), _encoded(f"{key}[{name!r}]", each, entries)]


def _decoded(key: str, tree: Any, entries: Mapping[str, Tensor], used: set[str]) -> Any:
    """Return what a tree stands for."""
    if tree is None or type(tree) in (bool, int, float, str):
        return tree
    if type(tree) is not dict or len(tree) != 1:
        raise ValueError(f"{key} is {str(tree)[:40]!r}, which says not what it is")
    ((kind, inside),) = tree.items()
    if kind == "tensor":
        return _entry(key, inside, entries, used)
    if kind == "float" and inside in ("inf", "-inf", "nan"):
        return float(inside)
    if type(inside) is not list or kind not in ("list", "tuple", "dict", "counter"):
        raise ValueError(f"{key} is of the unknown kind {kind!r}")
    if kind in ("list", "tuple"):
        values = [_decoded(f"{key}[{i}]", each, entries, used) for i, each in enumerate(inside)]
        return values if kind == "list" else tuple(values)
    items = {}
    for item in inside:
        if type(item) is not list or len(item) != 2:
            raise ValueError(f"{key} holds {str(item)[:40]!r}, expected a key and its value")
        name = _decoded(key, item[0], entries, used)
        if type(name) not in (str, int, float, bool):
            raise ValueError(f"{key} holds the key {str(item[0])[:40]!r}")
        if name in items:
            raise ValueError(f"{key} holds the key {name!r} twice")
        items[name] = _decoded(f"{key}[{name!r}]", item[1], entries, used)
    return Counter(items) if kind == "counter" else items


def _entry(key: str, entry: Any, entries: Mapping[str, Tensor], used: set[str]) -> Tensor:
    """Return a tensor of the file by the name of its entry."""
    if type(entry) is not str or entry not in entries:
        raise ValueError(f"{key} refers to the entry {str(entry)[:40]!r}, which is missing")
    used.add(entry)
    return entries[entry]


def _storable(key: str, value: Any) -> Tensor:
    """Return a tensor on the CPU, contiguous and alone in its memory."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{key} is a {type(value).__name__}, expected a tensor")
    if is_sharded(value):
        return value.detach()
    if type(value) not in _PLAIN_TYPES or value.layout != torch.strided or value.is_quantized:
        raise TypeError(f"{key} is a {type(value).__name__}, expected a plain dense tensor")
    if value.is_meta or value.is_complex():
        what = "on the meta device" if value.is_meta else f"of dtype {value.dtype}"
        raise TypeError(f"{key} is {what}, expected real numbers: a file holds nothing else")
    return value.detach().cpu().contiguous().clone()


def _checksum(value: Tensor, before: int = 0) -> int:
    """Return the checksum of a tensor's bytes, after those of others."""
    if not value.numel():
        return before
    return zlib.crc32(value.cpu().reshape(-1).view(torch.uint8).numpy().data, before)
