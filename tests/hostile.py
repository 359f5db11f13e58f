"""Files that are damaged or made to do harm: the safetensors format taken apart, fault by fault."""

import io
import json
import pickle
import struct
from collections.abc import Callable
from typing import Any

import torch

Header = dict[str, Any]


def taken_apart(content: bytes) -> tuple[Header, bytes]:
    """Return the header and the data of a file, by its specification and without the package."""
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def put_together(header: Header | bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """Return a file of a header, or of the text of one, with any length stated before it."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def _first(header: Header) -> str:
    """Return the name of the first tensor in the data."""
    names = [name for name in header if name != "__metadata__"]
    return min(names, key=lambda name: header[name]["data_offsets"])


def _length(stated: Callable[[int], int]) -> Callable[[bytes], bytes]:
    def damage(content: bytes) -> bytes:
        (length,) = struct.unpack("<Q", content[:8])
        return struct.pack("<Q", stated(length) % 2**64) + content[8:]

    return damage


def _cut(place: Callable[[int, int], int]) -> Callable[[bytes], bytes]:
    """Cut a file where a function of the end of its header and of its length says."""

    def damage(content: bytes) -> bytes:
        (length,) = struct.unpack("<Q", content[:8])
        return content[: place(8 + length, len(content))]

    return damage


def _text(change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    def damage(content: bytes) -> bytes:
        header, data = taken_apart(content)
        return put_together(change(json.dumps(header).encode()), data)

    return damage


def _entry(**changed: Any) -> Callable[[bytes], bytes]:
    """Change what the header says of the first tensor; None for a field takes it out."""

    def damage(content: bytes) -> bytes:
        header, data = taken_apart(content)
        entry = header[_first(header)]
        for field, value in changed.items():
            new = value(entry[field]) if callable(value) else value
            if new is None:
                del entry[field]
            else:
                entry[field] = new
        return put_together(header, data)

    return damage


def _twice(text: bytes) -> bytes:
    """Let the header name its first tensor twice, with the same words."""
    header = json.loads(text)
    name = _first(header)
    return text[:-1] + b", " + json.dumps({name: header[name]}).encode()[1:]


def _metadata_twice(text: bytes) -> bytes:
    """Say another thing of a metadata entry a second time."""
    name = next(iter(json.loads(text)["__metadata__"]))
    return text.replace(
        b'"__metadata__": {', b'"__metadata__": {' + json.dumps(name).encode() + b': "{}", ', 1
    )


def _torch_file() -> bytes:
    buffer = io.BytesIO()
    torch.save({"weight": torch.ones(2)}, buffer)
    return buffer.getvalue()


_BEYOND = 10**30

# Every one of them is refused, whatever kind of file it is done to.
CONTAINER_FAULTS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "one byte": lambda content: content[:1],
    "half a length": lambda content: content[:4],
    "a length short of a byte": lambda content: content[:7],
    "a length alone": lambda content: content[:8],
    "cut in the header": _cut(lambda end, _: end // 2),
    "cut a byte before the data": _cut(lambda end, _: end - 1),
    "cut before the data": _cut(lambda end, _: end),
    "cut after a byte of data": _cut(lambda end, _: end + 1),
    "cut in the data": _cut(lambda end, whole: (end + whole) // 2),
    "cut before the last byte": _cut(lambda _, whole: whole - 1),
    "a byte too many": lambda content: content + b"\0",
    "a second file after it": lambda content: content + content,
    "a byte before it": lambda content: b"\0" + content,
    "header of no length": _length(lambda _: 0),
    "header shorter by one": _length(lambda n: n - 1),
    "header longer by one": _length(lambda n: n + 1),
    "header longer than the file": _length(lambda n: n + 10**6),
    "header of 100 MB": _length(lambda _: 100_000_001),
    "header of 2^63 bytes": _length(lambda _: 2**63),
    "header of 2^64 - 1 bytes": _length(lambda _: -1),
    "header in another byte order": lambda content: content[7::-1] + content[8:],
    "header that is a list": _text(lambda text: b"[" + text + b"]"),
    "header that is a number": _text(lambda _: b"1"),
    "header that is null": _text(lambda _: b"null"),
    "header of no text": _text(lambda _: b"\xff\xfe\x00"),
    "header of two objects": _text(lambda text: text + text),
    "header without its end": _text(lambda text: text[:-1]),
    "header nested deeply": _text(lambda _: b"[" * 100_000),
    "objects nested deeply": _text(lambda _: b'{"a":' * 100_000),
    "a tensor twice": _text(_twice),
    "metadata twice": _text(_metadata_twice),
    "metadata of numbers": _text(
        lambda text: text.replace(b'"__metadata__": {', b'"__metadata__": {"x": 1, ', 1)
    ),
    "metadata that is a list": _text(
        lambda text: text.replace(b'"__metadata__": {', b'"__metadata__": [], "x": {', 1)
    ),
    "dtype of no name": _entry(dtype=""),
    "dtype in small letters": _entry(dtype=lambda dtype: dtype.lower()),
    "dtype unknown": _entry(dtype="F7"),
    "dtype that is a number": _entry(dtype=32),
    "dtype missing": _entry(dtype=None),
    "dtype of another width": _entry(dtype=lambda dtype: "F64" if dtype == "U8" else "U8"),
    "dtype of four bits": _entry(dtype="F4"),
    "dtype of six bits": _entry(dtype="F6_E2M3"),
    "shape missing": _entry(shape=None),
    "shape that is a number": _entry(shape=1),
    "shape in words": _entry(shape="1"),
    "shape below zero": _entry(shape=lambda shape: [-1, *shape]),
    "shape of fractions": _entry(shape=lambda shape: [1.0, *shape]),
    "shape of words": _entry(shape=lambda shape: ["1", *shape]),
    "shape one larger": _entry(shape=lambda shape: [*shape, 2]),
    "shape with a zero": _entry(shape=lambda shape: [*shape, 0]),
    "shape of 2^63": _entry(shape=[2**63, 2]),
    "shape of 2^32 times 2^32": _entry(shape=[2**32, 2**32]),
    "shape beyond integers": _entry(shape=[_BEYOND]),
    "offsets missing": _entry(data_offsets=None),
    "offsets of one number": _entry(data_offsets=[0]),
    "offsets of three numbers": _entry(data_offsets=lambda each: [*each, each[1]]),
    "offsets in words": _entry(data_offsets=["0", "4"]),
    "offsets the wrong way": _entry(data_offsets=lambda each: each[::-1]),
    "offsets below zero": _entry(data_offsets=lambda each: [-1, each[1]]),
    "offsets from one on": _entry(data_offsets=lambda each: [each[0] + 1, each[1] + 1]),
    "offsets over the next tensor": _entry(data_offsets=lambda each: [each[0], each[1] + 4]),
    "offsets after the end": _entry(data_offsets=lambda each: [each[0], each[1] + 10**9]),
    "offsets beyond integers": _entry(data_offsets=[0, _BEYOND]),
    "a pickle": lambda _: pickle.dumps({"weight": [1.0]}),
    "a file of torch.save": lambda _: _torch_file(),
    "words": lambda _: b"version https://git-lfs.github.com/spec/v1\n",
    "zeros": lambda content: bytes(len(content)),
    "every byte inverted": lambda content: bytes(255 - byte for byte in content),
}
