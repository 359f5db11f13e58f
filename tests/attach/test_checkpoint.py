"""Models in safetensors files: what comes back is what was saved, whatever it is loaded into."""

import builtins
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

import polarity as pol
from tests.forms import half_masked, half_remembered
from tests.helpers import outputs, plain_state, same_state, train, train_step
from tests.models import Recurrent, SelfAttention, Tied, noise, seeded


def small(seed: int = 0) -> nn.Sequential:
    return seeded(
        nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)
        ),
        seed,
    )


def shared(seed: int = 0) -> nn.Module:
    layer = nn.Linear(4, 4)
    return seeded(nn.Sequential(layer, nn.Tanh(), layer), seed)


MODELS: dict[str, Any] = {
    "convolution": (small, noise(3, 2, 4, 4)),
    "root_linear": (lambda seed=0: seeded(nn.Linear(4, 3), seed), noise(2, 4)),
    "attention": (
        lambda seed=0: seeded(SelfAttention(4, 2, batch_first=True), seed),
        noise(2, 3, 4),
    ),
    "lstm": (lambda seed=0: seeded(Recurrent(nn.LSTM), seed), noise(2, 3, 4)),
    "tied": (lambda seed=0: seeded(Tied(), seed), lambda draw: (torch.arange(7),)),
    "shared_module": (shared, noise(2, 4)),
}
FORMS: dict[str, Any] = {
    "masked": half_masked,
    "remembered": half_remembered,
    "unpruned": pol.mask_weights,
    "plain": lambda model: model,
}
every_model = pytest.mark.parametrize("model", MODELS)
every_form = pytest.mark.parametrize("form", FORMS)


def made(model: str, seed: int = 0) -> nn.Module:
    return MODELS[model][0](seed)


def inputs_of(model: str) -> tuple[Tensor, ...]:
    return MODELS[model][1](torch.Generator().manual_seed(2))


@every_model
@every_form
@pytest.mark.parametrize("into", ["plain", "masked"])
def test_a_saved_model_comes_back_whole_from_a_plain_or_a_masked_one(
    model: str, form: str, into: str, tmp_path: Path
) -> None:
    saved, inputs = FORMS[form](made(model)), inputs_of(model)
    pol.save(saved, tmp_path / "ticket.safetensors")
    fresh = made(model, 5) if into == "plain" else pol.mask_weights(made(model, 5))
    assert pol.load(fresh, str(tmp_path / "ticket.safetensors")) is fresh
    assert torch.equal(outputs(fresh, inputs), outputs(saved, inputs))
    if form != "plain":
        assert same_state(plain_state(fresh), plain_state(saved))
        assert same_state(pol.masks(fresh), pol.masks(saved))
    train(fresh, inputs)
    train(saved, inputs)
    assert torch.equal(outputs(fresh, inputs), outputs(saved, inputs))


@every_model
def test_a_tied_or_shared_weight_is_still_one_tensor_after_loading(
    model: str, tmp_path: Path
) -> None:
    pol.save(half_masked(made(model)), tmp_path / "a.safetensors")
    fresh = made(model, 5)
    count = len(list(fresh.parameters()))
    pol.load(fresh, tmp_path / "a.safetensors")
    assert len(list(fresh.parameters())) == count
    assert list(pol.merge(fresh).state_dict()) == list(made(model).state_dict())


def test_a_run_goes_on_from_the_file_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    model, inputs = half_masked(small()).train(), inputs_of("convolution")
    adam = torch.optim.Adam(model.parameters(), weight_decay=0.1)
    for _ in range(3):
        train_step(model, adam, inputs)
    pol.imp_prune(model, 0.2, optimizer=adam)
    pol.save(model, tmp_path / "model.safetensors")
    torch.save(adam.state_dict(), tmp_path / "adam.pt")
    resumed = pol.load(small(5).train(), tmp_path / "model.safetensors")
    again = torch.optim.Adam(resumed.parameters(), weight_decay=0.1)
    again.load_state_dict(torch.load(tmp_path / "adam.pt", weights_only=True))
    for _ in range(3):
        assert train_step(model, adam, inputs) == train_step(resumed, again, inputs)
    assert same_state(plain_state(model), plain_state(resumed))


def test_the_file_is_plain_safetensors_under_the_state_dict_keys(tmp_path: Path) -> None:
    model = half_masked(small())
    pol.save(model, tmp_path / "a.safetensors")
    held = safetensors.torch.load_file(tmp_path / "a.safetensors")
    assert held.keys() == model.state_dict().keys()
    assert held["0.parametrizations.weight.0.mask"].dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_every_dtype_comes_back(dtype: torch.dtype, tmp_path: Path) -> None:
    model = half_masked(small()).to(dtype)
    pol.save(model, tmp_path / "a.safetensors")
    fresh = pol.load(small(5).to(dtype), tmp_path / "a.safetensors")
    assert same_state(plain_state(fresh), plain_state(model))


def test_a_layout_that_is_not_contiguous_is_no_obstacle(tmp_path: Path) -> None:
    model = half_masked(small()).to(memory_format=torch.channels_last)
    pol.save(model, tmp_path / "a.safetensors")
    fresh = pol.load(small(5), tmp_path / "a.safetensors")
    assert same_state(pol.masks(fresh), pol.masks(model))
    assert torch.equal(fresh[0].weight, model[0].weight)


def test_the_strategy_standard_is_remembered_by_the_file(tmp_path: Path) -> None:
    model = pol.mask_weights(small())
    start = pol.RewindPoint.capture(model)
    pol.imp_prune(model, density=0.3)
    pol.reinit_signs(model, "standard", init=start, trained=start)
    pol.save(model, tmp_path / "a.safetensors")
    fresh = pol.load(small(5), tmp_path / "a.safetensors")
    assert torch.equal(fresh[0].weight, model[0].weight)
    with pytest.raises(ValueError, match="not enforced"):
        pol.imp_prune(fresh, 0.2)
    assert pol.imp_prune(fresh, density=0.5).survivors == round(0.5 * 120)


@pytest.mark.parametrize("how", ["state_dict", "file"])
def test_after_loading_the_values_of_the_checkpoint_have_the_signs(
    how: str, tmp_path: Path
) -> None:
    """An unpruned checkpoint loaded after a pruning: its own values decide, not the old ones."""
    model, unpruned = pol.mask_weights(small()), pol.mask_weights(small())
    with torch.no_grad():
        for parameter in unpruned.parameters():
            parameter.neg_()
    start = pol.RewindPoint.capture(model)
    pol.imp_prune(model, density=0.5)
    if how == "file":
        pol.save(unpruned, tmp_path / "a.safetensors")
        pol.load(model, tmp_path / "a.safetensors")
    else:
        model.load_state_dict(unpruned.state_dict())
    pol.reinit_signs(model, "mask0", init=start)
    assert torch.equal(model[0].weight.sign(), unpruned[0].weight.sign())


def test_a_masked_weight_that_the_model_lacks_is_named_and_nothing_changes(tmp_path: Path) -> None:
    pol.save(half_masked(small()), tmp_path / "a.safetensors")
    other = seeded(nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4)))
    before = plain_state(other)
    with pytest.raises(ValueError, match=r"4\.weight"):
        pol.load(other, tmp_path / "a.safetensors")
    assert same_state(plain_state(other), before)
    assert not parametrize.is_parametrized(other[0])


def test_another_shape_or_a_missing_name_is_an_error_that_names_file_and_weight(
    tmp_path: Path,
) -> None:
    pol.save(half_masked(small()), tmp_path / "a.safetensors")
    wider = small()
    wider[4] = nn.Linear(16, 4)
    with pytest.raises(ValueError, match=r"a\.safetensors holds '4\.weight' in shape \(3, 16\)"):
        pol.load(wider, tmp_path / "a.safetensors")
    longer = small().append(nn.Linear(3, 2))
    with pytest.raises(ValueError, match=r"a\.safetensors is missing '5\.weight'"):
        pol.load(longer, tmp_path / "a.safetensors")


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    importing = builtins.__import__

    def without_safetensors(name: str, *rest: Any) -> Any:
        if name.startswith("safetensors"):
            raise ImportError(name)
        return importing(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_safetensors)
    with pytest.raises(ImportError, match="pip install safetensors"):
        pol.save(small(), tmp_path / "a.safetensors")


@pytest.mark.gpu
def test_a_model_saved_on_the_gpu_loads_on_the_cpu(tmp_path: Path) -> None:
    model = half_masked(small()).cuda()
    pol.save(model, tmp_path / "a.safetensors")
    fresh = pol.load(small(5), tmp_path / "a.safetensors")
    assert same_state(plain_state(fresh), {k: v.cpu() for k, v in plain_state(model).items()})
    again = pol.load(small(5).cuda(), tmp_path / "a.safetensors")
    assert all(mask.is_cuda for mask in pol.masks(again).values())


@pytest.mark.parametrize("per_layer", [False, True])
def test_interpolated_norms_are_attached_again_with_their_initial_values(
    tmp_path: Path, per_layer: bool
) -> None:
    def network() -> nn.Module:
        return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.LayerNorm(4))

    model = pol.interpolate_norms(network(), per_layer=per_layer)
    with torch.no_grad():
        model[1].parametrizations.weight.original.fill_(5.0)
    pol.save(model, tmp_path / "model.safetensors")
    copy = pol.load(network(), tmp_path / "model.safetensors")
    assert list(copy.state_dict()) == list(model.state_dict())
    assert copy[1].parametrizations.weight.original.tolist() == [5.0] * 4
    assert copy[1].parametrizations.weight[0].initial.tolist() == [1.0] * 4
    alphas = [copy[i].parametrizations.weight[0].alpha for i in (1, 2)]
    assert (alphas[0] is alphas[1]) != per_layer
