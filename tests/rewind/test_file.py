"""Rewind points in files: equal when they come back, and never trusted."""

import copy
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

import polarity as pol
from tests.forms import half_masked, half_signed_in
from tests.helpers import train_step
from tests.laws.refusals import fingerprint
from tests.models import Tied, noise, seeded

INPUTS = noise(8, 6)(torch.Generator().manual_seed(2))

SCHEDULERS: dict[str, Callable[[Any], Any]] = {
    "step": lambda o: torch.optim.lr_scheduler.StepLR(o, 2),
    "milestones": lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [2, 2, 5]),
    "one cycle": lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=20),
    "plateau": lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o),
    "restarts": lambda o: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(o, 3),
    "by a function": lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda epoch: 0.5**epoch),
    "several": lambda o: torch.optim.lr_scheduler.SequentialLR(
        o,
        [
            torch.optim.lr_scheduler.LinearLR(o, total_iters=2),
            torch.optim.lr_scheduler.CosineAnnealingLR(o, 8),
        ],
        [2],
    ),
}
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True),
    "adafactor": lambda p: torch.optim.Adafactor(p, lr=0.01),
    "asgd": lambda p: torch.optim.ASGD(p, lr=0.01),
    "rprop": lambda p: torch.optim.Rprop(p, lr=0.01),
    "of numpy": lambda p: torch.optim.SGD(p, lr=np.linspace(0.1, 0.2, 2)[0]),
}


def net(seed: int = 0) -> nn.Sequential:
    return seeded(
        nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3)), seed
    )


def trained(optimizer: str = "adam", scheduler: str = "step") -> tuple[nn.Module, Any, Any]:
    model = half_masked(net()).train()
    opt = OPTIMIZERS[optimizer](model.parameters())
    schedule = SCHEDULERS[scheduler](opt)
    for _ in range(3):
        train_step(model, opt, INPUTS)
        schedule.step(*([1.0] if scheduler == "plateau" else []))
    return model, opt, schedule


def parts(point: pol.RewindPoint) -> list[Any]:
    return [fingerprint(each) for each in (point.weights, point.optimizer, point.scheduler)]


def there_and_back(point: pol.RewindPoint, folder: Path) -> pol.RewindPoint:
    point.save(folder / "point.safetensors")
    return pol.RewindPoint.load(folder / "point.safetensors")


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_loaded_point_equals_the_saved_one_bit_for_bit(scheduler: str, tmp_path: Path) -> None:
    model, optimizer, schedule = trained(scheduler=scheduler)
    point = pol.RewindPoint.capture(model, optimizer, schedule)
    again = there_and_back(point, tmp_path)
    assert parts(again) == parts(point)
    assert repr(again.scheduler) == repr(point.scheduler), "and the types of everything"


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_state_of_any_optimizer_comes_back_with_its_types(
    optimizer: str, tmp_path: Path
) -> None:
    model, opt, _ = trained(optimizer)
    point = pol.RewindPoint.capture(model, opt)
    again = there_and_back(point, tmp_path)
    assert parts(again) == parts(point)
    assert again.scheduler is None


@pytest.mark.parametrize(
    "dtype",
    [torch.float64, torch.bfloat16, torch.float16, torch.int32, torch.uint8, torch.bool],
    ids=str,
)
def test_every_dtype_shape_and_layout_is_kept(dtype: torch.dtype, tmp_path: Path) -> None:
    draw = torch.randint(-9, 9, (2, 3, 4, 5))
    values = {"4d": draw, "scalar": draw[0, 0, 0, 0], "none": draw[:0], "slice": draw[:, 1]}
    values |= {"channels_last": draw.float().to(memory_format=torch.channels_last)}
    values = {name: value.to(dtype) for name, value in values.items()}
    again = there_and_back(pol.RewindPoint(values), tmp_path)
    assert fingerprint(again.weights) == fingerprint(values)


def test_nan_infinity_and_negative_zero_are_kept(tmp_path: Path) -> None:
    odd = torch.tensor([math.nan, math.inf, -math.inf, -0.0])
    scheduler = {"best": math.inf, "worst": -math.inf, "none": math.nan, "zero": -0.0}
    again = there_and_back(pol.RewindPoint({"odd": odd}, None, scheduler), tmp_path)
    assert fingerprint(again.weights) == fingerprint({"odd": odd})
    assert repr(again.scheduler) == repr(scheduler)


def test_a_tied_weight_is_stored_once_and_comes_back_under_all_its_names(tmp_path: Path) -> None:
    point = pol.RewindPoint.capture(half_masked(seeded(Tied(50, 40))))
    again = there_and_back(point, tmp_path)
    assert parts(again) == parts(point)
    assert again.weights["decoder.weight"] is again.weights["encoder.weight"]
    stored = safetensors.torch.load_file(tmp_path / "point.safetensors")
    assert sorted(stored) == [
        f"weights/{name}" for name in ("encoder.weight", "middle.bias", "middle.weight")
    ]


def test_several_optimizers_and_schedulers_come_back_as_a_list(tmp_path: Path) -> None:
    model = half_masked(net())
    both = [
        torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9) for layer in (model[0], model[3])
    ]
    schedules = [torch.optim.lr_scheduler.StepLR(each, 1) for each in both]
    point = pol.RewindPoint.capture(model, both, schedules)
    again = there_and_back(point, tmp_path)
    assert [type(again.optimizer), len(again.optimizer or ())] == [list, 2]
    assert parts(again) == parts(point)
    again.restore_schedule(both, schedules)


@pytest.mark.parametrize("form", [half_masked, half_signed_in], ids=["masked", "sign_in"])
def test_a_point_works_after_its_process_has_ended(form: Any, tmp_path: Path) -> None:
    """Another process trains and saves; rewinding here gives the weights that it had."""
    script = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})
import torch, polarity as pol
from tests.rewind.test_file import INPUTS, net, train_step
from tests.forms import {form.__name__}
model = {form.__name__}(net()).train()
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
for _ in range(3):
    train_step(model, optimizer, INPUTS)
pol.RewindPoint.capture(model, optimizer).save({str(tmp_path / "point.safetensors")!r})
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    twin = form(net()).train()
    optimizer = torch.optim.Adam(twin.parameters(), lr=0.01)
    for _ in range(3):
        train_step(twin, optimizer, INPUTS)
    model = form(net(seed=5))
    mine = torch.optim.Adam(model.parameters(), lr=0.3)
    point = pol.RewindPoint.load(tmp_path / "point.safetensors")
    point.restore_weights(model)
    point.restore_schedule(mine)
    ours, theirs = pol.dense_state_dict(model), pol.dense_state_dict(twin)
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-6, atol=1e-7)
    assert fingerprint(mine.state_dict()) == fingerprint(optimizer.state_dict())


def test_an_earlier_file_stays_until_the_new_one_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = pol.RewindPoint({"w": torch.ones(3)})
    path = tmp_path / "point.safetensors"
    first.save(path)

    def torn(tensors: Any, filename: str, metadata: Any = None) -> None:
        Path(filename).write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", torn)
    with pytest.raises(OSError, match="no space left"):
        pol.RewindPoint({"w": torch.zeros(3)}).save(path)
    assert parts(pol.RewindPoint.load(path)) == parts(first)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_saving_into_a_folder_that_does_not_exist_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "point.safetensors"
    with pytest.raises(FileNotFoundError, match=r"nowhere.*: there is no folder"):
        pol.RewindPoint({"w": torch.ones(1)}).save(path)


UNSAVED: dict[str, tuple[Callable[[], pol.RewindPoint], str]] = {
    "function": (
        lambda: pol.RewindPoint({}, None, {"scale": {"by": lambda x: x}}),
        r"scheduler\['scale'\]\['by'\] is a function",
    ),
    "in a list": (
        lambda: pol.RewindPoint({}, [{"param_groups": [{"lr": 1j}]}]),
        r"optimizer\[0\]\['param_groups'\]\[0\]\['lr'\] is a complex",
    ),
    "key": (lambda: pol.RewindPoint({}, {(1, 2): 3}), r"optimizer has the key \(1, 2\)"),
    "sparse": (
        lambda: pol.RewindPoint({"w": torch.eye(2).to_sparse()}),
        r"weights\['w'\] is a Tensor, expected a plain dense tensor",
    ),
    "meta": (
        lambda: pol.RewindPoint({"w": torch.ones(2, device="meta")}),
        r"weights\['w'\] is on the meta device",
    ),
    "complex": (
        lambda: pol.RewindPoint({"w": torch.ones(2, dtype=torch.complex64)}),
        r"weights\['w'\] is of dtype torch.complex64",
    ),
    "no tensor": (lambda: pol.RewindPoint({"w": [1.0]}), r"weights\['w'\] is a list"),
}


@pytest.mark.parametrize("case", UNSAVED)
def test_what_a_file_cannot_hold_is_refused_by_its_key(case: str, tmp_path: Path) -> None:
    build, said = UNSAVED[case]
    with pytest.raises(TypeError, match=said):
        build().save(tmp_path / "point.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"missing\.safetensors does not exist"):
        pol.RewindPoint.load(tmp_path / "missing.safetensors")


def test_reading_executes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, optimizer, schedule = trained()
    path = tmp_path / "point.safetensors"
    pol.RewindPoint.capture(model, optimizer, schedule).save(path)

    def never(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(f"pickle.{name}", never)
    monkeypatch.setattr(torch, "load", never)
    pol.RewindPoint.load(path)


def test_a_loaded_point_is_a_copy_that_using_it_does_not_change(tmp_path: Path) -> None:
    model, optimizer, schedule = trained()
    again = there_and_back(pol.RewindPoint.capture(model, optimizer, schedule), tmp_path)
    before = copy.deepcopy(parts(again))
    pol.imp_prune(model, 0.3, rewind=again, optimizer=optimizer, scheduler=schedule)
    train_step(model, optimizer, INPUTS)
    assert parts(again) == before
