"""Masks enforced in the step: frozen weights, several optimizers, weights that none holds."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import polarity as pol
from tests.attach.in_step import (
    OUTSIDE,
    all_zero,
    batches,
    both,
    in_forward,
    masks_in_forward,
    momentum,
    network,
    same,
    stored,
    train,
)
from tests.models import seeded

EVERY_FORM = pytest.mark.parametrize("product", [False, True], ids=["mask", "sign_in"])


@EVERY_FORM
def test_weights_that_are_frozen_and_thawed_every_other_step(product: bool) -> None:
    pairs = both(momentum, product)
    for model, optimizer in pairs:
        for step, (x, y) in zip(range(20), batches(), strict=False):
            model[0].requires_grad_(step % 2 == 0)
            model[2].requires_grad_(step % 2 == 1 or step % 3 == 0)
            optimizer.zero_grad()
            cross_entropy(model(x), y).backward()
            optimizer.step()
        model.requires_grad_(True)
        train(model, optimizer, 3, seed=6)
    assert same(pairs[0][0], pairs[1][0])
    assert all_zero(pairs[0][0])


@EVERY_FORM
def test_a_model_that_is_frozen_after_training_still_runs(product: bool) -> None:
    pairs = both(momentum, product)
    x, _ = next(batches())
    outputs = []
    for model, optimizer in pairs:
        train(model, optimizer, 5)
        model.requires_grad_(False)
        outputs += [model(x), model.eval()(x), model.requires_grad_(True)(x).detach()]
        with torch.inference_mode():
            outputs.append(model(x).clone())
    assert all(torch.equal(each, outputs[0]) for each in outputs)


class Game(nn.Module):
    """A generator and a discriminator."""

    def __init__(self) -> None:
        super().__init__()
        self.maker, self.judge = network(), network()
        self.maker.append(nn.Linear(4, 12))


def test_each_of_several_optimizers_puts_back_its_own_zeros_only() -> None:
    states = []
    for in_step in (True, False):
        game = pol.mask_weights(seeded(Game()))
        optimizers = [momentum(game.maker.parameters()), momentum(game.judge.parameters())]
        pol.imp_prune(game, 0.6)
        if in_step:
            pol.enforce_in_step(game, optimizers)
        for _, (x, y) in zip(range(10), batches(), strict=False):
            made = game.maker(x)
            optimizers[1].zero_grad()
            cross_entropy(game.judge(made.detach()), y).backward()
            optimizers[1].step()  # the maker's backward is still to come
            optimizers[0].zero_grad()
            (-cross_entropy(game.judge(made), y)).backward()
            optimizers[0].step()
        states.append(pol.dense_state_dict(game))
    assert all(torch.equal(states[0][name], value) for name, value in states[1].items())


def test_optimizers_that_step_during_backward() -> None:
    states = []
    for in_step in (True, False):
        model = in_forward()
        ours = {p: momentum([p]) for p in model.parameters()}
        if in_step:
            pol.enforce_in_step(model, list(ours.values()))
        for p in model.parameters():
            p.register_post_accumulate_grad_hook(lambda p, ours=ours: ours[p].step())
        for _, (x, y) in zip(range(10), batches(), strict=False):
            model.zero_grad()
            cross_entropy(model(x), y).backward()
        states.append(model)
    assert same(*states)


def test_a_weight_that_the_optimizer_does_not_hold_keeps_its_mask_in_forward() -> None:
    model = in_forward()
    last = momentum(model[2].parameters())
    pol.enforce_in_step(model, last)
    assert masks_in_forward(model)
    assert model[2].weight is model[2].parametrizations.weight.original
    with torch.no_grad():
        stored(model).fill_(1.0)
    assert not model[0].weight[OUTSIDE].any()


def test_weights_that_are_frozen_at_the_call_keep_their_mask_in_forward() -> None:
    model = in_forward()
    model[0].requires_grad_(False)
    optimizer = momentum(model.parameters())
    pol.enforce_in_step(model, optimizer)
    model[0].requires_grad_(True)
    assert masks_in_forward(model)
    twin = in_forward()
    train(model, optimizer, 10)
    train(twin, momentum(twin.parameters()), 10)
    assert same(model, twin)
