"""A moment of training, captured and returned to."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import polarity as pol
from tests.forms import half_masked, half_remembered
from tests.helpers import (
    leaf_and_mask,
    outputs,
    plain_state,
    same_state,
    tensor_at,
    train,
    train_step,
)
from tests.models import Tied, noise, seeded

INPUTS = noise(6, 2, 4, 4)(torch.Generator().manual_seed(2))


def small(seed: int = 0) -> nn.Sequential:
    return seeded(
        nn.Sequential(
            nn.Conv2d(2, 4, 3, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(16, 3),
        ),
        seed,
    ).train()


def momentum_sgd(model: nn.Module, lr: float = 0.1) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=0.01)


def assert_rewound(model: nn.Module, initial: dict[str, Tensor]) -> None:
    """Survivors, other parameters and buffers are ``initial``'s, exactly; pruned entries are 0."""
    masks = pol.masks(model)
    now = pol.dense_state_dict(model)
    assert now.keys() == initial.keys()
    for name, value in initial.items():
        expected = value.masked_fill(~masks[name], 0.0) if name in masks else value
        assert torch.equal(now[name], expected), name


@pytest.mark.parametrize("captured", ["before_masking", "after_masking"])
def test_every_round_gives_survivors_and_everything_else_their_initial_values(
    captured: str,
) -> None:
    model = small()
    initial = plain_state(model)
    if captured == "before_masking":
        start = pol.RewindPoint.capture(model)
        pol.mask_weights(model)
    else:
        start = pol.RewindPoint.capture(pol.mask_weights(model))
    alive = 72 + 48
    for _ in range(3):
        train(model, INPUTS)
        assert int(model[1].num_batches_tracked) > 0
        assert not torch.equal(model[1].running_mean, initial["1.running_mean"])
        assert not torch.equal(model[4].bias, initial["4.bias"])
        report = pol.imp_prune(model, 0.2, rewind=start)
        alive -= round(0.2 * alive)
        assert report.survivors == alive
        assert_rewound(model, initial)


def test_weight_rewinding_returns_to_a_later_point_with_its_momentum() -> None:
    model = pol.mask_weights(small())
    sgd = momentum_sgd(model)
    for _ in range(3):
        train_step(model, sgd, INPUTS)
    later = pol.RewindPoint.capture(model, sgd)
    values = plain_state(pol.merge(copy.deepcopy(model)))
    momentum = {id(p): sgd.state[p]["momentum_buffer"].clone() for p in model.parameters()}
    for _ in range(2):
        for _ in range(3):
            train_step(model, sgd, INPUTS)
        pol.imp_prune(model, 0.3, rewind=later, optimizer=sgd)
        assert_rewound(model, values)
        masks = {id(leaf): mask for leaf, mask in leaf_and_mask(model)}
        for parameter in model.parameters():
            old = momentum[id(parameter)]
            expected = old * masks[id(parameter)] if id(parameter) in masks else old
            assert torch.equal(sgd.state[parameter]["momentum_buffer"], expected)


def test_rewinding_to_the_start_makes_the_next_round_a_repetition_of_the_first() -> None:
    model = pol.load_masks(small(), {"0.weight": torch.arange(72).view(4, 2, 3, 3) % 2})
    sgd = momentum_sgd(model)
    steps = torch.optim.lr_scheduler.StepLR(sgd, 2, 0.1)
    start = pol.RewindPoint.capture(model, sgd, steps)
    histories = []
    for _ in range(2):
        histories.append([])
        for _ in range(5):
            histories[-1].append((train_step(model, sgd, INPUTS), steps.get_last_lr()))
            steps.step()
        start.restore_weights(model)
        start.restore_schedule(sgd, steps)
    assert histories[0] == histories[1]
    assert histories[0][0][1] != histories[0][4][1]


def test_learning_rate_rewinding_keeps_the_weights_and_restores_the_schedule() -> None:
    model = pol.mask_weights(small())
    sgd = momentum_sgd(model)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, 10)
    train_step(model, sgd, INPUTS)
    start = pol.RewindPoint.capture(model, sgd, cosine)
    momentum = sgd.state[model[4].bias]["momentum_buffer"].clone()
    for _ in range(5):
        train_step(model, sgd, INPUTS)
        cosine.step()
    trained = plain_state(pol.merge(copy.deepcopy(model)))
    assert sgd.param_groups[0]["lr"] < 0.1
    report = pol.lrr_step(model, 0.5, rewind=start, optimizer=sgd, scheduler=cosine)
    assert_rewound(model, trained)
    assert report.survivors == 60
    assert sgd.param_groups[0]["lr"] == 0.1
    assert cosine.last_epoch == 0
    assert cosine.get_last_lr() == [0.1]
    assert torch.equal(sgd.state[model[4].bias]["momentum_buffer"], momentum)
    for leaf, mask in leaf_and_mask(model):
        assert not sgd.state[leaf]["momentum_buffer"][~mask].any()
        assert bool(sgd.state[leaf]["momentum_buffer"][mask].any())
    cosine.step()
    assert cosine.last_epoch == 1


@pytest.mark.parametrize("only", ["masked", "unmasked"])
def test_half_of_the_model_can_be_rewound_alone(only: Any) -> None:
    model = pol.mask_weights(small(), targets="0.weight")
    start = pol.RewindPoint.capture(model)
    trained = plain_state(pol.merge(copy.deepcopy(train(model, INPUTS))))
    assert start.restore_weights(model, only=only) is model
    for name, value in pol.dense_state_dict(model).items():
        restored = (name == "0.weight") == (only == "masked")
        assert torch.equal(value, start.weights[name] if restored else trained[name]), name
        assert not torch.equal(start.weights[name], trained[name])


def test_a_point_is_a_copy_that_no_training_reaches() -> None:
    model = half_masked(small())
    sgd = momentum_sgd(model)
    steps = torch.optim.lr_scheduler.StepLR(sgd, 1)
    train_step(model, sgd, INPUTS)
    point = pol.RewindPoint.capture(model, sgd, steps)
    held = copy.deepcopy((point.weights, point.optimizer, point.scheduler))
    for _ in range(2):
        train_step(model, sgd, INPUTS)
        steps.step()
        point.restore_weights(model)
        point.restore_schedule(sgd, steps)
        train_step(model, sgd, INPUTS)
    assert same_state(point.weights, held[0])
    assert repr(point.optimizer) == repr(held[1])
    assert point.scheduler == held[2]
    assert not any(value.requires_grad for value in point.weights.values())


def test_a_point_sees_through_the_mask_under_plain_names() -> None:
    model, plain = half_masked(small()), small()
    with torch.no_grad():
        model[0].parametrizations.weight.original.add_(1)
    point = pol.RewindPoint.capture(model)
    assert point.weights.keys() == plain.state_dict().keys()
    mask = pol.masks(model)["0.weight"]
    expected = (plain[0].weight + 1).masked_fill(~mask, 0.0)
    assert torch.equal(point.weights["0.weight"], expected)


def test_a_point_of_a_masked_model_restores_a_merged_one_and_the_reverse() -> None:
    model = half_masked(small())
    point = pol.RewindPoint.capture(model)
    output = outputs(model, INPUTS)
    merged = pol.merge(train(copy.deepcopy(model), INPUTS))
    pol.RewindPoint.capture(merged).restore_weights(model)
    assert torch.equal(model[0].weight, merged[0].weight)
    point.restore_weights(merged)
    point.restore_weights(model)
    point.restore_weights(merged)
    assert torch.equal(outputs(merged, INPUTS), output)


def test_a_remembered_mask_takes_nothing_from_what_is_captured_or_restored() -> None:
    model = half_remembered(small())
    point = pol.RewindPoint.capture(model)
    assert torch.equal(point.weights["0.weight"], small()[0].weight)
    point.restore_weights(train(model, INPUTS))
    assert torch.equal(model[0].weight, small()[0].weight)


def test_a_tied_weight_is_captured_under_both_names_and_restored_once() -> None:
    model = half_masked(seeded(Tied()))
    point = pol.RewindPoint.capture(model)
    assert torch.equal(point.weights["encoder.weight"], point.weights["decoder.weight"])
    tokens = (torch.arange(7),)
    for _ in range(3):
        pol.imp_prune(train(model, tokens), 0.2, rewind=point)
        mask = pol.masks(model)["encoder.weight"]
        expected = point.weights["decoder.weight"].masked_fill(~mask, 0.0)
        assert torch.equal(model.encoder.weight, expected)
        assert torch.equal(model.decoder.weight, expected)


def test_frozen_parameters_and_unsaved_buffers_are_rewound_too() -> None:
    model = small()
    model[4].bias.requires_grad_(False)
    model[1].register_buffer("seen", torch.ones(3), persistent=False)
    point = pol.RewindPoint.capture(model)
    with torch.no_grad():
        model[4].bias.add_(1)
        model[1].seen.add_(1)
    point.restore_weights(model)
    assert torch.equal(model[4].bias, point.weights["4.bias"])
    assert torch.equal(model[1].seen, torch.ones(3))


def test_restoring_keeps_parameter_objects_for_their_optimizer() -> None:
    model = half_masked(small())
    parameters = {id(p) for p in model.parameters()}
    pol.RewindPoint.capture(model).restore_weights(model)
    assert {id(p) for p in model.parameters()} == parameters


def test_a_layer_with_a_parametrization_of_its_own_is_rewound_beside_masked_ones() -> None:
    model = small()
    nn.utils.parametrizations.weight_norm(model[0])
    pol.mask_weights(model, exclude="0")
    start = pol.RewindPoint.capture(model)
    before = model[0].weight.detach().clone()
    train(model, INPUTS)
    assert not torch.equal(model[0].weight, before)
    pol.imp_prune(model, 0.5, rewind=start)
    torch.testing.assert_close(model[0].weight, before)
    mask = pol.masks(model)["4.weight"]
    assert torch.equal(model[4].weight, start.weights["4.weight"].masked_fill(~mask, 0.0))


SPOILS: dict[str, Any] = {
    "missing": (lambda w: w.pop("4.bias"), r"is missing '4\.bias', which is in the model"),
    "more": (
        lambda w: w.update({"9.weight": torch.ones(1)}),
        r"holds '9\.weight', which is not in the model",
    ),
    "shape": (lambda w: w.update({"4.weight": torch.ones(16, 3)}), r"\(16, 3\).*\(3, 16\)"),
    "buffer": (lambda w: w.update({"1.running_var": torch.ones(5)}), r"'1\.running_var'.*\(5,\)"),
}


@pytest.mark.parametrize("spoil", SPOILS)
@pytest.mark.parametrize("call", ["restore_weights", "imp_prune"])
def test_a_point_of_another_model_is_refused_by_name_and_nothing_changes(
    spoil: str, call: str
) -> None:
    model = half_masked(small())
    weights = {name: value + 1 for name, value in pol.RewindPoint.capture(model).weights.items()}
    SPOILS[spoil][0](weights)
    point = pol.RewindPoint(weights=weights)
    before = plain_state(model)
    calls = {
        "restore_weights": point.restore_weights,
        "imp_prune": lambda model: pol.imp_prune(model, 0.2, rewind=point),
    }
    with pytest.raises(ValueError, match=SPOILS[spoil][1]):
        calls[call](model)
    assert same_state(plain_state(model), before)


def test_a_schedule_that_was_not_captured_cannot_be_restored() -> None:
    model = half_masked(small())
    sgd = momentum_sgd(model)
    steps = torch.optim.lr_scheduler.StepLR(sgd, 1)
    weights_only = pol.RewindPoint.capture(model)
    with pytest.raises(ValueError, match="optimizer=SGD"):
        weights_only.restore_schedule(sgd)
    with pytest.raises(ValueError, match="scheduler=StepLR"):
        pol.RewindPoint.capture(model, sgd).restore_schedule(sgd, steps)
    before, state = plain_state(model), copy.deepcopy(sgd.state_dict())
    with pytest.raises(ValueError, match="optimizer=SGD"):
        pol.lrr_step(model, 0.2, rewind=weights_only, optimizer=sgd)
    assert same_state(plain_state(model), before)
    assert sgd.state_dict() == state


def test_an_optimizer_with_other_groups_is_refused_before_anything_changes() -> None:
    model = half_masked(small())
    point = pol.RewindPoint.capture(model, momentum_sgd(model))
    other = torch.optim.SGD([p for p in model.parameters() if p.dim() > 1], lr=0.5)
    before = plain_state(model)
    with pytest.raises(ValueError, match=r"\[2\].*\[5\]"):
        pol.imp_prune(model, 0.2, rewind=point, optimizer=other)
    assert same_state(plain_state(model), before)
    assert other.param_groups[0]["lr"] == 0.5


def test_only_takes_one_of_three_words() -> None:
    model = half_masked(small())
    with pytest.raises(ValueError, match="only='weights'"):
        pol.RewindPoint.capture(model).restore_weights(model, only="weights")  # type: ignore[arg-type]


def test_a_lazy_parameter_has_nothing_to_capture() -> None:
    with pytest.raises(ValueError, match=r"0\.weight is lazy"):
        pol.RewindPoint.capture(nn.Sequential(nn.LazyLinear(3)))


@pytest.mark.gpu
def test_a_point_captured_on_the_cpu_restores_a_model_on_the_gpu() -> None:
    model = pol.mask_weights(small())
    point = pol.RewindPoint.capture(model)
    train(model.cuda(), tuple(x.cuda() for x in INPUTS))
    pol.imp_prune(model, 0.2, rewind=point)
    mask = pol.masks(model)["0.weight"]
    assert mask.is_cuda
    assert torch.equal(tensor_at(model, "0.weight").cpu(), point.weights["0.weight"] * mask.cpu())


def test_interpolated_norms_are_captured_and_restored_as_trained() -> None:
    model = pol.interpolate_norms(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))).train()
    stored = model[1].parametrizations.weight.original
    with torch.no_grad():
        stored.fill_(5.0)
    model(torch.ones(2, 4))  # draws an interpolation weight
    point = pol.RewindPoint.capture(model)
    assert point.weights["1.weight"].tolist() == [5.0] * 4
    with torch.no_grad():
        stored.fill_(7.0)
    point.restore_weights(model)
    assert stored.tolist() == [5.0] * 4
