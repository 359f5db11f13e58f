"""The state of an ImageNet run in one file: written after each epoch, and resumed from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

Records = list[dict[str, Any]]


def write(folder: Path, deciding: dict[str, Any], parts: Mapping[str, Any], done: Records) -> None:
    """Write the states of all parts and the records of the epochs that are done, or nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    path = _path(folder)
    unfinished = path.with_suffix(".unfinished")
    states = {name: part.state_dict() for name, part in parts.items()}
    torch.save({"options": deciding, "records": done, "states": states}, unfinished)
    os.replace(unfinished, path)


def resume(folder: Path, deciding: dict[str, Any], parts: Mapping[str, Any]) -> Records:
    """Load the states of all parts and return the records; none where nothing was written yet."""
    path = _path(folder)
    if not path.is_file():
        return []
    stored = torch.load(path, map_location="cpu", weights_only=True)
    if stored["options"] != deciding:
        known = stored["options"]
        names = [name for name in deciding if known.get(name) != deciding[name]]
        words = ", ".join(
            f"{name} {known.get(name)} there, {deciding[name]} here" for name in names
        )
        raise SystemExit(f"error: {path} is the state of another run: {words}")
    for name, part in parts.items():
        part.load_state_dict(stored["states"][name])
    return list(stored["records"])


def _path(folder: Path) -> Path:
    return folder / "last.pt"
