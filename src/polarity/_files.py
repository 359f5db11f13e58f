"""Files of tensors: read without executing anything, and written whole or not at all."""

import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from torch import Tensor

__all__ = ["read_tensors", "safetensors_for", "write_tensors"]


def safetensors_for(caller: str) -> ModuleType:
    """Import safetensors, which is optional, for one of the calls that need it."""
    try:
        import safetensors
        import safetensors.torch
    except ImportError as error:
        raise ImportError(f"{caller} needs safetensors: pip install safetensors") from error
    return safetensors


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
    """
    safetensors = safetensors_for(caller)
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"path={str(path)!r}, expected a file in a folder that exists")
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        safetensors.torch.save_file(dict(tensors), str(temporary), metadata=dict(metadata))
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def read_tensors(path: str | Path, caller: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata of a safetensors file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a safetensors file, or is damaged.
    """
    safetensors = safetensors_for(caller)
    if not Path(path).exists():
        raise FileNotFoundError(f"path={str(path)!r}, expected a file that exists")
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # SafetensorError, OSError for a folder, and torch's for odd dtypes
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from error
    return tensors, metadata
