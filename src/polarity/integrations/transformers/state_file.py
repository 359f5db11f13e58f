"""A file for the states of schedules: written whole or not at all, read without unpickling."""

import os
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

__all__ = ["read_states", "write_states"]

_NAMES = {"each_step", "each_epoch"}


def write_states(path: Path, states: Mapping[str, list[Any]]) -> None:
    """Write what :meth:`Schedules.state_dict` returns; an earlier file stays until it is done."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        torch.save(dict(states), temporary)
        os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def read_states(path: Path) -> dict[str, list[Any]]:
    """Read a file of :func:`write_states`, without executing anything in it.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, or holds something else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"the checksum of {damaged!r} does not match")
        states = torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # zipfile's, pickle's and torch's own
        raise ValueError(f"{path} is damaged, expected states of schedules: {error}") from error
    if not isinstance(states, dict) or set(states) != _NAMES:
        raise ValueError(f"{path} holds no states of schedules, expected a file of this callback")
    for name, each in states.items():
        if not isinstance(each, list):
            raise ValueError(
                f"{path} holds a {type(each).__name__} for {name}=, expected a list of states"
            )
    return states
