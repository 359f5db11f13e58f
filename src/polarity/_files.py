"""Files of tensors: read without executing anything, and written whole or not at all.

Messages begin with the path: ``path is damaged: …``. Only what a caller gave as the path itself is
named as a parameter.
"""

import json
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from polarity._checks import shown

__all__ = [
    "check_path",
    "names_of",
    "parse_json",
    "read_tensors",
    "safetensors_for",
    "shapes_in",
    "write_tensors",
]


def safetensors_for(caller: str) -> ModuleType:
    """Import safetensors, which is optional, for one of the calls that need it."""
    try:
        import safetensors
        import safetensors.torch
    except ImportError as error:
        raise ImportError(f"{caller} needs safetensors: pip install safetensors") from error
    return safetensors


def check_path(path: object) -> Path:
    """Return the path of a file, and raise if it is none.

    Raises:
        TypeError: if it is neither a string nor a path.
        ValueError: if it is empty, or holds a zero byte.
        IsADirectoryError: if it is a folder.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(
            f"{shown('path', path)}, expected the name of a file: 'model.safetensors', for instance"
        )
    name = os.fspath(path)
    if not isinstance(name, str) or not name or "\0" in name:
        raise ValueError(
            f"path={name!r}, expected the name of a file: 'model.safetensors', for instance"
        )
    if os.path.isdir(name):
        raise IsADirectoryError(f"{name} is a folder, expected a file: name one in it")
    return Path(name)


def write_tensors(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], caller: str
) -> None:
    """Write a safetensors file; an earlier file of that name stays until the new one is complete.

    Args:
        path: the file.
        tensors: contiguous tensors by name, none of them in memory of another.
        metadata: strings by name. Give one entry for a file of reproducible bytes.
        caller: the public call, for the error where safetensors is not installed.

    Raises:
        FileNotFoundError: if the folder does not exist.
        OSError: if the file cannot be written; an earlier one is left as it was.
        ValueError: if the format cannot hold one of the tensors.
    """
    safetensors = safetensors_for(caller)
    given = check_path(path)
    if not given.parent.is_dir():
        raise FileNotFoundError(
            f"{given}: there is no folder {given.parent}, expected one: make it"
        )
    target, temporary = names_of(given)
    try:
        safetensors.torch.save_file(dict(tensors), str(temporary), metadata=dict(metadata))
        os.replace(temporary, target)
    except OSError as error:
        raise type(error)(f"{given} cannot be written: {error}") from error
    except (safetensors.SafetensorError, KeyError, ValueError, RuntimeError, TypeError) as error:
        kind = OSError if "I/O error" in str(error) else ValueError  # it wraps the system's errors
        raise kind(f"{given} cannot be written: {error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def names_of(given: Path) -> tuple[Path, Path]:
    """Return where a file is to be, and the name that it has until it is complete."""
    target = Path(os.path.realpath(given))  # a link stays one
    return target, target.with_name(f".{target.name[:100]}.{os.getpid()}.tmp")


def read_tensors(
    path: str | Path, caller: str, rows: Mapping[str, slice | None] | None = None
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata of a safetensors file, all of it read.

    Args:
        path: the file.
        caller: the public call, for the error where safetensors is not installed.
        rows: which tensors to read, and which rows of each, None for all; by default everything.

    Raises:
        FileNotFoundError: if there is no such file.
        IsADirectoryError: if it is a folder.
        ValueError: if it is not a safetensors file, or is damaged.
    """
    with _opened(path, caller) as file:
        metadata = dict(file.metadata() or {})
        wanted = dict.fromkeys(file.keys()) if rows is None else rows
        return {name: _own(name, _some(file, name, wanted[name])) for name in wanted}, metadata


def shapes_in(path: str | Path, caller: str) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """Return the shapes of the tensors in a safetensors file, and its metadata.

    Raises:
        Exception: as :func:`read_tensors`.
    """
    with _opened(path, caller) as file:
        metadata = dict(file.metadata() or {})
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}, metadata  # noqa: SIM118


@contextmanager
def _opened(path: str | Path, caller: str) -> Iterator[Any]:
    """Open a safetensors file, and say of every error that the file is not readable."""
    safetensors = safetensors_for(caller)
    given = check_path(path)
    if not given.exists():
        raise FileNotFoundError(f"{given} does not exist, expected a safetensors file")
    try:
        with safetensors.safe_open(str(given), framework="pt") as file:
            yield file
        _check_header(given)
    except PermissionError:
        raise
    except Exception as error:  # its own, the system's, and torch's for odd dtypes and shapes
        raise ValueError(
            f"{given} is not a readable safetensors file, expected one that polarity wrote: {error}"
        ) from error


def _some(file: Any, name: str, rows: slice | None) -> Tensor:
    """Return a tensor of a file, or some of its rows."""
    tensor: Tensor = file.get_tensor(name) if rows is None else file.get_slice(name)[rows]
    return tensor


def parse_json(text: str) -> Any:
    """Parse JSON as its specification has it: no name twice, no NaN.

    Raises:
        ValueError: if the text is something else.

    Example:
        >>> parse_json('{"a": 1}')
        {'a': 1}
    """
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("objects are nested too deeply") from None


def _own(name: str, tensor: Tensor) -> Tensor:
    """Return a copy of a tensor, whose memory is the file's: it changes with it, or is gone."""
    # Memory of any other byte is neither True nor False: torch contradicts itself on it.
    if tensor.dtype == torch.bool and bool((tensor.view(torch.uint8) > 1).any()):
        raise ValueError(f"{name!r} holds bools other than 0 and 1")
    return tensor.clone()


def _check_header(path: Path) -> None:
    """Raise if the header says something twice: safetensors reads one of the two."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        parse_json(file.read(length).decode())


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object, whose names must differ."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the name {name!r} stands there twice")
        found[name] = value
    return found


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")
