"""One safetensors file from tensors of which each rank holds some rows, piece after piece."""

import json
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, distributed

from polarity._files import check_path, names_of
from polarity._shards import is_sharded, piece_of
from polarity.selection.ranks import Ranks

__all__ = ["write_pieces"]

# The format's names, in the order in which its library writes entries: wide ones come first.
_NAMES = {
    torch.uint64: "U64",
    torch.int64: "I64",
    torch.float64: "F64",
    torch.complex64: "C64",
    torch.float32: "F32",
    torch.uint32: "U32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint16: "U16",
    torch.int16: "I16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
# Bytes that are sent, and held by the rank that writes, at a time.
_CHUNK = 1 << 24


def write_pieces(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], ranks: Ranks
) -> None:
    """Write what :func:`polarity._files.write_tensors` would write of the whole tensors.

    The first rank writes. The others send it their rows, 16 MiB at a time; of tensors that are not
    sharded it writes its own. The file has its name once it is complete.

    Args:
        path: the file; its folder exists where the first rank runs.
        tensors: tensors by name, the same names on every rank; sharded ones by rows.
        metadata: as for ``write_tensors``, the same on every rank.
        ranks: all of them call.

    Raises:
        OSError: on every rank, if the file cannot be written; on the others it is a ValueError. An
            earlier file is left as it was.
        ValueError: on every rank, if the format cannot hold one of the tensors.
    """

    def planned() -> tuple[tuple[Path, list[str], bytes], bytes]:
        given = check_path(path)
        if ranks.index == 0 and not given.parent.is_dir():
            raise FileNotFoundError(
                f"{given}: there is no folder {given.parent}, expected one: make it"
            )
        order = _ordered(given, tensors)
        header = _header({name: tensors[name] for name in order}, metadata)
        return (given, order, header), header

    given, order, header = ranks.agree(planned, "the same call on the same model")
    file = _File(given) if ranks.index == 0 else None
    if file is not None:
        file.write(header)
    for name in order:
        _pass_on(tensors[name], file, ranks)

    def finished() -> tuple[bool, None]:
        if file is not None:
            file.finish()
        return True, None

    ranks.agree(finished, "one file")


class _File:
    """A file under another name, which remembers an error while other ranks still send."""

    def __init__(self, given: Path) -> None:
        self._given = given
        self._target, self._temporary = names_of(given)
        self._file: BinaryIO | None = None
        self._error: OSError | None = None

    def write(self, data: Any) -> None:
        """Append some bytes, unless an error came before."""
        if self._error is None:
            try:
                self._file = self._file or self._temporary.open("wb")
                self._file.write(data)
            except OSError as error:
                self._error = error

    def finish(self) -> None:
        """Give the file its name, or raise what was remembered; no other file is left."""
        try:
            if self._error is None and self._file is not None:
                self._file.close()
                os.replace(self._temporary, self._target)
        except OSError as error:
            self._error = error
        self.drop()
        if self._error is not None:
            raise type(self._error)(f"{self._given} cannot be written: {self._error}")

    def drop(self) -> None:
        """Remove what has no name yet."""
        with suppress(OSError):
            if self._file is not None:
                self._file.close()
            self._temporary.unlink(missing_ok=True)


def _pass_on(value: Tensor, file: _File | None, ranks: Ranks) -> None:
    """Send what is here of a tensor to the first rank, which writes it after its own."""
    try:
        if file is None:
            for chunk in _chunks(piece_of(value)) if is_sharded(value) else ():
                first = distributed.get_global_rank(ranks.group, 0)
                distributed.send(chunk.to(ranks.device), first, group=ranks.group)
            return
        for chunk in _chunks(piece_of(value)):
            file.write(chunk.cpu().clone().numpy())
        for index in range(1, ranks.count) if is_sharded(value) else ():
            rank = distributed.get_global_rank(ranks.group, index)
            for size in _sizes(value, index, ranks.count):
                received = torch.empty(size, dtype=torch.uint8, device=ranks.device)
                distributed.recv(received, rank, group=ranks.group)
                file.write(received.cpu().numpy())
    except BaseException:  # another rank has ended
        if file is not None:
            file.drop()
        raise


def _sizes(value: Tensor, index: int, count: int) -> Iterator[int]:
    """Yield how many bytes each chunk of another rank's piece has."""
    rows, each = value.shape[0], -(-value.shape[0] // count)
    start = min(each * index, rows)
    entries = (min(start + each, rows) - start) * value.shape[1:].numel()
    step = max(1, _CHUNK // value.element_size())
    for place in range(0, entries, step):
        yield min(step, entries - place) * value.element_size()


def _ordered(given: Path, tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names in the order of the file."""
    places = {dtype: place for place, dtype in enumerate(_NAMES)}
    for name, value in tensors.items():
        if value.dtype not in places:
            raise ValueError(
                f"{given} cannot be written: {name!r} is of dtype {value.dtype}, which the format "
                "does not know"
            )
    return sorted(tensors, key=lambda name: (places[tensors[name].dtype], name))


def _header(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Return what comes before the entries: the length of the description, and it."""
    about: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    start = 0
    for name, value in tensors.items():
        end = start + value.numel() * value.dtype.itemsize
        about[name] = {
            "dtype": _NAMES[value.dtype],
            "shape": list(value.shape),
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(about, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _chunks(piece: Tensor) -> Iterator[Tensor]:
    """Yield the bytes of a tensor in order."""
    flat = piece.detach().resolve_neg().contiguous().reshape(-1)
    step = max(1, _CHUNK // flat.element_size())
    for start in range(0, flat.numel(), step):
        yield flat[start : start + step].view(torch.uint8)
