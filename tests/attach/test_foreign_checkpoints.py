"""Checkpoints in the layouts of others: what pol.load and load_state_dict make of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.optim.swa_utils import AveragedModel

import polarity as pol
from tests.forms import half_masked, half_signed_in
from tests.helpers import outputs, plain_state, same_state
from tests.models import WIDE, Tied, seeded

save_file = pytest.importorskip("safetensors.torch").save_file

INPUTS = (torch.randn(3, 6, generator=torch.Generator().manual_seed(1)),)
WIDE_INPUTS = WIDE.inputs(torch.Generator().manual_seed(1))


def small(seed: int = 0) -> nn.Module:
    return seeded(nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)), seed)


def wide(seed: int = 0) -> nn.Module:
    return seeded(nn.Sequential(WIDE.build()), seed)


MODELS = {"small": (small, INPUTS), "wide": (wide, WIDE_INPUTS)}
FORMS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "plain": lambda model: model,
    "masked": pol.mask_weights,
    "half masked": half_masked,
    "signed in": half_signed_in,
}
every_model = pytest.mark.parametrize("name", MODELS)
into_each = pytest.mark.parametrize("into", FORMS)


def written(state: dict[str, Tensor], folder: Path) -> Path:
    path = folder / "foreign.safetensors"
    save_file({name: value.clone().contiguous() for name, value in state.items()}, path)
    return path


def pruned_by_torch(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.Linear):
            prune.l1_unstructured(module, "weight", 0.5)
    return model


def sparsified(model: nn.Module) -> Any:
    """Let torch.ao's sparsifier mask a model, and return it."""
    ao = pytest.importorskip("torch.ao.pruning")
    sparsifier = ao.WeightNormSparsifier(sparsity_level=0.5, sparse_block_shape=(1, 1))
    sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}, {"tensor_fqn": "2.weight"}])
    sparsifier.step()
    return sparsifier


def without_extra_state(model: nn.Module) -> dict[str, Tensor]:
    state = half_masked(model).state_dict()
    return {name: value for name, value in state.items() if "_extra_state" not in name}


def close(one: nn.Module, other: nn.Module, inputs: tuple[Tensor, ...], into: str) -> None:
    """Compare outputs: exactly, or up to a rounding where values went into a product."""
    if into == "signed in":
        torch.testing.assert_close(outputs(one, inputs), outputs(other, inputs))
    else:
        assert torch.equal(outputs(one, inputs), outputs(other, inputs))


@every_model
@into_each
def test_a_model_that_torch_pruned_is_loaded_with_its_masks(
    into: str, name: str, tmp_path: Path
) -> None:
    build, inputs = MODELS[name]
    saved = pruned_by_torch(build())
    model = pol.load(FORMS[into](build(5)), written(saved.state_dict(), tmp_path))
    close(model, saved, inputs, into)
    for key, mask in pol.masks(model).items():
        module = saved.get_submodule(key.removesuffix(".weight"))
        assert torch.equal(mask, module.weight_mask.bool())


@pytest.mark.parametrize("into", ["plain", "masked"])
def test_a_file_of_torch_ao_at_work_names_the_way_out_and_that_way_works(
    into: str, tmp_path: Path
) -> None:
    saved = small()
    sparsifier = sparsified(saved)
    model = FORMS[into](small(5))
    before = plain_state(model)
    with pytest.raises(ValueError, match=r"holds '0\.weight' without the mask.*squash_mask"):
        pol.load(model, written(saved.state_dict(), tmp_path))
    assert same_state(plain_state(model), before)
    sparsifier.squash_mask()
    pol.load(model, written(saved.state_dict(), tmp_path))
    assert float((saved[0].weight == 0).float().mean()) == 0.5
    close(model, saved, INPUTS, into)


@pytest.mark.parametrize("into", ["masked", "signed in"])
def test_load_state_dict_refuses_a_file_of_torch_ao_at_work(into: str) -> None:
    saved = small()
    sparsified(saved)
    model = FORMS[into](small(5))
    with pytest.raises(RuntimeError, match=r"Missing key.*0\.parametrizations\.weight\.0\.mask"):
        model.load_state_dict(saved.state_dict())


@every_model
@into_each
def test_a_float_mask_without_a_word_on_enforcing_it_is_enforced(
    into: str, name: str, tmp_path: Path
) -> None:
    build, inputs = MODELS[name]
    state = without_extra_state(build())
    model = pol.load(FORMS[into](build(5)), written(state, tmp_path))
    close(model, half_masked(build()), inputs, into)
    assert all(m.enforce for m in model.modules() if isinstance(m, pol.MaskedWeight))


@every_model
@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("remembered", [False, True])
def test_load_state_dict_takes_a_mask_without_a_word_on_enforcing_it(
    remembered: bool, assign: bool, name: str
) -> None:
    build, inputs = MODELS[name]
    model = pol.mask_weights(build(5))
    for module in model.modules():
        if isinstance(module, pol.MaskedWeight):
            module.enforce = not remembered
    found = model.load_state_dict(without_extra_state(build()), assign=assign)
    assert not found.missing_keys
    assert torch.equal(outputs(model, inputs), outputs(half_masked(build()), inputs))


def compiled(model: nn.Module) -> nn.Module:
    return torch.compile(model, backend="eager")


def layers_compiled(model: nn.Module) -> nn.Module:
    for name, child in list(model.named_children()):
        setattr(model, name, torch.compile(child, backend="eager"))
    return model


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "module": nn.DataParallel,
    "module twice": lambda model: nn.DataParallel(nn.DataParallel(model)),
    "compiled": compiled,
    "compiled in module": lambda model: nn.DataParallel(compiled(model)),
    "module in compiled": lambda model: compiled(nn.DataParallel(model)),
    "layers compiled": layers_compiled,
    "averaged": AveragedModel,
}


@every_model
@into_each
@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("form", FORMS)
def test_what_wrappers_put_before_the_names_is_left_out(
    form: str, wrapper: str, into: str, name: str, tmp_path: Path
) -> None:
    build, inputs = MODELS[name]
    saved = FORMS[form](build())
    expected = outputs(saved, inputs)
    state = WRAPPERS[wrapper](saved).state_dict()
    assert not state.keys() & build().state_dict().keys()
    model = pol.load(FORMS[into](build(5)), written(state, tmp_path))
    if form == "plain" and into == "half masked":
        return  # a dense checkpoint leaves the masks, and drops what is outside them
    if form == "plain" and into == "signed in":
        return
    torch.testing.assert_close(outputs(model, inputs), expected)


class Holder(nn.Module):
    """A model of somebody's whose layer is called as DataParallel calls its own."""

    def __init__(self) -> None:
        super().__init__()
        self.module = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x)


@pytest.mark.parametrize("form", FORMS)
def test_a_layer_of_the_users_own_that_is_called_module_keeps_its_name(
    form: str, tmp_path: Path
) -> None:
    saved = FORMS[form](seeded(Holder()))
    pol.save(saved, tmp_path / "model")
    model = pol.load(seeded(Holder(), 5), tmp_path / "model")
    assert torch.equal(outputs(model, INPUTS), outputs(saved, INPUTS))


def test_a_prefix_before_some_names_alone_is_refused(tmp_path: Path) -> None:
    state = {f"module.{k}" if k != "0.bias" else k: v for k, v in small().state_dict().items()}
    with pytest.raises(ValueError, match=r"foreign\.safetensors .*0\.weight"):
        pol.load(small(), written(state, tmp_path))


def test_a_prefix_that_nobody_knows_is_named_and_load_state_dict_leaves_it_to_torch(
    tmp_path: Path,
) -> None:
    state = {f"net.{key}": value for key, value in small().state_dict().items()}
    with pytest.raises(ValueError, match=r"foreign\.safetensors is missing '0\.weight'"):
        pol.load(small(), written(state, tmp_path))
    with pytest.raises(RuntimeError, match=r"Missing key.*0\.parametrizations"):
        half_masked(small()).load_state_dict(nn.DataParallel(small()).state_dict())


@pytest.mark.parametrize("form", FORMS)
def test_a_file_that_holds_a_tied_weight_under_one_of_its_names_is_enough(
    form: str, tmp_path: Path
) -> None:
    """As transformers saves: its files leave out the second name."""
    saved = seeded(Tied())
    state = dict(saved.state_dict())
    del state["decoder.weight"]
    model = pol.load(pol.mask_weights(seeded(Tied(), 5)), written(state, tmp_path))
    assert model.decoder.weight is not None
    assert torch.equal(model.decoder.weight, saved.encoder.weight)
    state["decoder.weight"] = state["encoder.weight"] + 1
    path = written(state, tmp_path)
    with pytest.raises(ValueError, match=r"different values of 'encoder\.weight' and 'decoder"):
        pol.load(seeded(Tied(), 5), path)


def test_a_torch_pruned_model_takes_its_own_file_and_ours(tmp_path: Path) -> None:
    saved = pruned_by_torch(small())
    model = pol.load(pruned_by_torch(small(5)), written(saved.state_dict(), tmp_path))
    assert hasattr(model[0], "weight_mask")
    assert torch.equal(outputs(model, INPUTS), outputs(saved, INPUTS))
    ours = half_masked(small())
    pol.save(ours, tmp_path / "ours")
    model = pol.load(pruned_by_torch(small(5)), tmp_path / "ours")
    assert not hasattr(model[0], "weight_mask")
    assert torch.equal(outputs(model, INPUTS), outputs(ours, INPUTS))
    assert same_state(plain_state(model), plain_state(ours))
    remembered = half_masked(small())
    remembered[0].parametrizations.weight[0].enforce = False
    with torch.no_grad():
        remembered[0].parametrizations.weight.original.fill_(0.5)
    pol.save(remembered, tmp_path / "remembered")
    model = pol.load(pruned_by_torch(small(5)), tmp_path / "remembered")
    assert torch.equal(model[0].weight, torch.full((5, 6), 0.5))


def test_a_model_with_a_parametrization_of_others_takes_its_own_file(tmp_path: Path) -> None:
    normed: Any = nn.utils.parametrizations.weight_norm(nn.Linear(6, 3))
    path = written(normed.state_dict(), tmp_path)
    again = pol.load(nn.utils.parametrizations.weight_norm(nn.Linear(6, 3)), path)
    assert torch.equal(outputs(again, INPUTS), outputs(normed, INPUTS))
    with pytest.raises(ValueError, match=r"'weight'.*not in the model|is missing 'weight'"):
        pol.load(nn.Linear(6, 3), path)
