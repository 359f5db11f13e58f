"""Saving whole or not at all: what a file holds, paths that are none, and the earlier file."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import polarity as pol
from tests.attach.saved import everything_of, network
from tests.forms import half_masked
from tests.models import Tied, seeded

pytest.importorskip("safetensors")


class Views(nn.Module):
    """Buffers that share memory in every way."""

    def __init__(self, fill: float = 0.0) -> None:
        super().__init__()
        memory = torch.arange(12.0) + fill
        for name, view in {
            "whole": memory,
            "again": memory,
            "first": memory[:8],
            "second": memory[4:],
            "square": memory[:9].view(3, 3),
            "transposed": memory[:9].view(3, 3).t(),
            "strided": memory[::2],
            "expanded": memory[:1].expand(4),
            "empty": memory[:0],
            "negative": (torch.ones(2) * 1j).conj().imag,
        }.items():
            self.register_buffer(name, view)


def test_views_that_share_memory_in_part_come_back_each_with_its_values(tmp_path: Path) -> None:
    saved = Views()
    assert saved.negative.is_neg()
    pol.save(saved, tmp_path / "model")
    model = Views(7.0)
    for name, buffer in list(model.named_buffers()):
        setattr(model, name, buffer.clone())  # so that each can have a value of its own
    pol.load(model, tmp_path / "model")
    for name, buffer in saved.named_buffers():
        assert torch.equal(getattr(model, name), buffer), name


@pytest.mark.parametrize("form", [lambda m: m, half_masked, lambda m: pol.sign_in(half_masked(m))])
def test_a_tied_weight_is_stored_once_with_all_its_names(
    form: Callable[[nn.Module], nn.Module], tmp_path: Path
) -> None:
    loose = Tied(70, 50)
    del loose.encoder
    tied, single = form(seeded(Tied(70, 50))), form(seeded(loose))
    pol.save(tied, tmp_path / "tied")
    pol.save(single, tmp_path / "single")
    sizes = [(tmp_path / name).stat().st_size for name in ("tied", "single")]
    assert sizes[0] - sizes[1] < 2_000
    model = pol.load(seeded(Tied(70, 50), 5), tmp_path / "tied")
    assert len(list(model.parameters())) == len(list(tied.parameters()))


@pytest.mark.parametrize("form", [half_masked, lambda m: pol.sign_in(half_masked(m))])
def test_the_names_of_a_tied_weight_share_one_tensor_in_a_dense_state(
    form: Callable[[nn.Module], nn.Module],
) -> None:
    model = form(seeded(Tied(70, 50)))
    state = pol.dense_state_dict(model)
    assert state["encoder.weight"] is state["decoder.weight"]
    assert torch.equal(state["encoder.weight"], model.decoder.weight)


class Holds(nn.Module):
    def __init__(self, thing: Any) -> None:
        super().__init__()
        self.thing = thing

    def get_extra_state(self) -> Any:
        return self.thing


@pytest.mark.parametrize(
    ("thing", "error", "words"),
    [
        ([1], TypeError, "'_extra_state' of type list, expected a tensor"),
        (torch.eye(2).to_sparse(), TypeError, "'_extra_state', a Tensor of layout torch.sparse"),
        (torch.eye(2, device="meta"), ValueError, "'_extra_state' on the meta device"),
        (
            torch.quantize_per_tensor(torch.eye(2), 0.1, 0, torch.qint8),
            TypeError,
            "torch.qint8, expected a whole, dense tensor",
        ),
    ],
    ids=["list", "sparse", "meta", "quantized"],
)
def test_what_is_no_tensor_of_values_is_refused_by_name_and_no_file_is_left(
    thing: Any, error: type[Exception], words: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=words):
        pol.save(Holds(thing), tmp_path / "model")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", [None, 3, b"model", ["model"], "", "a\0b"], ids=repr)
def test_what_is_no_path_is_refused_by_value(
    path: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = network()
    before = everything_of(model)
    for call in (pol.save, pol.load):
        with pytest.raises((TypeError, ValueError), match=r"path=.*expected the name of a file"):
            call(model, path)
    assert everything_of(model) == before
    assert not list(tmp_path.iterdir())


def test_folders_missing_ones_and_such_that_cannot_be_written_to_are_named(
    tmp_path: Path,
) -> None:
    for call in (pol.save, pol.load):
        with pytest.raises(IsADirectoryError, match=rf"^{tmp_path} is a folder, expected a file"):
            call(network(), tmp_path)
    with pytest.raises(FileNotFoundError, match=rf"^{tmp_path}/no/model: there is no folder"):
        pol.save(network(), tmp_path / "no" / "model")
    with pytest.raises(FileNotFoundError, match=rf"^{tmp_path}/model does not exist"):
        pol.load(network(), tmp_path / "model")
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=rf"^{tmp_path}/file/model: there is no folder"):
        pol.save(network(), tmp_path / "file" / "model")
    closed = Path("/proc/sys")  # not even root writes there
    if closed.is_dir():
        with pytest.raises(OSError, match=r"^/proc/sys/model cannot be written"):
            pol.save(network(), closed / "model")


def test_a_crash_while_saving_leaves_the_earlier_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model"
    pol.save(network(), path)
    content = path.read_bytes()

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(OSError, match=r"model cannot be written.*No space left"):
        pol.save(network(1), path)
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_a_link_to_the_new_file(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "real" / "model")
    pol.save(network(), link)
    assert link.is_symlink()
    assert (tmp_path / "real" / "model").is_file()
    pol.load(network(5), link)
