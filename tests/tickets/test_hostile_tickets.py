"""Tickets that are damaged or made to do harm: each is refused by name, or is a sound ticket."""

import json
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import polarity as pol
from tests.forms import half_masked
from tests.hostile import CONTAINER_FAULTS, put_together, taken_apart
from tests.models import seeded

ENTRY = "polarity_signed_mask"
BEYOND = 10**30
# What JSON can hold in the place of something else.
VALUES: list[Any] = [None, True, False, 0, 1, -1, 1.0, 0.5, BEYOND, "", "x", [], [1], [[1]], {}]
VALUES += [{"a": 1}]

About = dict[str, Any]
Change = Callable[[About, dict[str, bytes]], object]


def found() -> pol.SignedMask:
    """A ticket with all four states in one weight, and signs without a mask of its neighbours."""
    model = half_masked(seeded(nn.Sequential(nn.Linear(7, 5), nn.LayerNorm(5), nn.Linear(5, 3))))
    leaf, mask = model[0].parametrizations.weight.original, pol.masks(model)["0.weight"]
    leaf.data[tuple(mask.nonzero()[2])] = 0.0
    model[2].bias.data[1] = 0.0
    return pol.signed_mask(model, include=["*.bias", "1.weight"])


def changed(path: Path, change: Change, text: Callable[[str], str] = str) -> None:
    """Save a ticket, and change what it says and the planes that it packs."""
    found().save(path, recipe={"method": "IMP"})
    header, data = taken_apart(path.read_bytes())
    about = json.loads(header.pop("__metadata__")[ENTRY])
    planes = {
        name: data[slice(*header[name]["data_offsets"])]
        for name in sorted(header, key=lambda name: header[name]["data_offsets"])
    }
    change(about, planes)
    again: dict[str, Any] = {"__metadata__": {ENTRY: text(json.dumps(about))}}
    end = 0
    for name, content in planes.items():
        place = [end, end + len(content)]
        again[name] = {"dtype": "U8", "shape": [len(content)], "data_offsets": place}
        end += len(content)
    path.write_bytes(put_together(again, b"".join(planes.values())))


def in_place_of(value: Any, sound: Any) -> bool:
    return type(value) is not type(sound) or value != sound


def set_in(*keys: str, to: Any) -> Change:
    def change(about: About, _: dict[str, bytes]) -> None:
        for key in keys[:-1]:
            about = about[key]
        about[keys[-1]] = to

    return change


def planes_of(name: str, content: Callable[[bytes], bytes]) -> Change:
    """Change packed signs, and their checksum with them."""

    def change(about: About, planes: dict[str, bytes]) -> None:
        planes[name] = content(planes[name])
        about["tensors"][name]["crc32"] = zlib.crc32(planes[name])

    return change


def cases() -> Iterator[tuple[str, Change]]:
    """Yield each field with each kind of wrong value, and what belongs together torn apart."""
    for field, sound in {"version": [1], "tensors": [], "network": [{}], "recipe": [{}]}.items():
        for value in VALUES:
            if all(in_place_of(value, each) for each in sound) and (field, value) != (
                "tensors",
                {},
            ):
                yield f"{field} {value!r}", set_in(field, to=value)
        yield f"without {field}", lambda about, _, field=field: about.pop(field)
    for value in VALUES:
        yield f"a field more {value!r}", set_in("more", to=value)
        yield f"a tensor that is {value!r}", set_in("tensors", "0.weight", to=value)
        yield (
            f"masked {value!r}",
            set_in("tensors", "0.weight", "masked", to=value)
            if (not isinstance(value, bool))
            else set_in("tensors", "0.weight", "masked", to=str(value)),
        )
        yield f"a checksum {value!r}", set_in("tensors", "0.weight", "crc32", to=value)
        yield f"a tensor's field more {value!r}", set_in("tensors", "0.weight", "more", to=value)
        yield f"a shape {value!r}", set_in("tensors", "0.weight", "shape", to=value)
        yield f"a shape of {value!r}", set_in("tensors", "0.weight", "shape", to=[value, 7])
        yield f"a network's shape {value!r}", set_in("network", "0.weight", to=value)
        if not isinstance(value, str):
            yield f"a recipe of {value!r}", set_in("recipe", "method", to=value)
    for name in ("shape", "masked", "crc32"):
        yield f"without {name}", lambda about, _, name=name: about["tensors"]["0.weight"].pop(name)
    sizes = {
        "transposed": [7, 5],
        "flat": [35],
        "one larger": [5, 8],
        "with a dimension more": [5, 7, 1],
        "negative": [-5, -7],
        "endless": [0, 2**63],
        "of a huge product": [2**40, 2**40],
    }
    for words, shape in sizes.items():
        yield f"a shape {words}", set_in("tensors", "0.weight", "shape", to=shape)
        yield f"a network's shape {words}", set_in("network", "0.weight", to=shape)
    for extra in (b"\0", b"\1", b"\xff", b"\0\0", bytes(1000)):
        yield (
            f"0.weight and {len(extra)}x{extra[:1]!r}",
            planes_of("0.weight", lambda c, e=extra: c + e),
        )
        yield (
            f"0.bias and {len(extra)}x{extra[:1]!r}",
            planes_of("0.bias", lambda c, e=extra: c + e),
        )
        yield (
            f"2.bias and {len(extra)}x{extra[:1]!r}",
            planes_of("2.bias", lambda c, e=extra: c + e),
        )
    yield "no planes", planes_of("0.weight", lambda _: b"")
    yield "a byte less", planes_of("0.weight", lambda content: content[:-1])
    yield (
        "a bit after the first plane",
        planes_of("0.weight", lambda c: c[:4] + bytes([c[4] | 128]) + c[5:]),
    )
    yield (
        "a bit after the last plane",
        planes_of("0.weight", lambda c: c[:-1] + bytes([c[-1] | 128])),
    )
    yield "more signs than planes", planes_of("0.weight", lambda c: b"\xff" * 4 + b"\7" + c[5:-1])
    yield "planes of another", lambda _, planes: planes.update({"0.weight": planes["2.weight"]})
    yield (
        "planes exchanged",
        lambda _, planes: planes.update(
            {"2.weight": planes["0.weight"], "0.weight": planes["2.weight"]}
        ),
    )
    yield "a survivor without a mask", set_in("tensors", "0.weight", "masked", to=False)
    yield "signs missing", lambda _, planes: planes.pop("0.weight")
    yield "signs of another name", lambda _, planes: planes.update({"*": planes.pop("0.weight")})
    yield "signs more", lambda _, planes: planes.update({"more": b""})
    yield "a tensor missing", lambda about, _: about["tensors"].pop("0.weight")
    yield "a tensor more", lambda about, _: about["tensors"].update(more=about["tensors"]["0.bias"])
    yield "a name that the network has not", lambda about, _: about["network"].pop("0.weight")
    yield (
        "a glob in the network",
        lambda about, _: about["network"].update({"*.weight": about["network"].pop("0.weight")}),
    )


CASES = dict(cases())
TEXTS: dict[str, Callable[[str], str]] = {
    "no text": lambda _: "",
    "half an object": lambda text: text[:-1],
    "two objects": lambda text: text + text,
    "a list": lambda text: f"[{text}]",
    "a number": lambda _: "3",
    "null": lambda _: "null",
    "not a number": lambda text: text.replace('"version": 1', '"version": NaN'),
    "an infinite number": lambda text: text.replace('"version": 1', '"version": Infinity'),
    "a version twice": lambda text: '{"version": 1, ' + text[1:],
    "a tensor twice": lambda text: text.replace(
        '"tensors": {', '"tensors": {"0.weight": {"shape": [1], "masked": true, "crc32": 0}, '
    ),
    "a recipe twice": lambda text: text.replace('"method"', '"method": "", "method"'),
    **{
        f"nested {depth} deep": lambda _, depth=depth: "[" * depth + "]" * depth
        for depth in (100, 900, 5_000, 100_000)
    },
    **{
        f"a recipe nested {depth} deep": lambda text, depth=depth: text.replace(
            '"IMP"', "[" * depth + "]" * depth
        )
        for depth in (100, 900, 5_000, 100_000)
    },
}


def refused(path: Path) -> str:
    """Load a file, and return what is said of it: that begins with its name."""
    with pytest.raises(ValueError, match=r"ticket") as raised:
        pol.SignedMask.load(path)
    said = str(raised.value)
    assert said.startswith(f"{path} ")
    assert len(said) > len(str(path)) + 10
    return said


def test_there_are_a_hundred_hostile_tickets_and_more() -> None:
    assert len(CASES) + len(TEXTS) + len(CONTAINER_FAULTS) > 250


@pytest.mark.parametrize("fault", CONTAINER_FAULTS)
def test_a_damaged_file_is_refused_by_its_name(fault: str, tmp_path: Path) -> None:
    path = tmp_path / "ticket"
    found().save(path, recipe={"method": "IMP"})
    path.write_bytes(CONTAINER_FAULTS[fault](path.read_bytes()))
    assert "is not a readable safetensors file" in refused(path)


@pytest.mark.parametrize("case", CASES)
def test_a_ticket_that_says_what_cannot_be_is_refused_by_its_name(
    case: str, tmp_path: Path
) -> None:
    path = tmp_path / "ticket"
    changed(path, CASES[case])
    assert "is damaged" in refused(path) or "is a signed mask of version" in refused(path)


@pytest.mark.parametrize("case", TEXTS)
def test_a_ticket_whose_text_is_no_object_of_plain_json_is_refused(
    case: str, tmp_path: Path
) -> None:
    path = tmp_path / "ticket"
    changed(path, lambda *_: None, TEXTS[case])
    assert "is damaged" in refused(path)


@pytest.mark.parametrize("shape", [[3, 1], [1, 3], [3, 1, 1]])
def test_planes_that_are_no_row_of_bytes_are_refused(shape: list[int], tmp_path: Path) -> None:
    path = tmp_path / "ticket"
    found().save(path)
    header, data = taken_apart(path.read_bytes())
    name = next(name for name in header if header[name].get("shape") == [2])
    header[name]["shape"] = [2 if size == 3 else size for size in shape]
    path.write_bytes(put_together(header, data))
    assert "expected one dimension" in refused(path)


@pytest.mark.parametrize("dtype", ["I8", "BOOL", "F8_E5M2"])
def test_planes_of_another_dtype_are_refused(dtype: str, tmp_path: Path) -> None:
    path = tmp_path / "ticket"
    found().save(path)
    header, data = taken_apart(path.read_bytes())
    header["0.weight"]["dtype"] = dtype
    path.write_bytes(put_together(header, data))
    assert "expected torch.uint8" in refused(path) or "bools other than 0 and 1" in refused(path)


def test_a_ticket_with_random_bytes_changed_is_refused_or_sound(tmp_path: Path) -> None:
    """Names, a recipe and whether a weight is masked carry no checksum; all else is that ticket."""
    path = tmp_path / "ticket"
    ticket = found()
    ticket.save(path, recipe={"method": "IMP"})
    content = path.read_bytes()
    draw = torch.Generator().manual_seed(0)
    accepted = 0
    for place, byte in torch.randint(2**31, (400, 2), generator=draw).tolist():
        flipped = bytearray(content)
        flipped[place % len(content)] ^= 1 + byte % 255
        path.write_bytes(flipped)
        try:
            other = pol.SignedMask.load(path)
        except ValueError as error:
            said = str(error)
            assert said.startswith(f"{path} ")
        else:
            accepted += 1
            pol.SignedMask(other.signs, other.masks, other.network, other.recipe)  # it is sound
            assert list(map(torch.Tensor.tolist, other.signs.values())) == list(
                map(torch.Tensor.tolist, ticket.signs.values())
            )
    assert accepted < 100


def test_what_no_checksum_covers_makes_another_sound_ticket(tmp_path: Path) -> None:
    """A mask on signs that are complete, an unknown network, other words: such a ticket exists."""
    path = tmp_path / "ticket"
    changed(path, set_in("tensors", "1.bias", "masked", to=True))
    assert "1.bias" in pol.SignedMask.load(path).masks
    changed(path, set_in("network", to={}))
    assert pol.SignedMask.load(path) == found()
    changed(path, set_in("recipe", to={"*": ""}))
    assert pol.SignedMask.load(path).recipe == {"*": ""}


@pytest.mark.parametrize("path", [None, 3, b"ticket", ["ticket"], "", "a\0b"], ids=repr)
def test_what_is_no_path_is_refused_by_value(path: Any) -> None:
    for call in (found().save, pol.SignedMask.load):
        with pytest.raises((TypeError, ValueError), match=r"path=.*expected the name of a file"):
            call(path)


def test_a_folder_and_a_missing_folder_are_named(tmp_path: Path) -> None:
    for call in (found().save, pol.SignedMask.load):
        with pytest.raises(IsADirectoryError, match=rf"{tmp_path} is a folder, expected a file"):
            call(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere"):
        found().save(tmp_path / "nowhere" / "ticket")
    with pytest.raises(FileNotFoundError, match=r"ticket does not exist"):
        pol.SignedMask.load(tmp_path / "ticket")


def test_a_save_that_fails_leaves_the_earlier_ticket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ticket"
    found().save(path, recipe={"method": "first"})
    before = path.read_bytes()

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(OSError, match=r"ticket cannot be written.*No space left"):
        found().save(path, recipe={"method": "second"})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
