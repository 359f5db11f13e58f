"""Checkpoints go between dense, masked, Sign-In and compact models; on disk weights are dense."""

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import prune as torch_prune

import polarity as pol
from tests.helpers import everything_of
from tests.models import Twins, mlp, seeded
from tests.survivors.cases import (
    FORMS,
    Run,
    adam,
    compacted,
    equal_runs,
    is_compact,
    leaves,
    net,
    pair,
    same_tensors,
    sgd,
    weights,
)


def dense() -> nn.Module:
    return mlp(6, 8, 3, seed=4)


def other(product: bool, density: float = 0.2) -> nn.Module:
    """Return a model whose survivors are others, and fewer."""
    model = mlp(6, 8, 3, seed=5)
    pol.imp_prune(model, density=density)
    return pol.sign_in(model, beta=0.5) if product else model


SOURCES: dict[str, Callable[[], nn.Module]] = {
    "dense": dense,
    "masked": lambda: other(False),
    "Sign-In": lambda: other(True),
    "compact": lambda: compacted(other(False)),
    "compact Sign-In": lambda: compacted(other(True)),
    "more survivors": lambda: other(False, 0.8),
    "as many others": lambda: other(False, 0.4),
    "none": lambda: compacted(other(False, 0.0)),
}
TARGETS: dict[str, Callable[[], nn.Module]] = {
    "masked": lambda: net(False),
    "Sign-In": lambda: net(True),
    "compact": lambda: compacted(net(False)),
    "compact Sign-In": lambda: compacted(net(True)),
}


def is_product(model: nn.Module) -> bool:
    return any(isinstance(m, pol.SignInMW) for m in model.modules())


def check_loaded(source: nn.Module, target: nn.Module, before: dict[str, Any]) -> None:
    """Check that a model computes what the source does, under the source's masks or its own."""
    masks = pol.masks(source) if any_masks(source) else before
    assert same_tensors(pol.masks(target), masks)
    for name, value in weights(source).items():
        torch.testing.assert_close(
            weights(target)[name], value.masked_fill(~masks[name], 0.0), rtol=1e-6, atol=1e-7
        )


def any_masks(model: nn.Module) -> bool:
    return any(isinstance(m, pol.MaskedWeight) for m in model.modules())


@pytest.mark.parametrize("assign", [False, True], ids=["copied", "assigned"])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("source", SOURCES)
def test_state_dicts_load_in_all_directions(source: str, target: str, assign: bool) -> None:
    given, model = SOURCES[source](), TARGETS[target]()
    before = pol.masks(model)
    missing, unexpected = model.load_state_dict(given.state_dict(), strict=True, assign=assign)
    assert not missing
    assert not unexpected
    check_loaded(given, model, before)
    assert is_compact(model) == target.startswith("compact")
    assert is_product(model) == target.endswith("Sign-In")
    for parameter, mask in leaves(model).values():
        if mask is not None and is_compact(model):
            assert parameter.shape == (int(mask.sum()),)
    Run(model, sgd(model)).train(2)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("source", SOURCES)
def test_files_load_in_all_directions(source: str, target: str, tmp_path: Path) -> None:
    given, model = SOURCES[source](), TARGETS[target]()
    before = pol.masks(model)
    pol.save(given, tmp_path / "m.safetensors")
    pol.load(model, tmp_path / "m.safetensors")
    check_loaded(given, model, before)
    assert is_compact(model) == target.startswith("compact")
    assert is_product(model) == (target.endswith("Sign-In") or source.endswith("Sign-In"))
    Run(model, sgd(model)).train(2)


@pytest.mark.parametrize("form", FORMS)
def test_a_dense_model_takes_files_of_compact_ones_as_masked(form: str, tmp_path: Path) -> None:
    masked, compact = pair(FORMS[form])
    pol.save(masked.model, tmp_path / "masked.safetensors")
    pol.save(compact.model, tmp_path / "compact.safetensors")
    files = [(tmp_path / f"{n}.safetensors").read_bytes() for n in ("masked", "compact")]
    assert files[0] == files[1]
    plain = pol.load(dense(), tmp_path / "compact.safetensors")
    assert not is_compact(plain)
    assert same_tensors(plain.state_dict(), masked.model.state_dict())
    assert same_tensors(
        dict(pol.dense_state_dict(compact.model)), dict(pol.dense_state_dict(masked.model))
    )


@pytest.mark.parametrize("keep_vars", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_a_state_dict_is_dense_with_its_zeros(form: str, keep_vars: bool, tmp_path: Path) -> None:
    masked, compact = pair(FORMS[form])
    state = compact.model.state_dict(keep_vars=keep_vars)
    assert same_tensors(dict(masked.model.state_dict()), dict(state))
    shapes = {name: tuple(value.shape) for name, value in masked.model.state_dict().items()}
    assert {name: tuple(value.shape) for name, value in state.items()} == shapes
    torch.save(compact.model.state_dict(), tmp_path / "m.pt")
    loaded = torch.load(tmp_path / "m.pt", weights_only=True)
    assert same_tensors(dict(masked.model.state_dict()), dict(loaded))


@pytest.mark.parametrize("form", FORMS)
def test_checkpoints_of_torch_prune_load_into_compact_models(form: str) -> None:
    given, model = dense(), compacted(net(FORMS[form]))
    for index in (0, 2):
        torch_prune.l1_unstructured(given[index], "weight", 0.5)
    model.load_state_dict(given.state_dict())
    assert is_compact(model)
    for index in (0, 2):
        assert torch.equal(pol.masks(model)[f"{index}.weight"], given[index].weight_mask != 0)
        torch.testing.assert_close(weights(model)[f"{index}.weight"], given[index].weight.detach())


def test_a_mask_alone_changes_which_survivors_there_are() -> None:
    masked, compact = net(), compacted(net())
    state = {n: v for n, v in other(False).state_dict().items() if not n.endswith("original")}
    for model in (masked, compact):
        missing, _ = model.load_state_dict(state, strict=False)
        assert [name.split(".")[-1] for name in missing] == ["original", "original"]
    assert same_tensors(weights(masked), weights(compact))
    assert same_tensors(pol.masks(masked), pol.masks(compact))


def test_a_mask_that_is_not_enforced_is_refused() -> None:
    given, model = other(False), compacted(net())
    for module in given.modules():
        if isinstance(module, pol.MaskedWeight):
            module.enforce = False
    with pytest.raises(RuntimeError, match=r"'0.weight' is compact, .* call expand\(model\) first"):
        model.load_state_dict(given.state_dict())


def test_a_file_with_a_mask_that_is_not_enforced_leaves_a_masked_model(tmp_path: Path) -> None:
    given, model = other(False), compacted(net())
    for module in given.modules():
        if isinstance(module, pol.MaskedWeight):
            module.enforce = False
    pol.save(given, tmp_path / "m.safetensors")
    pol.load(model, tmp_path / "m.safetensors")
    maskings = [m for m in model.modules() if isinstance(m, pol.MaskedWeight)]
    assert not any(m.enforce or m.places is not None or m.spread for m in maskings)
    assert same_tensors(dict(given.state_dict()), dict(model.state_dict()))


@pytest.mark.parametrize("form", FORMS)
def test_tied_weights_are_loaded_into_all_their_owners(form: str, tmp_path: Path) -> None:
    models = []
    for _ in range(2):
        model = seeded(Twins(), 3)
        pol.imp_prune(model, density=0.5)
        models.append(pol.sign_in(model) if FORMS[form] else model)
    compacted(models[1])
    pol.save(models[1], tmp_path / "m.safetensors")
    fresh = compacted(pol.load(seeded(Twins(), 4), tmp_path / "m.safetensors"))
    fresh.load_state_dict(models[1].state_dict())
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(fresh(x), models[0](x))
    assert len({id(p) for p in fresh.parameters()}) == len({id(p) for p in models[0].parameters()})


DAMAGES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "a missing mask": lambda s: {n: v for n, v in s.items() if not n.endswith("2.bias")},
    "another shape": lambda s: s | {"2.bias": torch.zeros(7)},
    "NaN": lambda s: s | {"2.bias": torch.full((3,), torch.nan)},
    "a mask of fractions": lambda s: {
        n: torch.full_like(v, 0.5) if n.endswith("0.mask") else v for n, v in s.items()
    },
}


@pytest.mark.parametrize("damage", [*DAMAGES, "half a file"])
@pytest.mark.parametrize("form", FORMS)
def test_a_damaged_file_leaves_the_model_as_it_was(form: str, damage: str, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    run = pair(FORMS[form])[1].train(1)
    path = tmp_path / "m.safetensors"
    if damage in DAMAGES:
        state = {n: v.clone() for n, v in other(FORMS[form]).state_dict().items()}
        save_file(DAMAGES[damage](state), path)
    else:
        pol.save(other(FORMS[form]), path)
        path.write_bytes(path.read_bytes()[:-40])
    before = everything_of(run.model)
    memory = [p.data_ptr() for p in run.model.parameters()]
    with pytest.raises(ValueError, match="safetensors"):
        pol.load(run.model, path)
    assert everything_of(run.model) == before
    assert memory == [p.data_ptr() for p in run.model.parameters()]
    run.train(1)


RESUMED = """
import sys, torch
import polarity as pol
from tests.models import mlp
from tests.survivors.cases import FORMS, Run, adam, compacted
folder, form = sys.argv[1:]
model = pol.load(mlp(6, 8, 3, seed=9), f"{folder}/model.safetensors")
compacted(model)
run = Run(model, adam(model), steps=5)
run.optimizer.load_state_dict(torch.load(f"{folder}/optimizer.pt", weights_only=True))
run.train(5)
pol.imp_prune(model, 0.2, optimizer=run.optimizer)
run.train(3)
pol.save(model, f"{folder}/end.safetensors")
torch.save(run.optimizer.state_dict(), f"{folder}/end.pt")
"""


@pytest.mark.parametrize("form", FORMS)
def test_a_compact_run_is_resumed_in_another_process_bit_for_bit(form: str, tmp_path: Path) -> None:
    run = pair(FORMS[form], adam)[1].train(2)
    pol.save(run.model, tmp_path / "model.safetensors")
    torch.save(run.optimizer.state_dict(), tmp_path / "optimizer.pt")
    run.train(5)
    pol.imp_prune(run.model, 0.2, optimizer=run.optimizer)
    run.train(3)
    subprocess.run([sys.executable, "-c", RESUMED, str(tmp_path), form], check=True)
    fresh = compacted(pol.load(dense(), tmp_path / "end.safetensors"))
    assert same_tensors(dict(fresh.state_dict()), dict(run.model.state_dict()))
    held = torch.load(tmp_path / "end.pt", weights_only=True)
    resumed = Run(fresh, adam(fresh))
    resumed.optimizer.load_state_dict(held)
    equal_runs(run, resumed)


@pytest.mark.parametrize("form", FORMS)
def test_a_run_that_was_saved_masked_is_resumed_compact(form: str) -> None:
    masked, compact = pair(FORMS[form], adam)
    state, moments = copy.deepcopy((masked.model.state_dict(), masked.optimizer.state_dict()))
    model = net(FORMS[form])
    fresh = Run(model, adam(model), steps=masked.steps)
    model.load_state_dict(state)
    fresh.optimizer.load_state_dict(moments)
    compacted(model, fresh.optimizer)
    fresh.train(3), compact.train(3)
    equal_runs(fresh, compact)
