"""Masks enforced in the step: the training of masks in forward, bit for bit."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

import polarity as pol
from tests.attach.in_step import (
    OUTSIDE,
    STEPS,
    BuildOptimizer,
    ByHand,
    Treatment,
    all_zero,
    batches,
    both,
    drawn_masks,
    enforced,
    in_forward,
    leaves,
    masks_in_forward,
    momentum,
    network,
    same,
    stored,
    train,
)

EVERY_FORM = pytest.mark.parametrize("product", [False, True], ids=["mask", "sign_in"])

OPTIMIZERS: dict[str, BuildOptimizer] = {
    "SGD": lambda p: optim.SGD(p),
    "SGD momentum decay": lambda p: optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.1),
    "SGD nesterov": lambda p: optim.SGD(p, 0.1, momentum=0.9, nesterov=True, foreach=True),
    "SGD dampening": lambda p: optim.SGD(p, 0.1, momentum=0.9, dampening=0.3),
    "SGD maximize": lambda p: optim.SGD(p, 0.01, momentum=0.5, maximize=True),
    "SGD fused": lambda p: optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.1, fused=True),
    "Adam": lambda p: optim.Adam(p),
    "Adam amsgrad decay": lambda p: optim.Adam(p, 0.05, amsgrad=True, weight_decay=0.1),
    "Adam foreach": lambda p: optim.Adam(p, 0.05, foreach=True),
    "Adam fused": lambda p: optim.Adam(p, 0.05, fused=True, weight_decay=0.1),
    "AdamW": lambda p: optim.AdamW(p, 0.05),
    "AdamW fused amsgrad": lambda p: optim.AdamW(p, 0.05, fused=True, amsgrad=True),
    "NAdam": lambda p: optim.NAdam(p, 0.05, weight_decay=0.1),
    "NAdam decoupled": lambda p: optim.NAdam(
        p, 0.05, weight_decay=0.1, decoupled_weight_decay=True
    ),
    "RAdam": lambda p: optim.RAdam(p, 0.05, weight_decay=0.1),
    "Adamax": lambda p: optim.Adamax(p, 0.05, weight_decay=0.1),
    "Adamax foreach": lambda p: optim.Adamax(p, 0.05, foreach=True),
    "RMSprop": lambda p: optim.RMSprop(p),
    "RMSprop momentum": lambda p: optim.RMSprop(p, 0.01, momentum=0.9),
    "RMSprop centered momentum": lambda p: optim.RMSprop(
        p, 0.01, momentum=0.9, centered=True, weight_decay=0.1
    ),
    "Adagrad": lambda p: optim.Adagrad(p, 0.1, weight_decay=0.1, initial_accumulator_value=0.1),
    "Adadelta": lambda p: optim.Adadelta(p, weight_decay=0.1),
    "ASGD": lambda p: optim.ASGD(p, 0.1, weight_decay=0.1),
    "Rprop": lambda p: optim.Rprop(p),
}


@EVERY_FORM
@pytest.mark.parametrize("build", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_forty_steps_are_those_of_a_mask_in_forward_bit_for_bit(build: Any, product: bool) -> None:
    (model, ours), (exact, theirs) = both(build, product)
    reference = ByHand(drawn_masks(), product)
    train(model, ours)
    train(exact, theirs)
    train(reference, build(reference.parameters()))
    assert same(model, exact)
    assert same(model, reference)
    assert not masks_in_forward(model)
    assert masks_in_forward(exact)
    assert all_zero(model)


class Orthogonal(optim.Optimizer):
    """A step that mixes the entries of a matrix, as Muon and Shampoo do."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 0.05})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for p in self.param_groups[0]["params"]:
            direction = p.grad
            if p.dim() == 2:
                u, _, v = torch.linalg.svd(p.grad, full_matrices=False)
                direction = u @ v
            p.data.add_(direction, alpha=-0.05)  # behind autograd's back, as old code does


class Muon(optim.Optimizer):
    """``torch.optim.Muon``, which takes matrices only, where this PyTorch has it."""

    def __new__(cls, params: Any) -> Any:
        if not hasattr(optim, "Muon"):
            pytest.skip("this PyTorch has no Muon")
        return optim.Muon([p for p in params if p.dim() == 2], lr=0.05)


@EVERY_FORM
@pytest.mark.parametrize(
    "build",
    [lambda p: optim.Adafactor(p, 0.05), Orthogonal, Muon],
    ids=["Adafactor", "svd", "Muon"],
)
def test_an_optimizer_that_mixes_entries_is_masked_exactly(build: Any, product: bool) -> None:
    # Its step depends on all of a tensor at once, so that the storage must be laid out alike.
    (model, ours), (exact, theirs) = both(build, product)
    train(model, ours)
    train(exact, theirs)
    assert same(model, exact)
    assert all_zero(model)


def test_the_optimizers_that_mix_entries_do_write_to_pruned_ones() -> None:
    for build in (Orthogonal, Muon):
        model = in_forward()
        train(model, build(model.parameters()), 1)
        assert not all_zero(model)


@EVERY_FORM
def test_closures_are_evaluated_with_the_same_weights(product: bool) -> None:
    pairs = both(lambda p: optim.LBFGS(p, 0.3, max_iter=4, history_size=3), product)
    for model, optimizer in pairs:
        for _, (x, y) in zip(range(8), batches(), strict=False):

            def loss(model: nn.Module = model, x: Tensor = x, y: Tensor = y, o: Any = optimizer):
                o.zero_grad()
                value = cross_entropy(model(x), y)
                value.backward()
                return value

            optimizer.step(loss)
    assert same(pairs[0][0], pairs[1][0])


def clip_value(model: nn.Module) -> None:
    nn.utils.clip_grad_value_(model.parameters(), 0.01)


def clip_norm(model: nn.Module) -> None:
    nn.utils.clip_grad_norm_(list(model.parameters()), 0.05)


@EVERY_FORM
@pytest.mark.parametrize("clip", [clip_value, clip_norm])
def test_clipping_sees_masked_gradients(clip: Treatment, product: bool) -> None:
    (model, ours), (exact, theirs) = both(momentum, product)
    reference = ByHand(drawn_masks(), product)
    train(model, ours, before_step=clip)
    train(exact, theirs, before_step=clip)
    train(reference, momentum(reference.parameters()), before_step=clip)
    assert same(model, exact)
    assert same(model, reference)


@EVERY_FORM
def test_mixed_precision_with_a_gradient_scaler(product: bool) -> None:
    pairs = both(momentum, product)
    for model, optimizer in pairs:
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
        for _, (x, y) in zip(range(STEPS), batches(), strict=False):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = cross_entropy(model(x), y)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            clip_norm(model)
            scaler.step(optimizer)
            scaler.update()
    assert same(pairs[0][0], pairs[1][0])


@EVERY_FORM
def test_gradients_accumulate_over_several_batches(product: bool) -> None:
    pairs = both(lambda p: optim.Adam(p, 0.05), product)
    reference = ByHand(drawn_masks(), product)
    pairs.append((reference, optim.Adam(reference.parameters(), 0.05)))
    for model, optimizer in pairs:
        for i, (x, y) in zip(range(STEPS), batches(), strict=False):
            cross_entropy(model(x), y).backward()
            if i % 4 == 3:
                optimizer.step()
                optimizer.zero_grad(set_to_none=i % 8 == 3)
    assert same(pairs[0][0], pairs[1][0])
    assert same(pairs[0][0], reference)


@EVERY_FORM
@pytest.mark.parametrize("told", [True, False], ids=["optimizer told", "not told"])
def test_a_mask_installed_during_training(told: bool, product: bool) -> None:
    # Where the optimizer is not told, its old momentum moves what is stored at every step.
    trained = []
    for in_step in (True, False):
        model = pol.mask_weights(network())
        if product:
            pol.sign_in(model)
        optimizer = momentum(model.parameters())
        if in_step:
            pol.enforce_in_step(model, optimizer)
        train(model, optimizer, 5)
        pol.imp_prune(model, 0.6, optimizer=optimizer if told else None)
        train(model, optimizer, 20, seed=6)
        assert masks_in_forward(model) != in_step
        trained.append(model)
    assert same(*trained)
    assert all_zero(trained[0])
    if not product and not told:
        assert not all_zero(trained[1]), "the momentum was to move what is stored"


@EVERY_FORM
def test_old_momentum_that_a_rate_of_zero_holds_back_never_comes_through(product: bool) -> None:
    pairs = both(momentum, product)
    for model, optimizer in pairs:
        train(model, optimizer, 5)
        pol.imp_prune(model, 0.6)
        optimizer.param_groups[0]["lr"] = 0.0
        train(model, optimizer, 3)
        optimizer.param_groups[0]["lr"] = 0.1
        train(model, optimizer, 10)
    assert same(pairs[0][0], pairs[1][0])
    assert all_zero(pairs[0][0])


@EVERY_FORM
def test_state_that_is_loaded_with_something_in_pruned_entries_never_comes_through(
    product: bool,
) -> None:
    pairs = both(lambda p: optim.Adam(p, 0.05), product)
    for model, optimizer in pairs:
        train(model, optimizer, 5)
        state = copy.deepcopy(optimizer.state_dict())
        for each in state["state"].values():
            each["exp_avg"].add_(0.1)
        optimizer.load_state_dict(state)
        train(model, optimizer, 10)
    assert same(pairs[0][0], pairs[1][0])
    assert all_zero(pairs[0][0])


@EVERY_FORM
@pytest.mark.parametrize("rate", [0.1, 0.0])
@pytest.mark.parametrize("in_place", [True, False], ids=["written to", "replaced"])
def test_noise_on_gradients_never_comes_through(in_place: bool, rate: float, product: bool) -> None:
    pairs = both(momentum, product)
    for model, optimizer in pairs:
        draw = torch.Generator().manual_seed(8)

        def add_noise(model: nn.Module, draw: Any = draw) -> None:
            for p in model.parameters():
                noise = 0.01 * torch.randn(p.shape, generator=draw)
                p.grad = p.grad.add_(noise) if in_place else p.grad + noise

        train(model, optimizer, 5)
        optimizer.param_groups[0]["lr"] = rate
        train(model, optimizer, 5, before_step=add_noise)
        optimizer.param_groups[0]["lr"] = 0.1
        train(model, optimizer, 10, before_step=add_noise)
    assert same(pairs[0][0], pairs[1][0])
    assert all_zero(pairs[0][0])
    assert not all_zero(pairs[1][0])


def test_a_step_by_hand_keeps_every_number() -> None:
    pairs = both(momentum)
    for model, _ in pairs:
        for _, (x, y) in zip(range(STEPS), batches(), strict=False):
            model.zero_grad()
            cross_entropy(model(x), y).backward()
            with torch.no_grad():
                for p in model.parameters():
                    p.sub_(p.grad, alpha=0.1)
    assert same(pairs[0][0], pairs[1][0])
    assert all_zero(pairs[0][0]), "gradients are masked, so that no step moves a zero"


@EVERY_FORM
@pytest.mark.parametrize("way", ["penalty", "hook"])
def test_dense_gradients_that_join_in_mid_training_never_come_through(
    way: str, product: bool
) -> None:
    pairs = both(momentum, product)
    for model, optimizer in pairs:
        train(model, optimizer, 20)
        if way == "hook":
            for leaf in (*leaves(model, 0), *leaves(model, 2)):
                leaf.register_hook(lambda g: g + 0.01)
        for _, (x, y) in zip(range(10), batches(6), strict=False):
            optimizer.zero_grad()
            loss = cross_entropy(model(x), y)
            if way == "penalty":
                added = [(p - 0.3).square().sum() for i in (0, 2) for p in leaves(model, i)]
                loss = loss + sum(added)
            loss.backward()
            optimizer.step()
    assert same(pairs[0][0], pairs[1][0])
    assert all_zero(pairs[0][0])
    assert not all_zero(pairs[1][0])


@EVERY_FORM
def test_recomputed_activations_take_the_same_way_as_the_first_time(product: bool) -> None:
    pairs = both(momentum, product)
    for model, optimizer in pairs:
        for _, (x, y) in zip(range(9), batches(), strict=False):
            optimizer.zero_grad()
            cross_entropy(checkpoint(model, x, use_reentrant=False), y).backward()
            optimizer.step()
    assert same(pairs[0][0], pairs[1][0])


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf, 7.0])
@EVERY_FORM
def test_what_is_written_into_pruned_entries_is_zero_after_the_next_step(
    bad: float, product: bool
) -> None:
    model, optimizer, _ = enforced(product)
    train(model, optimizer, 3)
    with torch.no_grad():
        for leaf in leaves(model):
            leaf[OUTSIDE] = bad
    optimizer.step()
    assert all_zero(model)
    assert all(torch.isfinite(weight).all() for weight in model.parameters())


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_gradients_that_are_no_numbers_reach_survivors_only(bad: float) -> None:
    model, optimizer, _ = enforced()
    gradient = torch.ones(10, 12).masked_fill(OUTSIDE, bad)
    model[0].weight.backward(gradient)
    optimizer.step()
    assert all_zero(model)
    assert torch.isfinite(stored(model)).all()
    optimizer.zero_grad()
    model[0].weight.backward(torch.full((10, 12), bad))
    optimizer.step()
    assert all_zero(model)
    assert not torch.isfinite(stored(model)[~OUTSIDE]).any()
