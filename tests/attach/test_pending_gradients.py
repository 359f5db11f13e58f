"""Gradients that wait for a step: zero where anything was pruned after the backward pass."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim
from torch.nn.utils import prune as torch_prune

import polarity as pol
from tests.forms import FORMS, Form, half_masked, random_masks
from tests.helpers import build, feed, leaf_and_mask, tensor_at
from tests.models import KINDS, WIDE, Kind, seeded

# Of compact weights the random machine compares pending gradients after every call.
DENSE = [form for form in FORMS if not form.compact]
EVERY_FORM = pytest.mark.parametrize("form", DENSE, ids=lambda form: form.name)
EVERY_KIND = pytest.mark.parametrize("kind", [*KINDS, WIDE], ids=lambda kind: kind.name)
SIZES = pytest.mark.parametrize("kind", [KINDS[0], WIDE], ids=lambda kind: kind.name)

OPTIMIZERS: dict[str, Callable[[Any], optim.Optimizer]] = {
    "sgd": lambda p: optim.SGD(p, lr=0.1, momentum=0.9),
    "adam": lambda p: optim.Adam(p, lr=0.1),
    "rmsprop": lambda p: optim.RMSprop(p, lr=0.1, momentum=0.5),
}


def backward(model: nn.Module, kind: Kind) -> None:
    (model(*feed(kind)).float() - 1).square().sum().backward()


def thinner(model: nn.Module) -> dict[str, Tensor]:
    """Return masks that prune a part of what survives in a model, or of all of it."""
    return random_masks(model, density=0.3, seed=9)


def by_ticket(model: nn.Module, tmp_path: Path) -> None:
    other = half_masked(seeded(nn.Linear(*shape_of(model)), 4))
    pol.imp_prune(other, density=0.2)
    pol.signed_mask(other).apply(model)


def shape_of(model: nn.Module) -> tuple[int, int]:
    return model.in_features, model.out_features


def by_loading(model: nn.Module, tmp_path: Path) -> None:
    state = model.state_dict()
    mask = thinner(model)["weight"].float()
    model.load_state_dict({k: mask if k.endswith("mask") else v.clone() for k, v in state.items()})


def by_file(model: nn.Module, tmp_path: Path) -> None:
    other = pol.load_masks(nn.Linear(*shape_of(model)), thinner(model))
    if isinstance(model.parametrizations.weight[0], pol.SignInMW):
        pol.sign_in(other)
    pol.save(other, tmp_path / "other.safetensors")
    pol.load(model, tmp_path / "other.safetensors")


WAYS: dict[str, Callable[[nn.Module, Path], object]] = {
    "imp_prune": lambda model, _: pol.imp_prune(model, density=0.2),
    "prune": lambda model, _: pol.prune(model, pol.scores.random, density=0.2),
    "load_masks": lambda model, _: pol.load_masks(model, thinner(model)),
    "mask_weights": lambda model, _: pol.mask_weights(model, masks=thinner(model)),
    "ticket": by_ticket,
    "load_state_dict": by_loading,
    "load": by_file,
}


@EVERY_FORM
@SIZES
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_a_step_after_pruning_moves_no_pruned_entry(
    make: Any, way: Callable[[nn.Module, Path], object], kind: Kind, form: Form, tmp_path: Path
) -> None:
    model = form.attach(build(kind)).train()
    optimizer = make(model.parameters())
    backward(model, kind)
    way(model, tmp_path)
    pairs = leaf_and_mask(model)
    assert any(leaf.grad is not None and leaf.grad[mask].any() for leaf, mask in pairs)
    before = [leaf.detach().clone() for leaf, _ in pairs]
    enforced = all(m.enforce for m in model.modules() if isinstance(m, pol.MaskedWeight))
    assert enforced or way is by_loading  # which leaves it to the checkpoint
    for (leaf, mask), _ in zip(pairs, before, strict=True):
        assert not enforced or not leaf.grad[~mask].any()
    optimizer.step()
    for (leaf, mask), value in zip(pairs, before, strict=True):
        assert not enforced or torch.equal(leaf[~mask], value[~mask])
        assert not enforced or not any(
            v[~mask].any() for v in optimizer.state[leaf].values() if v.shape == mask.shape
        )


@EVERY_FORM
@EVERY_KIND
@pytest.mark.parametrize("given", [False, True], ids=["without optimizer=", "with optimizer="])
def test_backward_prune_step_leaves_stored_zeros_and_momentum_asleep(
    kind: Kind, form: Form, given: bool
) -> None:
    model = form.attach(build(kind)).train()
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    backward(model, kind)
    gradients = {id(p): p.grad.clone() for p in model.parameters()}
    pol.imp_prune(model, density=0.2, optimizer=optimizer if given else None)
    optimizer.step()
    moved = 0
    for leaf, mask in leaf_and_mask(model):
        assert not leaf[~mask].any()
        assert not optimizer.state[leaf]["momentum_buffer"][~mask].any()
        assert torch.equal(leaf.grad[mask], gradients[id(leaf)][mask]), "survivors keep theirs"
        moved += int(leaf.grad[mask].count_nonzero())
    assert moved


@EVERY_FORM
@SIZES
def test_accumulation_with_pruning_in_between_sums_what_survives(kind: Kind, form: Form) -> None:
    model = form.attach(build(kind)).train()
    backward(model, kind)
    first = {id(leaf): leaf.grad.clone() for leaf, _ in leaf_and_mask(model)}
    pol.imp_prune(model, density=0.2)
    backward(model, kind)
    both = [leaf.grad.clone() for leaf, _ in leaf_and_mask(model)]
    model.zero_grad()
    backward(model, kind)
    for (leaf, mask), total in zip(leaf_and_mask(model), both, strict=True):
        assert not total[~mask].any()
        expected = first[id(leaf)] * mask + leaf.grad
        torch.testing.assert_close(total[mask], expected[mask])


@pytest.mark.parametrize("wide", [False, True])
def test_a_weight_taken_over_from_torch_loses_the_gradients_outside_its_mask(wide: bool) -> None:
    kind = WIDE if wide else KINDS[0]
    model = build(kind)
    backward(model, kind)
    torch_prune.l1_unstructured(model, "weight", amount=0.5)  # the gradient was of before
    leaf = model.weight_orig
    assert leaf.grad.all()
    pol.mask_weights(model)
    ((stored, mask),) = leaf_and_mask(model)
    assert stored is leaf
    assert not leaf.grad[~mask].any()
    assert leaf.grad[mask].all()


@EVERY_FORM
def test_a_weight_without_gradient_stays_without(form: Form) -> None:
    model = form.attach(build(WIDE))
    pol.imp_prune(model, density=0.2)
    assert all(p.grad is None for p in model.parameters())


def test_a_nan_that_waits_outside_the_mask_is_cleared_too() -> None:
    model = build(KINDS[0])
    backward(model, KINDS[0])
    model.weight.grad.fill_(torch.nan)
    pol.imp_prune(model, density=0.4)
    mask = pol.masks(model)["weight"]
    gradient = model.parametrizations.weight.original.grad
    assert not gradient[~mask].any()
    assert gradient[mask].isnan().all()


@pytest.mark.parametrize("coalesced", [False, True])
@pytest.mark.parametrize("rows", [7, 300])
def test_a_sparse_gradient_is_cleared_where_it_has_entries(rows: int, coalesced: bool) -> None:
    model = seeded(nn.Embedding(rows, 40, sparse=True))
    (model(torch.tensor([1, 3, 3, 6])) ** 2).sum().backward()
    if coalesced:
        model.weight.grad = model.weight.grad.coalesce()
    dense = model.weight.grad.to_dense()
    masks = random_masks_of(model)
    pol.load_masks(model, masks)
    gradient = model.parametrizations.weight.original.grad
    assert gradient.is_sparse
    assert torch.equal(gradient.to_dense(), dense * masks["weight"])


def random_masks_of(model: nn.Module) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(1)
    return {n: torch.rand(p.shape, generator=draw) < 0.5 for n, p in model.named_parameters()}


@EVERY_FORM
def test_a_gradient_of_a_remembered_mask_is_left_to_it(form: Form) -> None:
    model = form.attach(build(KINDS[0])).train()
    backward(model, KINDS[0])
    before = [p.grad.clone() for p in model.parameters()]
    model.load_state_dict(model.state_dict())
    after = [p.grad for p in model.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert tensor_at(model, "weight").shape == (5, 6)


# Sparse gradients in training


@pytest.mark.parametrize("rows", [7, 300])
@pytest.mark.parametrize("form", FORMS[:2], ids=lambda form: form.name)
def test_an_embedding_with_sparse_gradients_trains_as_under_an_explicit_mask(
    rows: int, form: Form
) -> None:
    model = seeded(nn.Embedding(rows, 40, sparse=True))
    masks, tokens = random_masks_of(model), torch.tensor([1, 3, 3, 6])
    weight = nn.Parameter(model.weight.detach() * masks["weight"])
    pol.mask_weights(model, masks=masks)
    optimizers = [optim.SGD(p, lr=0.1) for p in ([weight], model.parameters())]
    if form.name == "in_step":
        pol.enforce_in_step(model, optimizers[1])
    for _ in range(3):
        for optimizer in optimizers:
            optimizer.zero_grad()
        explicit = nn.functional.embedding(tokens, weight * masks["weight"], sparse=True)
        (explicit**2).sum().backward()
        (model(tokens) ** 2).sum().backward()
        gradient = model.parametrizations.weight.original.grad
        assert torch.equal(gradient.to_dense(), weight.grad.to_dense())
        for optimizer in optimizers:
            optimizer.step()
        assert torch.equal(model.weight, weight)
    assert not model.weight[~masks["weight"]].any()


def test_a_gradient_made_by_expand_is_cleared_and_its_memory_left_alone() -> None:
    model = seeded(nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 4)))
    pol.mask_weights(model)
    one = torch.ones(())
    leaves = [layer.parametrizations.weight.original for layer in model]
    for leaf in leaves:
        leaf.grad = one.expand(leaf.shape)
    pol.imp_prune(model, 0.5)
    for leaf, mask in zip(leaves, pol.masks(model).values(), strict=True):
        assert torch.equal(leaf.grad, mask.to(leaf.dtype))
    assert one == 1
