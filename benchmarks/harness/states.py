"""Groups of named tensors in one safetensors file: what an interrupted run resumes from."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .results import set_aside

Tensors = dict[str, torch.Tensor]


def write_state_file(
    path: Path, groups: Mapping[str, Tensors], metadata: Mapping[str, Any]
) -> None:
    """Write groups of tensors and metadata; a reader finds the old file or the new one, never half.

    Args:
        path: the file; its folder is made where it is missing.
        groups: tensors by name, by group. A group's name holds no slash.
        metadata: what JSON can hold, by key.
    """
    tensors = {
        f"{group}/{name}": tensor.detach().cpu().contiguous()
        for group, named in groups.items()
        for name, tensor in named.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    save_file(tensors, unfinished, {key: json.dumps(value) for key, value in metadata.items()})
    os.replace(unfinished, path)


def read_state_file(path: Path, groups: Iterable[str]) -> tuple[dict[str, Tensors], dict[str, Any]]:
    """Read what `write_state_file` wrote: tensors on the CPU by group, and the metadata."""
    found: dict[str, Tensors] = {group: {} for group in groups}
    with safe_open(path, framework="pt") as stored:
        metadata = {key: json.loads(value) for key, value in stored.metadata().items()}
        for key in stored.keys():  # noqa: SIM118 - not a dict, cannot be iterated
            group, name = key.split("/", 1)
            found[group][name] = stored.get_tensor(key).clone()  # not the file's own memory
    return found, metadata


def read_metadata(path: Path, needed: Iterable[str] = ()) -> dict[str, Any] | None:
    """Read the metadata of a state file alone; None where it is missing, or damaged and set aside.

    Args:
        path: the file.
        needed: keys that the metadata of this kind of state have.
    """
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as stored:  # sees whether it was cut short
            metadata = {key: json.loads(value) for key, value in (stored.metadata() or {}).items()}
        if missing := [key for key in needed if key not in metadata]:
            raise ValueError(f"it is missing {missing[0]!r}")
    except (SafetensorError, ValueError, RecursionError) as error:
        set_aside(path, f"cannot be resumed from ({error})")
        return None
    return metadata
