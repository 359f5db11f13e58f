"""Schedules and torch.compile: how many graphs they take, and the same training as without."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import polarity as pol
from polarity.dense_to_sparse import ACDC, SET, GradualMagnitude, RigL
from tests.dense_to_sparse.cases import OPTIMIZERS, PRODUCT, batches, effective, masked, train


def build(kind: str, product: bool) -> tuple[nn.Module, Any, Any]:
    model = masked(0.4 if kind in ("rigl", "set") else 1.0, product=product)
    sgd = OPTIMIZERS["sgd"](model.parameters())
    if kind == "rigl":
        return model, sgd, RigL(model, sgd, every=3, end=30, fraction=0.5)
    if kind == "set":
        draw = torch.Generator().manual_seed(0)
        return model, sgd, SET(model, sgd, every=3, fraction=0.5, generator=draw)
    if kind == "gradual":
        return model, sgd, GradualMagnitude(model, sgd, density=0.2, begin=2, end=12, every=2)
    return model, sgd, ACDC(model, sgd, density=0.25, switches=(3, 6, 9, 12))


def graphs(kind: str, product: bool, *, fullgraph: bool = False) -> list[int]:
    """Train compiled, compare with the same without, and return how many graphs each step made."""
    torch._dynamo.reset()
    model, sgd, schedule = build(kind, product)
    made = [0]

    def backend(module: Any, inputs: Any) -> Any:
        made[-1] += 1
        return module.forward

    fast = torch.compile(model, backend=backend, fullgraph=fullgraph)
    for _, (x, y) in zip(range(15), batches(), strict=False):
        sgd.zero_grad()
        if fullgraph and kind == "acdc":
            schedule.switch()
        cross_entropy(fast(x), y).backward()
        sgd.step()
        schedule.step()
        made.append(0)
    eager, built, other = build(kind, product)
    train(eager, built, other, 15)
    for name, weight in effective(eager).items():
        assert torch.equal(pol.masks(eager)[name], pol.masks(model)[name])
        assert torch.equal(effective(model)[name], weight)
    return made[:-1]


@PRODUCT
@pytest.mark.parametrize("fullgraph", [False, True])
def test_rigl_takes_one_graph_more(product: bool, fullgraph: bool) -> None:
    made = graphs("rigl", product, fullgraph=fullgraph)
    assert [step for step, count in enumerate(made, start=1) if count] == [1, 3]
    assert sum(made) == 2


@PRODUCT
@pytest.mark.parametrize("kind", ["set", "gradual"])
def test_schedules_that_apply_their_masks_throughout_take_no_graph_more(
    kind: str, product: bool
) -> None:
    made = graphs(kind, product, fullgraph=True)
    assert made == [1] + [0] * 14


@PRODUCT
def test_acdc_takes_no_new_graph_after_its_first_switch_in_each_direction(product: bool) -> None:
    made = graphs("acdc", product)
    assert made[0] == 1
    assert set(made[1:3] + made[4:6]) == {0}
    assert not any(made[7:]), "a later switch compiled again"
    assert sum(made) <= 5  # 3, and up to 5 on torch 2.6


@PRODUCT
def test_acdc_takes_one_graph_more_where_switches_are_made_before_forward(product: bool) -> None:
    made = graphs("acdc", product, fullgraph=True)
    assert [step for step, count in enumerate(made, start=1) if count] == [1, 4]
    assert sum(made) == 2
