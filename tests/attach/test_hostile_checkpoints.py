"""Files for pol.load that are damaged, made to do harm, or another model's: refused, or loaded."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import polarity as pol
from tests.attach.hostile_checkpoints import (
    ALIASES,
    CASES,
    FIRST,
    INF,
    NAN,
    State,
    every_form,
    plain,
    safetensors_torch,
    to,
    written,
)
from tests.forms import half_masked
from tests.hostile import CONTAINER_FAULTS, put_together, taken_apart
from tests.laws.refusals import fingerprint
from tests.models import noise

INTO: dict[str, Callable[[], nn.Module]] = {
    "plain": plain,
    "masked": lambda: pol.mask_weights(plain()),
    "same": lambda: every_form(5),
}
into_each = pytest.mark.parametrize("into", INTO)


def everything_of(model: nn.Module) -> list[Any]:
    """All that a refused file may not have touched, random numbers included."""
    modules = [
        (name, id(module), type(module), module.training, len(module._forward_pre_hooks))
        for name, module in model.named_modules()
    ]
    leaves = [(name, id(p), p.requires_grad) for name, p in model.named_parameters()]
    held = fingerprint({**model.state_dict(), **dict(model.named_buffers())})
    return [modules, leaves, held, fingerprint(torch.get_rng_state())]


def refused(model: nn.Module, path: Path) -> str:
    """Expect an error that begins with the path and says more, and no change; return its words."""
    before = everything_of(model)
    with pytest.raises(ValueError, match=r"model") as raised:
        pol.load(model, path)
    said = str(raised.value)
    assert said.startswith(f"{path} ")
    assert everything_of(model) == before
    return said.removeprefix(f"{path} ")


def test_there_are_a_hundred_hostile_checkpoints_and_more() -> None:
    assert len(CASES) + len(CONTAINER_FAULTS) + len(ALIASES) > 300


@pytest.mark.parametrize("fault", CONTAINER_FAULTS)
def test_a_damaged_file_is_refused_by_its_name_and_changes_nothing(
    fault: str, tmp_path: Path
) -> None:
    path = tmp_path / "model"
    pol.save(every_form(), path)
    path.write_bytes(CONTAINER_FAULTS[fault](path.read_bytes()))
    for into in INTO.values():
        assert "is not a readable safetensors file" in refused(into(), path)


@into_each
@pytest.mark.parametrize("case", CASES)
def test_a_checkpoint_that_cannot_be_is_refused_by_name_and_changes_nothing(
    case: str, into: str, tmp_path: Path
) -> None:
    change, part = CASES[case]
    said = refused(INTO[into](), written(tmp_path, change))
    assert part in said, said


@pytest.mark.parametrize("value", [NAN, INF])
@pytest.mark.parametrize("into", [plain, lambda: pol.sign_in(plain(), targets="0.weight")])
def test_a_pruned_entry_that_is_not_finite_is_refused_in_every_form(
    value: float, into: Callable[[], nn.Module], tmp_path: Path
) -> None:
    def change(state: State, _: object) -> None:
        pruned = state[f"{FIRST}0.mask"] == 0
        state[f"{FIRST}original"] = state[f"{FIRST}original"].masked_fill(pruned, value)
        assert pruned.any()

    assert "'0.weight'" in refused(into(), written(tmp_path, change))


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_a_bias_of_another_kind_of_dtype_is_refused_in_our_words(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    said = refused(plain(), written(tmp_path, to("0.bias", lambda bias: bias.to(dtype))))
    assert said == f"holds '0.bias' of dtype {dtype}, expected one like the model's torch.float32"


def test_the_file_of_a_rewind_point_names_what_reads_it(tmp_path: Path) -> None:
    pol.RewindPoint.capture(plain()).save(tmp_path / "point")
    assert "RewindPoint.load reads it" in refused(plain(), tmp_path / "point")


@pytest.mark.parametrize("text", ALIASES, ids=lambda text: text[:30])
def test_ties_that_are_no_names_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "model"
    pol.save(every_form(), path)
    state = safetensors_torch.load_file(path)
    safetensors_torch.save_file(state, path, {"aliases": text})
    for into in INTO.values():
        assert "is damaged: " in refused(into(), path)


def test_the_sound_file_of_these_cases_loads_into_each_model(tmp_path: Path) -> None:
    path = written(tmp_path, lambda *_: None)
    saved = every_form().eval()
    (inputs,) = noise(3, 4)(torch.Generator().manual_seed(1))
    for into in INTO.values():
        model = pol.load(into(), path).eval()
        assert fingerprint(dict(model.state_dict())) == fingerprint(dict(saved.state_dict()))
        assert torch.equal(model(inputs), saved(inputs))


def test_bools_of_other_bytes_than_0_and_1_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, to(f"{FIRST}0.mask", lambda mask: mask != 0))
    header, data = taken_apart(path.read_bytes())
    place = header[f"{FIRST}0.mask"]["data_offsets"][0]
    path.write_bytes(put_together(header, data[:place] + b"\2" + data[place + 1 :]))
    assert "bools other than 0 and 1" in refused(plain(), path)


@pytest.mark.parametrize("form", [lambda m: m, half_masked, lambda m: pol.sign_in(half_masked(m))])
@into_each
def test_a_file_of_another_width_names_the_weight_and_changes_nothing(
    form: Callable[[nn.Module], nn.Module], into: str, tmp_path: Path
) -> None:
    path = tmp_path / "model"
    pol.save(form(plain(0, width=5)), path)
    said = refused(INTO[into](), path)
    assert "'3.weight'" in said or "'3.bias'" in said
    assert "expected the model's (4" in said


def test_random_bytes_are_refused_or_load_a_sound_model(tmp_path: Path) -> None:
    path = tmp_path / "model"
    pol.save(every_form(), path)
    content = path.read_bytes()
    draw = torch.Generator().manual_seed(0)
    loaded = 0
    for place, byte in torch.randint(2**31, (300, 2), generator=draw).tolist():
        flipped = bytearray(content)
        flipped[place % len(content)] ^= 1 + byte % 255
        path.write_bytes(flipped)
        model = plain()
        before = everything_of(model)
        try:
            pol.load(model, path)
        except ValueError as error:
            said = str(error)
            assert everything_of(model) == before
            assert said.startswith(f"{path} ")
        else:
            loaded += 1
            assert all(bool(p.isfinite().all()) for p in model.parameters())
            assert list(pol.masks(model)) == ["0.weight", "3.weight"]
    assert 0 < loaded < 200  # a flipped bit of a value is another value
