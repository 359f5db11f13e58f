"""Dense checkpoints and those of ``torch.nn.utils.prune``, into masked models and out of them."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import prune as torch_prune

import polarity as pol
from polarity.targets.state_keys import buffer_keys, inside
from tests.forms import half_masked, half_remembered
from tests.helpers import outputs, plain_state, same_state, train
from tests.models import Tied, noise, seeded


def small(seed: int = 0) -> nn.Sequential:
    return seeded(
        nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2)), seed
    )


INPUTS = noise(3, 2, 4, 4)(torch.Generator().manual_seed(2))


def test_a_dense_checkpoint_of_a_model_inside_a_model_loads() -> None:
    outer = nn.ModuleDict({"encoder": half_masked(small()), "other": nn.Linear(2, 2)})
    dense = nn.ModuleDict({"encoder": small(3), "other": nn.Linear(2, 2)}).state_dict()
    masks = pol.masks(outer)
    outer.load_state_dict(dense)
    for name, mask in masks.items():
        weight = outer.get_submodule(name.removesuffix(".weight")).weight
        assert torch.equal(weight, dense[name].masked_fill(~mask, 0.0))
    assert torch.equal(outer["encoder"][1].running_var, dense["encoder.1.running_var"])


def test_what_a_dense_checkpoint_holds_outside_the_masks_is_not_even_stored() -> None:
    model = half_masked(small())
    model.load_state_dict(small(3).state_dict())
    stored = model[0].parametrizations.weight.original
    assert not stored[~pol.masks(model)["0.weight"]].any()


def test_a_dense_checkpoint_loads_whole_where_the_mask_is_only_remembered() -> None:
    model, dense = half_remembered(small()), small(3).state_dict()
    masks = pol.masks(model)
    model.load_state_dict(dense)
    assert torch.equal(model[0].weight, dense["0.weight"])
    assert torch.equal(pol.masks(model)["0.weight"], masks["0.weight"])


def test_an_optimizer_goes_on_training_a_model_that_loaded_a_dense_checkpoint() -> None:
    model = half_masked(small())
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    model.load_state_dict(small(3).state_dict())
    before = model[0].weight.detach().clone()
    model(INPUTS[0]).sum().backward()
    sgd.step()
    mask = pol.masks(model)["0.weight"]
    assert bool((model[0].weight != before)[mask].all())


@pytest.mark.parametrize("trained", [False, True], ids=["fresh", "trained_with_hooks"])
def test_a_checkpoint_of_torch_pruning_brings_its_masks(trained: bool) -> None:
    pruned = small(3)
    parameters = [(pruned[0], "weight"), (pruned[3], "weight")]
    torch_prune.global_unstructured(parameters, torch_prune.L1Unstructured, amount=0.6)
    if trained:
        train(pruned, INPUTS)
    checkpoint = pruned.state_dict()
    names = list(checkpoint)
    model = pol.mask_weights(small())
    model.load_state_dict(checkpoint)
    assert list(checkpoint) == names
    assert torch.equal(pol.masks(model)["3.weight"], checkpoint["3.weight_mask"].bool())
    assert torch.equal(outputs(model, INPUTS), outputs(pruned, INPUTS))


def test_a_checkpoint_with_one_layer_pruned_by_torch_leaves_the_other_masks_alone() -> None:
    pruned = small(3)
    torch_prune.l1_unstructured(pruned[0], "weight", amount=0.5)
    model = half_masked(small())
    mask = pol.masks(model)["3.weight"]
    model.load_state_dict(pruned.state_dict())
    assert torch.equal(pol.masks(model)["0.weight"], pruned[0].weight_mask.bool())
    assert torch.equal(pol.masks(model)["3.weight"], mask)


@pytest.mark.parametrize("attach", [half_masked, half_remembered])
def test_the_mask_of_a_torch_checkpoint_is_enforced_as_it_was_there(attach: Any) -> None:
    pruned = small(3)
    torch_prune.l1_unstructured(pruned[3], "weight", amount=0.5)
    model = attach(small())
    model.load_state_dict(pruned.state_dict())
    weight = model[3].weight.detach()
    assert torch.equal(weight, pruned[3].weight)
    assert not weight[~pol.masks(model)["3.weight"]].any()


def drop(state: dict[str, Any]) -> None:
    del state["3.weight"]


def misshape(state: dict[str, Any]) -> None:
    state["3.weight"] = torch.zeros(2, 5)


def misshape_the_mask(state: dict[str, Any]) -> None:
    state["3.weight_orig"] = state.pop("3.weight")
    state["3.weight_mask"] = torch.ones(2, 5)


def add(state: dict[str, Any]) -> None:
    state["7.weight"] = torch.zeros(1)


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (drop, "3.parametrizations.weight.original"),
        (misshape, "3.parametrizations.weight.original"),
        (misshape_the_mask, "3.parametrizations.weight.0.mask"),
        (add, "7.weight"),
    ],
)
def test_a_dense_checkpoint_that_does_not_fit_is_refused_by_name(spoil: Any, named: str) -> None:
    dense = dict(small(3).state_dict())
    spoil(dense)
    with pytest.raises(RuntimeError, match=named):
        half_masked(small()).load_state_dict(dense)


def test_a_merged_model_takes_plain_checkpoints_only() -> None:
    model = pol.merge(half_masked(small()))
    pruned = small(3)
    torch_prune.l1_unstructured(pruned[3], "weight", amount=0.5)
    with pytest.raises(RuntimeError, match="weight_orig"):
        model.load_state_dict(pruned.state_dict())
    model.load_state_dict(small(3).state_dict())


def test_the_dense_state_dict_is_what_merging_would_leave() -> None:
    model = train(half_masked(small()), INPUTS)
    dense = pol.dense_state_dict(model)
    merged = pol.merge(model).state_dict()
    assert dense.keys() == merged.keys()
    assert all(torch.equal(dense[name], merged[name]) for name in merged)


def test_the_dense_state_dict_of_tied_weights_loads_on_both_sides() -> None:
    model, plain = half_masked(seeded(Tied())), seeded(Tied(), 5)
    plain.load_state_dict(pol.dense_state_dict(model))
    assert plain.decoder.weight is plain.encoder.weight
    assert torch.equal(plain.encoder.weight, model.encoder.weight)
    assert torch.equal(plain.middle.weight, model.middle.weight)


def test_the_dense_state_dict_loads_into_another_masked_model_under_its_own_masks() -> None:
    model, other = half_masked(small()), pol.mask_weights(small(5))
    other.load_state_dict(pol.dense_state_dict(model))
    assert torch.equal(outputs(other, INPUTS), outputs(model, INPUTS))
    assert pol.density(other) == 1.0


def test_the_dense_state_dict_of_a_plain_model_is_its_state_dict() -> None:
    model = small()
    assert same_state(pol.dense_state_dict(model), plain_state(model))


class Versioned(nn.Module):
    """A module that reads checkpoints by version, as PyTorch's own BatchNorm does."""

    _version = 2

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def _load_from_state_dict(
        self, state: dict[str, Any], prefix: str, metadata: dict[str, Any], *rest: Any
    ) -> None:
        if metadata.get("version") != 2:
            raise AssertionError(f"read as a checkpoint of version {metadata.get('version')}")
        super()._load_from_state_dict(state, prefix, metadata, *rest)


def test_the_dense_state_dict_keeps_the_versions_that_modules_read_checkpoints_by() -> None:
    state = pol.dense_state_dict(pol.mask_weights(Versioned()))
    Versioned().load_state_dict(state)


def test_the_keys_of_a_parametrized_weight_begin_with_its_path() -> None:
    assert inside("weight") == "parametrizations.weight."
    assert inside("a.b.weight") == "a.b.parametrizations.weight."


def test_a_mask_of_the_users_own_is_none_of_ours(tmp_path: Path) -> None:
    own = nn.Module()
    own.register_buffer("mask", torch.ones(2))
    model = nn.ModuleDict({"head": nn.Sequential(own), "body": nn.Linear(3, 2)})
    assert buffer_keys(model.state_dict(), "mask") == {}
    pol.mask_weights(model)
    assert list(buffer_keys(model.state_dict(), "mask")) == ["body.weight"]
    pytest.importorskip("safetensors")
    pol.save(model, tmp_path / "model.safetensors")
    pol.load(model, tmp_path / "model.safetensors")


def test_one_file_alone_spells_the_keys_of_a_state_dict() -> None:
    keys = re.compile(r"parametrizations\.|\.original|^_orig$|^_mask$|\b0\.(mask|beta|initial)")
    source = Path(pol.__file__).parent
    spelling = set()
    for file in source.rglob("*.py"):
        tree = ast.parse(file.read_text())
        docstrings = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            text = node.value if isinstance(node, ast.Constant) else None
            if isinstance(text, str) and id(node) not in docstrings and keys.search(text):
                spelling.add(str(file.relative_to(source)))
    assert spelling == {"targets/state_keys.py"}
