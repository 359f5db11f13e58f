"""Pruned entries stay exactly zero, and survivors train as if nothing but a mask were there."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

import polarity as pol
from polarity.optimizers.pruned_state import zero_pruned_state
from tests.forms import half_masked
from tests.helpers import leaf_and_mask, plain_state, same_state, train_step
from tests.models import noise
from tests.models import small_conv as small

OPTIMIZERS: dict[str, Any] = {
    "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.1),
    "nesterov": lambda p: torch.optim.SGD(
        p, lr=0.05, momentum=0.9, weight_decay=0.1, nesterov=True
    ),
    "adam": lambda p: torch.optim.Adam(p, lr=0.02, weight_decay=0.1, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.02, weight_decay=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(
        p, lr=0.01, weight_decay=0.1, momentum=0.9, centered=True
    ),
}
MOMENTS = {
    "momentum": {"momentum_buffer"},
    "nesterov": {"momentum_buffer"},
    "adam": {"exp_avg", "exp_avg_sq", "max_exp_avg_sq"},
    "adamw": {"exp_avg", "exp_avg_sq"},
    "rmsprop": {"square_avg", "momentum_buffer", "grad_avg"},
}
every_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS)


INPUTS = noise(6, 2, 4, 4)(torch.Generator().manual_seed(2))


def reference_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, masks: dict[str, Tensor]
) -> None:
    """Take the step of ``train_step``, with the weights multiplied by masks in the forward pass."""
    optimizer.zero_grad()
    seen = {name: p * masks[name] if name in masks else p for name, p in model.named_parameters()}
    (functional_call(model, seen, INPUTS) - 1).square().mean().backward()
    optimizer.step()


@every_optimizer
def test_pruned_entries_are_zero_in_weight_store_and_state_after_many_steps(optimizer: str) -> None:
    model = pol.mask_weights(small())
    opt = OPTIMIZERS[optimizer](model.parameters())
    for density in (0.6, 0.3):
        for _ in range(5):
            train_step(model, opt, INPUTS)
        pol.imp_prune(model, density=density, optimizer=opt)
        for _ in range(20):
            train_step(model, opt, INPUTS)
            for leaf, mask in leaf_and_mask(model):
                assert not leaf[~mask].any()
        for leaf, mask in leaf_and_mask(model):
            assert opt.state[leaf].keys() >= MOMENTS[optimizer]
            for name in MOMENTS[optimizer]:
                assert not opt.state[leaf][name][~mask].any(), name
        weight = model[0].weight.detach()
        assert torch.equal(weight != 0, pol.masks(model)["0.weight"])


@every_optimizer
@pytest.mark.parametrize("told", [True, False], ids=["optimizer_given", "optimizer_not_given"])
def test_survivors_train_bit_for_bit_as_under_a_mask_in_the_forward_pass(
    optimizer: str, told: bool
) -> None:
    model, plain = pol.mask_weights(small()), small()
    opt = OPTIMIZERS[optimizer](model.parameters())
    plain_opt = OPTIMIZERS[optimizer](plain.parameters())
    ones = {name: torch.ones_like(mask) for name, mask in pol.masks(model).items()}
    for _ in range(4):
        train_step(model, opt, INPUTS)
        reference_step(plain, plain_opt, ones)
    pol.imp_prune(model, density=0.4, optimizer=opt if told else None)
    masks = pol.masks(model)
    for _ in range(12):
        train_step(model, opt, INPUTS)
        reference_step(plain, plain_opt, masks)
    trained = pol.dense_state_dict(model)
    for name, value in plain.state_dict().items():
        expected = value.masked_fill(~masks[name], 0.0) if name in masks else value
        assert torch.equal(trained[name], expected), name


@every_optimizer
def test_an_optimizer_that_was_not_told_cannot_wake_what_the_model_computes_with(
    optimizer: str,
) -> None:
    model = pol.mask_weights(small())
    opt = OPTIMIZERS[optimizer](model.parameters())
    train_step(model, opt, INPUTS)
    pol.imp_prune(model, density=0.4)
    for _ in range(10):
        train_step(model, opt, INPUTS)
    for name, mask in pol.masks(model).items():
        weight = model.get_submodule(name.removesuffix(".weight")).weight
        assert torch.equal(weight != 0, mask)


@every_optimizer
def test_survivors_and_other_parameters_keep_their_state(optimizer: str) -> None:
    model = pol.mask_weights(small())
    opt = OPTIMIZERS[optimizer](model.parameters())
    for _ in range(3):
        train_step(model, opt, INPUTS)
    before = copy.deepcopy(opt.state_dict()["state"])
    pol.imp_prune(model, density=0.4, optimizer=opt)
    masks = {id(leaf): mask for leaf, mask in leaf_and_mask(model)}
    for index, parameter in enumerate(opt.param_groups[0]["params"]):
        mask = masks.get(id(parameter))
        for name, value in opt.state[parameter].items():
            old = before[index][name]
            if mask is None or name not in MOMENTS[optimizer]:
                assert torch.equal(torch.as_tensor(value), torch.as_tensor(old))
            else:
                assert torch.equal(value[mask], old[mask])
                assert not value[~mask].any()


@pytest.mark.parametrize(
    "build",
    [
        lambda p: torch.optim.ASGD(p, lr=0.1),
        lambda p: torch.optim.Adagrad(p, lr=0.1),
        lambda p: torch.optim.Rprop(p, lr=0.1),
        lambda p: torch.optim.Adafactor(p, lr=0.1),
        lambda p: torch.optim.Adam(p, lr=0.1, foreach=False),
        lambda p: torch.optim.SGD(p, lr=0.1),
    ],
    ids=["asgd", "adagrad", "rprop", "adafactor", "adam_loop", "stateless"],
)
def test_step_counts_and_factored_moments_are_left_alone(build: Any) -> None:
    weight = nn.Parameter(torch.ones(4, 3))
    single = nn.Parameter(torch.ones(1, 1))
    opt = build([weight, single])
    (weight.square().sum() + single.square().sum()).backward()
    opt.step()
    before = {id(p): copy.deepcopy(opt.state.get(p, {})) for p in (weight, single)}
    mask = torch.eye(4, 3).bool()
    zero_pruned_state([opt], [(weight, mask), (single, torch.tensor([[False]]))])
    for parameter, alive in ((weight, mask), (single, torch.tensor([[False]]))):
        for name, value in opt.state.get(parameter, {}).items():
            old = before[id(parameter)][name]
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                assert torch.equal(value, old * alive), name
            else:
                assert torch.equal(torch.as_tensor(value), torch.as_tensor(old)), name
    (weight.square().sum() + single.square().sum()).backward()
    opt.step()


def test_a_parameter_that_the_optimizer_never_stepped_is_passed_over() -> None:
    weight = nn.Parameter(torch.ones(2))
    adam = torch.optim.Adam([weight])
    zero_pruned_state([adam], [(weight, torch.tensor([True, False]))])
    zero_pruned_state([adam], [(nn.Parameter(torch.ones(2)), torch.tensor([True, False]))])
    assert not adam.state


PRUNING = {
    "imp_prune": lambda model, opt, start: pol.imp_prune(model, 0.5, optimizer=opt),
    "rewinding": lambda model, opt, start: pol.imp_prune(model, 0.5, rewind=start, optimizer=opt),
    "lrr_step": lambda model, opt, start: pol.lrr_step(model, 0.5, rewind=start, optimizer=opt),
    "prune": lambda model, opt, start: pol.prune(
        model,
        {n: torch.rand(m.shape) for n, m in pol.masks(model).items()},
        amount=0.5,
        optimizer=opt,
    ),
}


@pytest.mark.parametrize("how", PRUNING)
def test_the_optimizer_of_another_model_is_refused_and_nothing_changes(how: str) -> None:
    model, other = half_masked(small()), small()
    stranger = torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9)
    start = pol.RewindPoint.capture(model, stranger)
    train_step(other, stranger, INPUTS)
    train_step(model, torch.optim.SGD(model.parameters(), lr=0.1), INPUTS)
    before, state = plain_state(model), copy.deepcopy(stranger.state_dict())
    with pytest.raises(ValueError, match=r"SGD holds none of the 2 .*0\.weight"):
        PRUNING[how](model, stranger, start)
    assert same_state(plain_state(model), before)
    momenta = [each["momentum_buffer"] for each in stranger.state_dict()["state"].values()]
    kept = [each["momentum_buffer"] for each in state["state"].values()]
    assert all(torch.equal(a, b) for a, b in zip(momenta, kept, strict=True))
    assert stranger.state_dict()["param_groups"] == state["param_groups"]


def test_merging_with_the_optimizer_keeps_pruned_entries_asleep_without_a_mask() -> None:
    model = pol.mask_weights(small())
    opt = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    train_step(model, opt, INPUTS)
    pol.imp_prune(model, density=0.4)
    masks = pol.masks(model)
    pol.merge(model, optimizer=opt)
    opt.zero_grad()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    opt.step()
    for name, mask in masks.items():
        assert torch.equal(model.get_parameter(name) != 0, mask)
