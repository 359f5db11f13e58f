"""What polarity leaves on a user's model: masks, settings, and nothing that others stumble over."""

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import polarity as pol
from tests.forms import FORMS, Form
from tests.models import generator, seeded

KNOWN_BUFFERS = ("mask", "beta", "alpha", "initial", "stream")


def network(seed: int = 0) -> nn.Sequential:
    """Build a network with a norm, a weight above 2**16 entries and a tied one."""
    model = nn.Sequential(
        nn.Linear(300, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 8), nn.Linear(8, 8)
    )
    model.append(nn.Linear(8, 8))
    model[5].weight = model[4].weight
    return seeded(model, seed).train()


def data(seed: int = 1) -> Tensor:
    return torch.randn(12, 300, generator=torch.Generator().manual_seed(seed))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 2) -> None:
    for step in range(steps):
        optimizer.zero_grad()
        model(data(step)).square().mean().backward()
        optimizer.step()


def whole_life(form: Form, seed: int = 0) -> Iterator[tuple[str, nn.Module]]:
    """Take a model through all that polarity does to one, and yield it at every stage."""
    model = form.attach(network(seed))
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    start = pol.RewindPoint.capture(model, optimizer)
    yield "attached", model
    train(model, optimizer)
    yield "trained", model
    pol.imp_prune(model, density=0.3, rewind=start, optimizer=optimizer)
    yield "pruned and rewound", model
    told = optimizer if form.compact else None
    pol.prune(model, pol.scores.random, density=0.2, generator=generator(), optimizer=told)
    yield "pruned by scores", model
    pol.reinit_signs(model, init=start, perturb=pol.Epsilon(0.3), generator=torch.Generator())
    yield "signed", model
    train(model, optimizer)
    pol.load_masks(model, pol.masks(model))
    pol.density(model), pol.signed_mask(model), pol.dense_state_dict(model)
    pol.sign_flips(start, model)
    yield "read", model
    pol.sign_in(model, optimizer=optimizer)
    train(model, optimizer)
    pol.rescale(model, optimizer=optimizer)
    yield "signed in", model
    pol.interpolate_norms(model, generator=torch.Generator().manual_seed(0))
    train(model, optimizer)
    yield "interpolated", model
    pol.merge(model, optimizer=optimizer)
    train(model, optimizer)
    yield "merged", model


def weak_references(p: Tensor) -> int:
    return weakref.getweakrefcount(p)


def hooks(p: Tensor) -> int:
    return len(p._backward_hooks or ()) + len(p._post_accumulate_grad_hooks or ())


def frozen_storages(p: Tensor) -> int:
    """Storages that can never be resized again, as numpy makes those that it has seen."""
    return int(not p.untyped_storage().resizable())


def marks(p: Tensor) -> int:
    """Attributes, but for the one by which an optimizer with the state of another shape raises."""
    return len(vars(p).keys() - {"_polarity_resized"})


@pytest.mark.parametrize("count", [weak_references, hooks, frozen_storages, marks])
@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_nothing_hangs_on_a_parameter(form: Form, count: Callable[[Tensor], int]) -> None:
    enforcing = form.name == "in_step" and count is hooks
    for stage, model in whole_life(form):
        over = (stage in ("signed in", "interpolated", "merged")) or not enforcing
        found = {name: count(p) for name, p in model.named_parameters()}
        expected = dict.fromkeys(found, 0)
        if not over:  # those that were asked for
            expected |= {name: 1 for name in found if "original" in name}
        assert found == expected, stage


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_buffers_are_masks_and_settings_in_shapes_that_no_data_decides(form: Form) -> None:
    own = [name for name, _ in network().named_buffers()]
    lives = [list(described(form, seed)) for seed in (0, 5)]
    assert lives[0] == lives[1]
    for stage, buffers in lives[0]:
        added = [name for name in buffers if name not in own]
        assert {name.rpartition(".")[2] for name in added} <= set(KNOWN_BUFFERS), stage
        if stage == "merged":
            assert added == []


def described(form: Form, seed: int) -> Iterator[tuple[str, dict[str, Any]]]:
    for stage, model in whole_life(form, seed):
        yield stage, {name: (b.dtype, b.shape) for name, b in model.named_buffers()}


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_a_mask_has_the_dtype_shape_and_layout_of_its_weight(form: Form) -> None:
    for stage, model in whole_life(form):
        for dtype in (torch.float64, torch.float32):
            model.to(dtype)
            for module in model.modules():
                for parametrized in getattr(module, "parametrizations", {}).values():
                    mask = getattr(parametrized[0], "mask", None)
                    if mask is not None:
                        leaf = next(parametrized.parameters())
                        assert mask.dtype == leaf.dtype, stage
                        if form.compact:
                            assert leaf.shape == (int(mask.count_nonzero()),), stage
                            continue
                        assert mask.shape == leaf.shape, stage
                        assert mask.stride() == leaf.stride()


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_rewinding_to_a_point_of_another_dtype_spares_that_of_the_mask(form: Form) -> None:
    model = form.attach(network())
    start = pol.RewindPoint.capture(model)
    model.bfloat16()
    pol.imp_prune(model, density=0.4, rewind=start)
    masks = [b for name, b in model.named_buffers() if name.endswith("mask")]
    assert {mask.dtype for mask in masks} == {torch.bfloat16}
    model(data().bfloat16()).square().mean().backward()
    assert {p.grad.dtype for p in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_parameters_can_be_swapped_at_every_stage(form: Form) -> None:
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        for stage, model in whole_life(form):
            kept, before = list(model.parameters()), model.eval()(data()).detach()
            model.double().float()
            assert all(a is b for a, b in zip(kept, model.parameters(), strict=True)), stage
            assert torch.equal(model(data()), before), stage
            model.load_state_dict({k: v.clone() for k, v in model.state_dict().items()})
            assert torch.equal(model(data()), before), stage
            model.train()
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_storages_can_be_resized_and_given_back_as_offloading_does(form: Form) -> None:
    for stage, model in whole_life(form):
        for p in model.parameters():
            storage, kept = p.untyped_storage(), p.detach().clone()
            size = storage.size()
            storage.resize_(0)
            storage.resize_(size)
            with torch.no_grad():
                p.copy_(kept)
        assert torch.isfinite(model.eval()(data())).all(), stage
        model.train()
