"""Hostile files are refused as rewind points, with their name and their fault."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

import polarity as pol
from polarity.rewind import file as point_file
from tests.helpers import everything_of
from tests.hostile import CONTAINER_FAULTS
from tests.rewind.test_file import trained

ENTRY = "polarity_rewind_point"


def contents(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with safetensors.safe_open(str(path), framework="pt") as file:
        metadata = file.metadata()
    return safetensors.torch.load_file(path), json.loads(metadata[ENTRY])


def edit(change: Callable[[dict[str, Tensor], dict[str, Any]], object]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        tensors, about = contents(path)
        changed = change(tensors, about)
        text = changed if isinstance(changed, str) else json.dumps(about)
        safetensors.torch.save_file(tensors, path, metadata={ENTRY: text})

    return write


def with_bytes(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(change(path.read_bytes()))


def pickled(path: Path) -> None:
    torch.save({"weights": {"w": torch.ones(1)}}, path)


def deep(levels: int) -> str:
    return '{"list":[' * levels + "1" + "]}" * levels


HOSTILE: dict[str, tuple[Callable[[Path], None], str]] = {
    "empty": (with_bytes(lambda b: b""), "not a readable safetensors file"),
    "text": (with_bytes(lambda b: b"hello, world"), "not a readable safetensors file"),
    "pickle": (pickled, "not a readable safetensors file"),
    "cut short": (with_bytes(lambda b: b[:-3]), "not a readable safetensors file"),
    "cut in the header": (with_bytes(lambda b: b[:60]), "not a readable safetensors file"),
    "longer": (with_bytes(lambda b: b + b"\0"), "not a readable safetensors file"),
    "header of terabytes": (with_bytes(lambda b: b"\xff" * 7 + b[7:]), "not a readable"),
    "a bit of a weight": (with_bytes(lambda b: b[:-1] + bytes([b[-1] ^ 1])), "checksum"),
    "other metadata": (
        lambda path: safetensors.torch.save_file({"w": torch.ones(1)}, path, metadata={"a": "b"}),
        "holds no rewind point",
    ),
    "no metadata": (
        lambda path: safetensors.torch.save_file({"w": torch.ones(1)}, path),
        "holds no rewind point",
    ),
    "a model": (lambda path: pol.save(nn.Linear(2, 2), path), "holds no rewind point"),
    "no JSON": (edit(lambda t, a: "{"), "not a JSON object"),
    "a list": (edit(lambda t, a: "[1]"), "not a JSON object"),
    "a string": (edit(lambda t, a: '"point"'), "not a JSON object"),
    "null": (edit(lambda t, a: "null"), "not a JSON object"),
    "deep JSON": (edit(lambda t, a: "[" * 10**5), "not a JSON object"),
    "no version": (edit(lambda t, a: a.pop("version")), "not a JSON object"),
    "next version": (edit(lambda t, a: a.update(version=2)), "of version 2, expected 1"),
    "version true": (edit(lambda t, a: a.update(version=True)), "of version True"),
    "no weights": (edit(lambda t, a: a.pop("weights")), "it has no 'weights'"),
    "no optimizer": (edit(lambda t, a: a.pop("optimizer")), "it has no 'optimizer'"),
    "no checksums": (edit(lambda t, a: a.pop("crc32")), "it has no 'crc32'"),
    "weights list": (edit(lambda t, a: a.update(weights=[])), "'weights' is not an object"),
    "checksums list": (edit(lambda t, a: a.update(crc32=[])), "'crc32' is not an object"),
    "another checksum": (
        edit(lambda t, a: a["crc32"].update({"weights/0.bias": 1})),
        r"checksum of 'weights/0\.bias'",
    ),
    "checksum missing": (
        edit(lambda t, a: a["crc32"].pop("weights/0.bias")),
        r"'weights/0\.bias' has no checksum",
    ),
    "entry missing": (edit(lambda t, a: t.pop("weights/0.bias")), r"'weights/0\.bias' is missing"),
    "entry added": (edit(lambda t, a: t.update(w=torch.ones(1))), "'w' has no checksum"),
    "weight of no entry": (
        edit(lambda t, a: a["weights"].update(w="weights/w")),
        r"weights\['w'\] refers to the entry 'weights/w', which is missing",
    ),
    "weight of a number": (
        edit(lambda t, a: a["weights"].update(w=3)),
        r"weights\['w'\] refers to the entry '3'",
    ),
    "weight of a list": (edit(lambda t, a: a["weights"].update(w=[])), r"weights\['w'\] refers"),
    "unused entry": (
        edit(lambda t, a: a["weights"].pop("0.bias") and None),
        r"nothing refers to the entry 'weights/0\.bias'",
    ),
    "optimizer a number": (
        edit(lambda t, a: a.update(optimizer=3)),
        "'optimizer' is neither a state",
    ),
    "optimizer an empty list": (
        edit(lambda t, a: a.update(optimizer={"list": []})),
        "'optimizer' is neither a state",
    ),
    "scheduler a list of numbers": (
        edit(lambda t, a: a.update(scheduler={"list": [1]})),
        "'scheduler' is neither a state",
    ),
    "scheduler of two kinds": (
        edit(lambda t, a: a.update(scheduler={"dict": [], "list": []})),
        "which says not what it is",
    ),
    "scheduler of no kind": (edit(lambda t, a: a.update(scheduler={})), "says not what it is"),
    "scheduler a bare list": (edit(lambda t, a: a.update(scheduler=[1])), "says not what it is"),
    "unknown kind": (
        edit(lambda t, a: a.update(scheduler={"eval": "1"})),
        "scheduler is of the unknown kind 'eval'",
    ),
    "dict of no pairs": (
        edit(lambda t, a: a.update(scheduler={"dict": [["a"]]})),
        "expected a key and its value",
    ),
    "dict of an object": (edit(lambda t, a: a.update(scheduler={"dict": {}})), "unknown kind"),
    "key a list": (
        edit(lambda t, a: a.update(scheduler={"dict": [[{"list": []}, 1]]})),
        "scheduler holds the key",
    ),
    "key twice": (
        edit(lambda t, a: a.update(scheduler={"dict": [["a", 1], ["a", 2]]})),
        "holds the key 'a' twice",
    ),
    "float of a word": (
        edit(lambda t, a: a.update(scheduler={"dict": [["a", {"float": "1e5"}]]})),
        "unknown kind 'float'",
    ),
    "tensor of a number": (
        edit(lambda t, a: a.update(scheduler={"dict": [["a", {"tensor": 7}]]})),
        r"scheduler\['a'\] refers to the entry '7'",
    ),
    "tree as deep as the stack": (
        edit(lambda t, a: json.dumps(a | {"scheduler": 0}).replace('er": 0', 'er": ' + deep(450))),
        "damaged",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_refused_with_its_name_and_its_fault(case: str, tmp_path: Path) -> None:
    path = tmp_path / "point.safetensors"
    model, optimizer, schedule = trained()
    pol.RewindPoint.capture(model, optimizer, schedule).save(path)
    spoil, said = HOSTILE[case]
    spoil(path)
    before = everything_of(model)
    with pytest.raises(ValueError, match=said) as raised:
        pol.RewindPoint.load(path)
    assert str(path) in str(raised.value)
    assert everything_of(model) == before


def test_the_version_of_the_format_is_in_the_file(tmp_path: Path) -> None:
    pol.RewindPoint({"w": torch.ones(1)}).save(tmp_path / "point.safetensors")
    assert contents(tmp_path / "point.safetensors")[1]["version"] == point_file.VERSION == 1


@pytest.mark.parametrize("fault", CONTAINER_FAULTS)
def test_a_damaged_file_is_refused_by_its_name(fault: str, tmp_path: Path) -> None:
    path = tmp_path / "point.safetensors"
    pol.RewindPoint.capture(*trained()).save(path)
    path.write_bytes(CONTAINER_FAULTS[fault](path.read_bytes()))
    with pytest.raises(ValueError, match=r"is not a readable safetensors file") as raised:
        pol.RewindPoint.load(path)
    assert str(raised.value).startswith(f"{path} ")


def test_a_folder_is_named(tmp_path: Path) -> None:
    for call in (pol.RewindPoint.load, pol.RewindPoint.capture(*trained()).save):
        with pytest.raises(IsADirectoryError, match=rf"^{tmp_path} is a folder, expected a file"):
            call(tmp_path)
