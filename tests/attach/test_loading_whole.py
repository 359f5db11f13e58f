"""Loading whole or not at all: what fails leaves the model as it was."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

import polarity as pol
from tests.attach.saved import every_form, everything_of, network
from tests.forms import half_in_step, half_masked
from tests.helpers import outputs
from tests.laws.refusals import fingerprint
from tests.models import Recurrent, noise, seeded

pytest.importorskip("safetensors")


def torch_pruned(seed: int = 0) -> nn.Sequential:
    model = network(seed)
    prune.l1_unstructured(model[0], "weight", 0.5)
    return model


def in_step(seed: int = 0) -> nn.Sequential:
    return half_in_step(network(seed))


STARTS: dict[str, Callable[[int], nn.Module]] = {
    "plain": network,
    "masked": lambda seed: half_masked(network(seed)),
    "all forms": every_form,
    "pruned by torch": torch_pruned,
    "masked in the step": in_step,
}
each_start = pytest.mark.parametrize("start", STARTS)
INPUTS = (torch.randn(3, 6, generator=torch.Generator().manual_seed(1)),)


class Broken(Exception):
    pass


def failing_at(number: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let the write of this number fail, whichever way it is made; return the writes made."""
    made: list[str] = []

    def breaking(name: str, write: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **more: Any) -> Any:
            made.append(name)
            if len(made) == number + 1:
                raise Broken(name)
            return write(*given, **more)

        return call

    for owner, name in ((Tensor, "copy_"), (Tensor, "set_"), (torch, "_foreach_copy_")):
        monkeypatch.setattr(owner, name, breaking(name, getattr(owner, name)))
    return made


@each_start
@pytest.mark.parametrize("saved", STARTS)
def test_a_write_that_fails_anywhere_leaves_the_model_as_it_was(
    saved: str, start: str, tmp_path: Path
) -> None:
    pol.save(STARTS[saved](0), tmp_path / "model")
    expected = pol.load(STARTS[start](5), tmp_path / "model")
    for number in range(50):
        model = STARTS[start](5)
        before = everything_of(model)
        with pytest.MonkeyPatch.context() as patch:
            failing_at(number, patch)
            try:
                pol.load(model, tmp_path / "model")
            except Broken:
                failed = True
            else:
                failed = False
        if not failed:
            break
        assert everything_of(model) == before
        pol.load(model, tmp_path / "model")  # and it can still be loaded
        assert torch.equal(outputs(model.eval(), INPUTS), outputs(expected.eval(), INPUTS))
    assert 0 < number < 50


@each_start
@pytest.mark.parametrize("saved", STARTS)
def test_loading_writes_existing_tensors_by_one_call_and_draws_nothing(
    saved: str, start: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pol.save(STARTS[saved](0), tmp_path / "model")
    model = STARTS[start](5)
    random = torch.get_rng_state()
    made = failing_at(10**9, monkeypatch)
    pol.load(model, tmp_path / "model")
    assert made.count("_foreach_copy_") == 1
    assert torch.equal(torch.get_rng_state(), random)


@each_start
def test_parameters_that_stay_are_the_same_objects_and_an_optimizer_goes_on_with_them(
    start: str, tmp_path: Path
) -> None:
    pol.save(STARTS[start](0), tmp_path / "model")
    model = STARTS[start](5)
    before = list(map(id, model.parameters()))
    pol.load(model, tmp_path / "model")
    assert list(map(id, model.parameters())) == before


def test_an_optimizer_of_weights_that_became_products_raises_at_its_next_step(
    tmp_path: Path,
) -> None:
    pol.save(every_form(), tmp_path / "model")
    model = network(5)
    stale = torch.optim.SGD(model.parameters(), lr=0.1)
    pol.load(model, tmp_path / "model")
    with pytest.raises(RuntimeError, match=r"load made '3\.weight' a product of two"):
        stale.step()


def test_masks_in_the_step_stay_there_and_hold_the_loaded_mask(tmp_path: Path) -> None:
    pol.save(half_masked(network(1)), tmp_path / "model")
    model = pol.mask_weights(network(5))
    sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    handle = pol.enforce_in_step(model, sgd)
    pol.load(model, tmp_path / "model")
    model(*INPUTS).sum().backward()
    sgd.step()
    mask = pol.masks(model)["0.weight"]
    assert torch.equal(mask, pol.masks(half_masked(network(1)))["0.weight"])
    assert not model[0].parametrizations.weight.original[~mask].any()
    handle.remove()


@pytest.mark.parametrize("frozen", [False, True])
def test_a_frozen_weight_takes_the_files_mask_and_stays_frozen(
    frozen: bool, tmp_path: Path
) -> None:
    saved = half_masked(network())
    pol.save(saved, tmp_path / "model")
    model = network(5).requires_grad_(not frozen)
    pol.load(model, tmp_path / "model")
    assert torch.equal(outputs(model, INPUTS), outputs(saved, INPUTS))
    assert all(p.requires_grad != frozen for p in model.parameters())


class Odd(nn.Module):
    """A module with all that cannot be copied, an own state, and buffers of every kind."""

    def __init__(self, count: int = 0) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)
        self.lock = threading.Lock()
        self.draw = torch.Generator()
        self.hidden = [nn.Linear(2, 2)]
        self.count = count
        self.register_buffer("wide", torch.zeros(1).expand(4), persistent=False)
        self.register_buffer("scratch", torch.full((2,), float("nan")), persistent=False)
        self.register_buffer("bias", torch.full((2, 2), -float("inf")).triu(1))
        self.register_load_state_dict_post_hook(lambda module, keys: None)

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.count)

    def set_extra_state(self, state: Tensor) -> None:
        self.count = int(state)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def test_a_model_that_cannot_be_copied_loads_with_its_own_state(tmp_path: Path) -> None:
    saved = half_masked(Odd(3))
    pol.save(saved, tmp_path / "model")
    model = Odd()
    lock, hidden = model.lock, model.hidden[0].weight.clone()
    pol.load(model, tmp_path / "model")
    assert model.count == 3
    assert model.lock is lock
    assert torch.equal(model.hidden[0].weight, hidden)
    assert torch.equal(outputs(model, INPUTS), outputs(saved, INPUTS))
    assert model.bias[0, 1] == -float("inf")  # a buffer may hold it


class InPlace(nn.Linear):
    """A module that reads its checkpoint by itself, in place."""

    def _load_from_state_dict(self, state: Any, prefix: str, *_: Any) -> None:
        with torch.no_grad():
            self.weight.copy_(state[f"{prefix}weight"])
            self.bias.copy_(state[f"{prefix}bias"] * 2)


def test_a_module_that_reads_its_checkpoint_itself_is_left_alone_until_all_is_checked(
    tmp_path: Path,
) -> None:
    saved = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 3))
    pol.save(saved, tmp_path / "model")
    model = nn.Sequential(InPlace(6, 6), nn.Linear(6, 4))
    before = everything_of(model)
    with pytest.raises(ValueError, match=r"1\.weight"):
        pol.load(model, tmp_path / "model")
    assert everything_of(model) == before
    model = nn.Sequential(InPlace(6, 6), nn.Linear(6, 3))
    pol.load(model, tmp_path / "model")
    assert torch.equal(model[0].weight, saved[0].weight)
    assert torch.equal(model[0].bias, saved[0].bias * 2)


def test_an_lstm_computes_with_what_was_loaded(tmp_path: Path) -> None:
    inputs = noise(2, 3, 4)(torch.Generator().manual_seed(1))
    saved = half_masked(seeded(Recurrent(nn.LSTM)))
    pol.save(saved, tmp_path / "model")
    model = seeded(Recurrent(nn.LSTM), 5)
    with pytest.raises(ValueError, match=r"cell"):
        pol.load(seeded(Recurrent(nn.LSTM, width=7), 5), tmp_path / "model")
    pol.load(model, tmp_path / "model")
    assert torch.equal(outputs(model, inputs), outputs(saved, inputs))
    plain = seeded(Recurrent(nn.LSTM))
    pol.save(plain, tmp_path / "plain")
    again = pol.load(seeded(Recurrent(nn.LSTM), 5), tmp_path / "plain")
    assert torch.equal(outputs(again, inputs), outputs(plain, inputs))
    with torch.no_grad():  # its own weights, which it keeps in a list too
        for each in (again, plain):
            each.cell.weight_ih_l0.mul_(2)
    assert torch.equal(outputs(again, inputs), outputs(plain, inputs))


def test_meta_and_lazy_models_are_refused_with_the_remedy(tmp_path: Path) -> None:
    pol.save(nn.Linear(6, 3), tmp_path / "model")
    with pytest.raises(ValueError, match=r"model fits no 'weight' on the meta device.*to_empty"):
        pol.load(nn.Linear(6, 3, device="meta"), tmp_path / "model")
    with pytest.raises(ValueError, match=r"model fits no lazy 'weight'.*run one batch"):
        pol.load(nn.LazyLinear(3), tmp_path / "model")
    with pytest.raises(ValueError, match=r"'weight' on the meta device.*to_empty"):
        pol.save(nn.Linear(6, 3, device="meta"), tmp_path / "model")
    with pytest.raises(ValueError, match=r"'weight', which is lazy: run one batch"):
        pol.save(nn.LazyLinear(3), tmp_path / "model")


def test_a_value_that_overflows_the_models_dtype_is_refused(tmp_path: Path) -> None:
    saved = network()
    with torch.no_grad():
        saved[0].weight[0, 0] = 1e30
    pol.save(saved, tmp_path / "model")
    with pytest.raises(ValueError, match=r"model holds '0\.weight', which holds 1 NaN or infinite"):
        pol.load(network(5).half(), tmp_path / "model")
    pol.load(network(5).bfloat16(), tmp_path / "model")


@pytest.mark.parametrize("form", [lambda m: m, half_masked, lambda m: every_form()])
def test_a_loaded_model_does_not_live_in_the_memory_of_its_file(
    form: Callable[[nn.Module], nn.Module], tmp_path: Path
) -> None:
    path = tmp_path / "model"
    pol.save(form(network()), path)
    model = pol.load(network(5), path)
    before = fingerprint(dict(model.state_dict()))
    with path.open("r+b") as file:  # as a program does that writes in place
        file.write(bytes(path.stat().st_size))
    assert fingerprint(dict(model.state_dict())) == before
    path.write_bytes(b"")  # and a process that read on in the file would be killed
    assert fingerprint(dict(model.state_dict())) == before
