"""The file of a signed mask: its bytes, its size, and what becomes of one that is damaged."""

import builtins
import json
import math
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision
from torch import Tensor, nn

import polarity as pol
from tests.forms import half_masked
from tests.helpers import build
from tests.models import KINDS, Kind, seeded

FILE = "ticket.safetensors"
ENTRY = "polarity_signed_mask"
RECIPE = {"method": "AWS", "dataset": "digits", "note": 'a "quote", a \\ and a ±'}


def found(**how: Any) -> pol.SignedMask:
    """A ticket with all four states in a masked weight, and signs of its unmasked neighbours."""
    model = half_masked(seeded(nn.Sequential(nn.Linear(7, 5), nn.LayerNorm(5), nn.Linear(5, 3))))
    leaf, mask = model[0].parametrizations.weight.original, pol.masks(model)["0.weight"]
    leaf.data[tuple(mask.nonzero()[2])] = 0.0
    model[2].bias.data[1] = 0.0
    return pol.signed_mask(model, include=["*.bias", "1.weight"], **how)


def written_by_hand(path: Path, about: object, tensors: dict[str, bytes]) -> None:
    """Write the safetensors format as its specification has it, without the package."""
    header: dict[str, Any] = {"__metadata__": {ENTRY: about}}
    data = b""
    for name, content in tensors.items():
        place = [len(data), len(data) + len(content)]
        header[name] = {"dtype": "U8", "shape": [len(content)], "data_offsets": place}
        data += content
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def read_by_hand(path: Path) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor]]:
    """Read a ticket with nothing but the documentation of its layout."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    about = json.loads(header["__metadata__"][ENTRY])
    signs, masks = {}, {}
    for name, each in about["tensors"].items():
        begin, end = header[name]["data_offsets"]
        packed, size = data[begin:end], math.prod(each["shape"])

        def bits(start: int, count: int, packed: bytes = packed) -> list[int]:
            return [packed[start + k // 8] >> (k % 8) & 1 for k in range(count)]

        signed = bits(0, size)
        negative = iter(bits(math.ceil(size / 8), sum(signed)))
        third = math.ceil(size / 8) + math.ceil(sum(signed) / 8)
        rest = size - sum(signed)
        alive = iter(bits(third, rest) if len(packed) > third else [0] * rest)
        states = [((1, -1)[next(negative)], 1) if each else (0, next(alive)) for each in signed]
        shape = each["shape"]
        signs[name] = torch.tensor([s for s, _ in states], dtype=torch.int8).reshape(shape)
        if each["masked"]:
            masks[name] = torch.tensor([a for _, a in states]).bool().reshape(shape)
    return about, signs, masks


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_ticket_comes_back_whole(kind: Kind, tmp_path: Path) -> None:
    model = half_masked(build(kind))
    ticket = pol.signed_mask(model, include=lambda name, p: True)
    ticket.save(tmp_path / FILE, recipe=RECIPE)
    again = pol.SignedMask.load(str(tmp_path / FILE))
    assert again == ticket
    assert again.recipe == RECIPE
    assert again.network == ticket.network
    assert again.names == ticket.names
    assert list(again.masks) == list(ticket.masks)
    again.save(tmp_path / "b")
    assert pol.SignedMask.load(tmp_path / "b").recipe == RECIPE


def test_a_survivor_without_a_sign_and_tensors_of_no_or_one_entry_come_back(tmp_path: Path) -> None:
    ticket = found()
    assert int((ticket.masks["0.weight"] & (ticket.signs["0.weight"] == 0)).sum()) == 1
    for name, shape in (("empty", (0, 3)), ("single", ())):
        ticket.signs[name] = torch.ones(shape, dtype=torch.int8)
        ticket.masks[name] = torch.ones(shape, dtype=torch.bool)
        ticket.network[name] = shape
    ticket.save(tmp_path / FILE)
    assert pol.SignedMask.load(tmp_path / FILE) == ticket


def test_the_file_can_be_read_by_its_description_alone(tmp_path: Path) -> None:
    ticket = found()
    ticket.save(tmp_path / FILE, recipe=RECIPE)
    about, signs, masks = read_by_hand(tmp_path / FILE)
    assert pol.SignedMask(signs, masks) == ticket
    assert about["version"] == 1
    assert about["recipe"] == RECIPE
    names = ["0.weight", "0.bias", "1.weight", "1.bias", "2.weight", "2.bias"]
    assert list(about["tensors"]) == names
    assert about["network"]["2.weight"] == [3, 5]


def test_a_file_that_was_written_by_its_description_alone_is_read(tmp_path: Path) -> None:
    packed = bytes([0b10110011, 0b1, 0b100110, 0b010])
    tensors = {"weight": {"shape": [3, 3], "masked": True, "crc32": zlib.crc32(packed)}}
    about = {"version": 1, "tensors": tensors, "network": {"weight": [3, 3]}, "recipe": {}}
    written_by_hand(tmp_path / FILE, json.dumps(about), {"weight": packed})
    ticket = pol.SignedMask.load(tmp_path / FILE)
    assert ticket.signs["weight"].tolist() == [[1, -1, 0], [0, -1, 1], [0, 1, -1]]
    assert (~ticket.masks["weight"]).nonzero().tolist() == [[0, 2], [2, 0]]


def test_the_same_ticket_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in "abcd":
        found().save(tmp_path / name, recipe=RECIPE)
    assert len({(tmp_path / name).read_bytes() for name in "abcd"}) == 1


def test_the_ticket_of_a_resnet50_is_a_few_megabytes(tmp_path: Path) -> None:
    model = torchvision.models.resnet50()
    for parameter in model.parameters():  # a few of 25 million are drawn as exactly 0
        parameter.data.masked_fill_(parameter == 0, 0.01)
    draw = torch.Generator().manual_seed(0)
    shapes = {name: target.shape for name, target in pol.find_targets(model).items()}
    masks = {name: torch.rand(shape, generator=draw) < 0.09 for name, shape in shapes.items()}
    dense = sum(each.numel() * each.element_size() for each in model.state_dict().values())
    ticket = pol.signed_mask(pol.load_masks(model, masks), include="fc")
    ticket.save(tmp_path / FILE, recipe=RECIPE)
    entries = sum(shape.numel() for shape in shapes.values())
    alive = sum(int(mask.sum()) for mask in masks.values())
    size = (tmp_path / FILE).stat().st_size
    assert entries == 25_502_912
    assert size < 3_600_000 < dense / 28
    # The rest is the header: names, shapes and checksums.
    assert 0 < size - (entries + alive) / 8 < 25_000
    again = pol.SignedMask.load(tmp_path / FILE)
    assert again == ticket
    for name, mask in masks.items():
        weight = model.get_submodule(name.removesuffix(".weight")).weight.detach()
        np.testing.assert_array_equal(again.signs[name].numpy(), weight.sign().numpy())
        assert torch.equal(again.masks[name], mask)


# ------------------------------------------------------------------------------- what is refused


class Trap:
    """A pickle that leaves a trace when it is opened."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("opened"),)


def test_nothing_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("plain.pickle").write_bytes(pickle.dumps(Trap()))
    torch.save({"trap": Trap()}, "torch.pt")
    for name in ("plain.pickle", "torch.pt"):
        with pytest.raises(ValueError, match=f"{name} is not a readable safetensors file"):
            pol.SignedMask.load(name)
    assert not Path("opened").exists()
    found().save(FILE)

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("unpickled")

    monkeypatch.setattr(pickle, "Unpickler", forbidden)
    monkeypatch.setattr(pickle, "load", forbidden)
    monkeypatch.setattr(pickle, "loads", forbidden)
    monkeypatch.setattr(torch, "load", forbidden)
    assert pol.SignedMask.load(FILE) == found()


def test_a_file_cut_short_anywhere_is_refused(tmp_path: Path) -> None:
    found().save(tmp_path / FILE)
    content = (tmp_path / FILE).read_bytes()
    for end in range(0, len(content), 7):
        (tmp_path / FILE).write_bytes(content[:end])
        with pytest.raises(ValueError, match=FILE):
            pol.SignedMask.load(tmp_path / FILE)


def test_every_bit_of_the_signs_counts(tmp_path: Path) -> None:
    """Most of these files are valid signed masks, but others than the one that was saved."""
    found().save(tmp_path / FILE)
    content = (tmp_path / FILE).read_bytes()
    begin = 8 + struct.unpack("<Q", content[:8])[0]
    for place in range(8 * begin, 8 * len(content)):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << (place % 8)
        (tmp_path / FILE).write_bytes(flipped)
        with pytest.raises(ValueError, match=f"{FILE} is damaged"):
            pol.SignedMask.load(tmp_path / FILE)


def test_a_flipped_bit_of_the_header_is_refused_or_harmless(tmp_path: Path) -> None:
    """Words (names, recipe) cannot be checked; with whatever else is read, it is that ticket."""
    found().save(tmp_path / FILE)
    content = (tmp_path / FILE).read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    shapes = [signs.shape for signs in found().signs.values()]
    refused, harmless = 0, 0
    for place in range(0, 8 * (8 + length), 31):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << (place % 8)
        (tmp_path / FILE).write_bytes(flipped)
        try:
            ticket = pol.SignedMask.load(tmp_path / FILE)
        except ValueError:
            refused += 1
        else:
            harmless += 1
            assert [signs.shape for signs in ticket.signs.values()] == shapes
    assert refused > harmless


HEADERS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a later version": (lambda a: a.update(version=2), "of version 2, expected 1"),
    "a version in words": (lambda a: a.update(version="1"), "of version '1'"),
    "no version": (lambda a: a.pop("version"), "damaged"),
    "no tensors": (lambda a: a.pop("tensors"), "damaged"),
    "no network": (lambda a: a.pop("network"), "damaged"),
    "no recipe": (lambda a: a.pop("recipe"), "damaged"),
    "a recipe of numbers": (lambda a: a.update(recipe={"lr": 0.1}), "damaged"),
    "no shape": (lambda a: a["tensors"]["0.weight"].pop("shape"), "damaged"),
    "a shape in words": (lambda a: a["tensors"]["0.weight"].update(shape="57"), "damaged"),
    "a negative shape": (lambda a: a["tensors"]["0.weight"].update(shape=[-5, -7]), "damaged"),
    "a shape of fractions": (lambda a: a["tensors"]["0.weight"].update(shape=[5.0, 7]), "damaged"),
    "a larger shape": (
        lambda a: a["tensors"]["0.weight"].update(shape=[9, 7]),
        "63 entries",
    ),
    "an endless shape": (
        lambda a: a["tensors"]["0.weight"].update(shape=[0, 10**30]),
        r"damaged.*shape of '0\.weight'",
    ),
    "a turned shape": (lambda a: a["tensors"]["0.weight"].update(shape=[7, 5]), r"\(7, 5\).*5, 7"),
    "no checksum": (lambda a: a["tensors"]["0.weight"].pop("crc32"), "damaged"),
    "another checksum": (
        lambda a: a["tensors"]["0.weight"].update(crc32=1),
        r"checksum of '0\.weight'",
    ),
    "a mask in words": (lambda a: a["tensors"]["0.weight"].update(masked="yes"), "damaged"),
    "a tensor less": (lambda a: a["tensors"].pop("0.weight"), r"header is missing '0\.weight'"),
    "a tensor more": (
        lambda a: a["tensors"].update(more=a["tensors"]["0.bias"]),
        "missing the signs of 'more'",
    ),
    "a list": (lambda a: a.update(tensors=[]), "damaged"),
}


@pytest.mark.parametrize(("change", "words"), HEADERS.values(), ids=HEADERS.keys())
def test_a_header_that_is_not_as_described_is_refused(
    change: Callable[[dict[str, Any]], object], words: str, tmp_path: Path
) -> None:
    found().save(tmp_path / FILE)
    about, _, _ = read_by_hand(tmp_path / FILE)
    tensors = safetensors.torch.load_file(tmp_path / FILE)
    change(about)
    safetensors.torch.save_file(tensors, tmp_path / FILE, metadata={ENTRY: json.dumps(about)})
    with pytest.raises(ValueError, match=f"{FILE}.*{words}"):
        pol.SignedMask.load(tmp_path / FILE)


@pytest.mark.parametrize("text", ["", "{", "[1]", "3", "[" * 100_000, '{"version": NaN}'])
def test_a_header_that_is_no_object_is_refused(text: str, tmp_path: Path) -> None:
    safetensors.torch.save_file({}, tmp_path / FILE, metadata={ENTRY: text})
    with pytest.raises(ValueError, match=FILE):
        pol.SignedMask.load(tmp_path / FILE)


def test_other_files_are_told_from_tickets(tmp_path: Path) -> None:
    pol.save(half_masked(nn.Linear(4, 3)), tmp_path / "model")
    with pytest.raises(ValueError, match="model holds no signed mask"):
        pol.SignedMask.load(tmp_path / "model")
    (tmp_path / "empty").touch()
    with pytest.raises(ValueError, match="empty is not a readable safetensors file"):
        pol.SignedMask.load(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        pol.SignedMask.load(tmp_path / "nowhere")


@pytest.mark.parametrize("recipe", [{"lr": 0.1}, {1: "one"}])
def test_a_recipe_holds_words_only(recipe: Any, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="recipe holds"):
        found().save(tmp_path / FILE, recipe=recipe)
    assert not (tmp_path / FILE).exists()


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ticket, importing = found(), builtins.__import__

    def without_safetensors(name: str, *rest: Any) -> Any:
        if name.startswith("safetensors"):
            raise ImportError(name)
        return importing(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_safetensors)
    for call in (ticket.save, pol.SignedMask.load):
        with pytest.raises(ImportError, match="pip install safetensors"):
            call(tmp_path / FILE)
