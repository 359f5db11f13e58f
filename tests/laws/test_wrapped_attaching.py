"""Attaching to a wrapped model: refused inside DDP, and through other wrappers to the model."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import polarity as pol
from polarity import dense_to_sparse
from polarity.targets.wrappers import unwrapped
from tests.forms import random_masks
from tests.laws.refusals import fingerprint
from tests.laws.wrapped import (
    ATTACH,
    INPUTS,
    OUTSIDE,
    WRAPPERS,
    draw,
    masked,
    plain,
    point,
    signed_in,
    thresholded,
)

pytestmark = pytest.mark.usefixtures("one_process")


@pytest.mark.parametrize("wrap", ["DDP", "compiled DDP"])
@pytest.mark.parametrize("call", ATTACH.values(), ids=ATTACH)
def test_attaching_inside_ddp_is_refused_and_changes_nothing(call, wrap):
    model = plain()
    wrapped = WRAPPERS[wrap](model)
    keys, values = list(model.state_dict()), fingerprint(point(model))
    with pytest.raises(TypeError, match=r"DistributedDataParallel.*: attach before wrapping"):
        call(wrapped)
    assert list(model.state_dict()) == keys
    assert fingerprint(point(model)) == values


def in_part(wrap: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """Return a model whose head is wrapped."""
    return nn.Sequential(OrderedDict(head=wrap(plain()), rest=plain()))


def same_names() -> nn.Module:
    return pol.mask_weights(in_part(lambda head: nn.Sequential(OrderedDict(module=head))))


NAMED = {
    "load_masks": lambda m: pol.load_masks(m, {"head.module.0.weight": torch.ones(8, 4)}),
    "SignedMask.apply": lambda m: pol.signed_mask(same_names()).apply(m),
    "start_from_mask": lambda m: pol.start_from_mask(m, random_masks(m)),
}


@pytest.mark.parametrize("call", (ATTACH | NAMED).values(), ids=ATTACH | NAMED)
def test_attaching_to_a_model_with_a_part_in_ddp_is_refused_by_its_name(call):
    model = in_part(DistributedDataParallel)
    before = fingerprint(model.state_dict())
    with pytest.raises(TypeError, match=r"its 'head' is wrapped in Distr.*: attach before wrap"):
        call(model)
    assert fingerprint(model.state_dict()) == before


@pytest.mark.parametrize("call", [pol.sign_in, lambda m: pol.mask_weights(m, targets="1.weight")])
def test_attaching_more_inside_ddp_is_refused(call):
    with pytest.raises(TypeError, match="attach before wrapping"):
        call(DistributedDataParallel(masked()))


def test_loading_a_masked_file_into_plain_ddp_is_refused(tmp_path: Path):
    pol.save(masked(), tmp_path / "it.safetensors")
    with pytest.raises(TypeError, match="attach before wrapping"):
        pol.load(DistributedDataParallel(plain()), tmp_path / "it.safetensors")


def test_extracting_inside_ddp_is_refused():
    model = thresholded()
    with pytest.raises(TypeError, match="attach before wrapping"):
        dense_to_sparse.extract_soft_mask(DistributedDataParallel(model))
    assert dense_to_sparse.soft_density(model) < pol.density(model)


def test_merging_products_inside_ddp_is_refused():
    model = signed_in()
    with pytest.raises(TypeError, match="attach before wrapping"):
        pol.merge(DistributedDataParallel(model))
    assert list(pol.inner_scaling(model)) == ["0.weight", "3.weight"]


@pytest.mark.parametrize("wrap", OUTSIDE)
@pytest.mark.parametrize("call", ATTACH, ids=str)
def test_attaching_through_other_wrappers_attaches_to_the_model(call, wrap):
    wrapped = WRAPPERS[wrap](plain())
    ATTACH[call](wrapped)
    expected = plain()
    ATTACH[call](expected)
    inner = unwrapped(wrapped)
    assert list(inner.state_dict()) == list(expected.state_dict())
    wrapped.eval(), expected.eval()
    torch.testing.assert_close(wrapped(INPUTS), expected(INPUTS))


@pytest.mark.parametrize("wrap", OUTSIDE)
def test_norms_interpolated_through_a_wrapper_are_drawn_when_the_model_is_called(wrap):
    wrapped = WRAPPERS[wrap](plain())
    pol.interpolate_norms(wrapped, generator=draw())
    inner = unwrapped(wrapped).train()
    drawn = []
    for _ in range(2):
        inner(INPUTS)
        drawn.append(float(pol.norm_alpha(wrapped)["1"]))
    assert len({1.0, *drawn}) == 3
