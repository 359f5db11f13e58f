"""Every row of the migration page's table: what PyTorch does on the left, polarity on the right."""

import ast
import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

import polarity as pol

PAGE = (Path(__file__).parents[2] / "docs" / "from_torch_prune.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("|")
][2:]
each_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0].strip("`")[:60])


def drawn(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def codes(cell: str) -> list[str]:
    """Return the statements of a cell, each a code span."""
    return re.findall("`([^`]+)`", cell)


def net() -> nn.Sequential:
    """A network without ties."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 10), nn.ReLU(), nn.Linear(10, 5))


def world(library: str) -> dict[str, Any]:
    """Return the names that the page says the rows use."""
    model, pruned = net(), nn.Linear(20, 10)
    old = {"weight": torch.rand(10, 20, generator=drawn(1)) < 0.6}
    theirs, ours = net(), net()
    for place in (0, 2):
        prune.random_unstructured(theirs[place], "weight", amount=0.3)
    pol.imp_prune(ours, 0.4)
    if library == "torch":
        prune.custom_from_mask(pruned, "weight", old["weight"])
    else:
        pol.load_masks(pruned, old)
    return {
        "torch": torch, "prune": prune, "pol": pol,
        "model": model, "layer": model[0], "pruned": pruned,
        "parameters": [(model[0], "weight"), (model[2], "weight")],
        "scores": torch.randn(10, 20, generator=drawn(2)),
        "mask": torch.rand(10, 20, generator=drawn(3)) < 0.7,
        "draw": drawn(4), "theirs": theirs.state_dict(), "ours": ours,
    }  # fmt: skip


def run(cell: str, names: dict[str, Any]) -> Any:
    """Run the statements of a cell, and return the value of the last if it is an expression."""
    torch.manual_seed(5)
    value = None
    for code in codes(cell):
        tree = ast.parse(code)
        if isinstance(tree.body[-1], ast.Expr):
            value = eval(compile(code, "page", "eval"), names)
        else:
            exec(code, names)
    return value


def weights(names: dict[str, Any]) -> dict[str, Tensor]:
    """Return every weight and bias that the layers compute with."""
    layers = {"0": names["model"][0], "2": names["model"][2], "pruned": names["pruned"]}
    return {
        f"{name}.{tensor}": getattr(layer, tensor).detach().clone()
        for name, layer in layers.items()
        for tensor in ("weight", "bias")
    }


def test_the_table_is_read_whole() -> None:
    assert len(ROWS) == 21
    assert all(len(row) == 3 and codes(row[0]) and codes(row[1]) for row in ROWS)


@each_row
def test_both_columns_of_a_row_leave_the_same_weights(row: list[str]) -> None:
    sides = {"torch": world("torch"), "polarity": world("polarity")}
    before = weights(sides["torch"])
    values = [run(cell, names) for cell, names in zip(row[:2], sides.values(), strict=True)]
    inputs = torch.randn(3, 20, generator=drawn(6))
    outputs = [names["model"](inputs) for names in sides.values()]  # torch's hooks run
    left, right = (weights(names) for names in sides.values())
    if "random_unstructured" in row[0]:
        assert [n for n in left if left[n].count_nonzero() != right[n].count_nonzero()] == []
    else:
        assert [name for name in left if not torch.equal(left[name], right[name])] == []
        torch.testing.assert_close(*outputs)
    if any(word in row[0] for word in ("structured(", "mask(", "load_state")):
        assert [name for name in left if not torch.equal(left[name], before[name])] != []
    if not isinstance(values[1], (nn.Module, pol.PruneReport, type(None))):
        same_values(*values)
    if "remove" in row[0]:
        states = [names["pruned"].state_dict() for names in sides.values()]
        assert sorted(states[0]) == sorted(states[1]) == ["bias", "weight"]


def same_values(one: Any, other: Any) -> None:
    """Expect two expressions of a row to have one value."""
    if isinstance(one, Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, bool):
        assert one is other is True


@each_row
def test_the_right_column_leaves_no_hooks_of_torchs(row: list[str]) -> None:
    names = world("polarity")
    run(row[1], names)
    for module in (*names["model"], names["pruned"]):
        hooks = module._forward_pre_hooks.values()
        assert [hook for hook in hooks if isinstance(hook, prune.BasePruningMethod)] == []


def test_an_unpruned_layer_is_pruned_in_neither_sense() -> None:
    (row,) = (row for row in ROWS if "is_pruned" in row[0])
    for cell in row[:2]:
        (code,) = codes(cell)
        assert eval(code, {"prune": prune, "pol": pol, "pruned": nn.Linear(2, 2)}) is False


def test_scores_with_signs_are_ranked_by_magnitude_there_and_by_value_here() -> None:
    names = world("torch")
    layer, signed = copy.deepcopy(names["layer"]), copy.deepcopy(names["layer"])
    prune.l1_unstructured(layer, "weight", amount=0.2, importance_scores=names["scores"])
    pol.prune(signed, {"weight": names["scores"]}, amount=0.2)
    gone = names["scores"][~pol.masks(signed)["weight"]]
    assert gone.max() < names["scores"][pol.masks(signed)["weight"]].min()
    assert not torch.equal(layer.weight_mask.bool(), pol.masks(signed)["weight"])


@pytest.mark.parametrize(
    ("amount", "error"),
    [(3, ValueError), (True, TypeError), (False, TypeError), (-1, ValueError), (1.5, ValueError)],
)
def test_amounts_that_are_numbers_of_weights_there_are_errors_here(amount: Any, error: Any) -> None:
    layer = nn.Linear(20, 10)
    with pytest.raises(error, match=f"amount={amount}"):
        pol.imp_prune(layer, amount)
    assert not hasattr(layer, "parametrizations")


@pytest.mark.parametrize("amount", [1, 1.0])
def test_an_amount_of_one_is_everything_here(amount: float) -> None:
    assert pol.imp_prune(nn.Linear(20, 10), amount).survivors == 0


def test_load_masks_replaces_a_mask_and_what_becomes_live_starts_at_zero() -> None:
    names = world("polarity")
    pruned, mask = names["pruned"], names["mask"]
    old = pol.masks(pruned)["weight"]
    pol.load_masks(pruned, {"weight": mask})
    assert torch.equal(pol.masks(pruned)["weight"], mask)
    assert (mask & ~old).any()
    assert pruned.weight[mask & ~old].count_nonzero() == 0


def test_a_container_of_several_steps_is_taken_over_as_one_mask() -> None:
    layer = world("torch")["pruned"]
    prune.l1_unstructured(layer, "weight", amount=0.3)
    mask, weight = layer.weight_mask.bool().clone(), layer.weight.detach().clone()
    (hook,) = layer._forward_pre_hooks.values()
    assert isinstance(hook, prune.PruningContainer)
    pol.mask_weights(layer)
    assert torch.equal(pol.masks(layer)["weight"], mask)
    assert torch.equal(layer.weight, weight)
