"""SNIP and GraSP against gates, dense Hessians and cases by hand."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

import polarity as pol
from polarity.scores import grasp, snip
from tests.forms import random_masks
from tests.helpers import build, everything_of, feed, zeroed
from tests.models import (
    CROSS_ENTROPY,
    KINDS,
    Several,
    conv_net,
    generator,
    images,
    noisy,
    seeded,
    square,
)


def gated_loss(
    model: nn.Module,
    batches: list[tuple[Tensor, Tensor]],
    temperature: float = 1.0,
    mode: str = "train",
) -> tuple[Any, dict[str, Tensor]]:
    """The loss over all batches as a function of the prunable weights."""
    model = copy.deepcopy(model).train(mode == "train")
    weights = {n: p.detach().clone() for n, p in model.named_parameters() if p.dim() > 1}

    def loss(weights: dict[str, Tensor]) -> Tensor:
        outputs = [functional_call(model, weights, (inputs,)) for inputs, _ in batches]
        each = zip(outputs, batches, strict=True)
        return sum(CROSS_ENTROPY(out / temperature, target) for out, (_, target) in each)

    return loss, weights


def flow_by_gates(loss: Any, weights: dict[str, Tensor], masks: dict[str, Tensor]) -> float:
    """Half the squared norm of the gradient by the living weights."""
    leaves = {name: w.detach().requires_grad_() for name, w in weights.items()}
    slopes = torch.autograd.grad(loss(leaves), list(leaves.values()))
    pairs = zip(slopes, masks.values(), strict=True)
    return sum(float((slope * mask).square().sum()) for slope, mask in pairs) / 2


def by_gates(
    model: nn.Module,
    batches: list[tuple[Tensor, Tensor]],
    temperature: float,
    masks: dict[str, Tensor] | None = None,
    mode: str = "train",
) -> dict[str, Tensor]:
    """What GraSP measures: how the flow of gradient answers to a gate on each entry."""
    loss, weights = gated_loss(model, batches, temperature, mode)
    masks = masks or {name: torch.ones_like(w) for name, w in weights.items()}
    leaves = {name: w.detach().requires_grad_() for name, w in weights.items()}
    gates = {name: torch.ones_like(w, requires_grad=True) for name, w in weights.items()}
    gated = {name: gates[name] * leaf for name, leaf in leaves.items()}
    # the gradient by the gated weight itself, so that only its place depends on the gate
    slopes = torch.autograd.grad(loss(gated), list(gated.values()), create_graph=True)
    flow = sum((s * m).square().sum() for s, m in zip(slopes, masks.values(), strict=True)) / 2
    return dict(zip(gates, torch.autograd.grad(flow, list(gates.values())), strict=True))


def warmed_up() -> nn.Module:
    """A network whose running statistics are those of no batch, and dropout before its end."""
    model = conv_net()
    model.insert(9, nn.Dropout(0.5))
    for _ in range(2):
        model.train()(images(32, seed=8)[0] + 1)
    return model


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_snip_is_the_gradient_by_gates_normalised(mode):
    batches = [images(8), images(5, seed=6)]
    loss, weights = gated_loss(conv_net(), batches, mode=mode)
    gates = {name: torch.ones_like(w, requires_grad=True) for name, w in weights.items()}
    loss({name: gates[name] * w for name, w in weights.items()}).backward()
    total = sum(gate.grad.abs().sum() for gate in gates.values())
    computed = snip(conv_net().train(mode == "eval"), CROSS_ENTROPY, batches, mode=mode)
    assert list(computed) == ["0.weight", "4.weight", "9.weight"]
    for name, gate in gates.items():
        torch.testing.assert_close(computed[name], gate.grad.abs() / total, rtol=1e-9, atol=1e-15)
    assert sum(float(each.sum()) for each in computed.values()) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("temperature", [1.0, 200.0])
def test_grasp_is_what_a_gate_does_to_the_flow_of_gradient(temperature, mode):
    batches = [images(8), images(5, seed=6)]
    computed = grasp(conv_net(), CROSS_ENTROPY, batches, temperature=temperature, mode=mode)
    expected = by_gates(conv_net(), batches, temperature, mode=mode)
    for name, each in expected.items():
        torch.testing.assert_close(computed[name], each, rtol=1e-6, atol=1e-16)


def test_in_evaluation_mode_running_statistics_are_used_and_nothing_is_dropped():
    batches = [images(8), images(5, seed=6)]
    loss, weights = gated_loss(warmed_up(), batches, mode="eval")
    gates = {name: torch.ones_like(w, requires_grad=True) for name, w in weights.items()}
    loss({name: gates[name] * w for name, w in weights.items()}).backward()
    total = sum(gate.grad.abs().sum() for gate in gates.values())
    first, second = (
        snip(warmed_up(), CROSS_ENTROPY, batches, mode="eval", generator=generator(seed))
        for seed in (1, 2)
    )
    flow = grasp(warmed_up(), CROSS_ENTROPY, batches, mode="eval")
    by_hand = by_gates(warmed_up(), batches, 200.0, mode="eval")
    for name, gate in gates.items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], gate.grad.abs() / total, rtol=1e-9, atol=1e-15)
        torch.testing.assert_close(flow[name], by_hand[name], rtol=1e-6, atol=1e-16)


@pytest.mark.parametrize("score", [snip, grasp])
def test_networks_with_batch_norm_or_dropout_get_different_scores_in_the_two_modes(score):
    batches = [images(8)]
    train, evaluation, default = (
        score(warmed_up(), CROSS_ENTROPY, batches, generator=generator(1), **given)
        for given in ({"mode": "train"}, {"mode": "eval"}, {})
    )
    for name in train:
        assert torch.equal(default[name], train[name])
        assert not torch.allclose(train[name], evaluation[name], rtol=0.1)


@pytest.mark.parametrize("score", [snip, grasp])
@pytest.mark.parametrize("kind", [k for k in KINDS if k.name in ("lstm", "transformer", "conv2d")])
def test_scoring_in_evaluation_mode_leaves_the_model_and_the_random_state(score, kind):
    model = build(kind)
    next(model.modules()).training = True  # modes that no call of train() would give
    before = everything_of(model)
    scores = score(model, square, [(feed(kind), torch.tensor(1.0))], mode="eval")
    assert everything_of(model) == before
    assert all(bool(each.isfinite().all()) for each in scores.values())


@pytest.mark.parametrize("score", [snip, grasp])
@pytest.mark.parametrize("mode", ["evaluation", True, None, ["eval"]])
def test_a_mode_is_train_or_eval(score, mode):
    with pytest.raises(ValueError, match=r"mode=.*, expected 'train' or 'eval'"):
        score(noisy(), CROSS_ENTROPY, [], mode=mode)


@pytest.mark.gpu
@pytest.mark.parametrize("score", [snip, grasp])
def test_recurrent_networks_have_gradients_in_evaluation_mode_on_a_gpu(score):
    kind = next(kind for kind in KINDS if kind.name == "lstm")
    scores = [
        score(
            build(kind).double().to(device),
            square,
            [(tuple(x.double() for x in feed(kind)), torch.tensor(1.0))],
            mode="eval",
        )
        for device in ("cpu", "cuda")
    ]
    for name, each in scores[0].items():
        torch.testing.assert_close(scores[1][name].cpu(), each, rtol=1e-6, atol=1e-12)


def test_grasp_against_a_dense_hessian():
    model = seeded(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))).double()
    draw = torch.Generator().manual_seed(3)
    batches = [
        (torch.randn(n, 4, generator=draw, dtype=torch.float64), torch.arange(n) % 3)
        for n in (6, 4)
    ]
    loss, weights = gated_loss(model, batches, temperature=2.0)
    sizes = [w.numel() for w in weights.values()]

    def of_flat(flat: Tensor) -> Tensor:
        parts = torch.split(flat, sizes)
        return loss({n: p.view_as(w) for (n, w), p in zip(weights.items(), parts, strict=True)})

    flat = torch.cat([w.flatten() for w in weights.values()])
    hessian = torch.autograd.functional.hessian(of_flat, flat)
    slope = torch.autograd.functional.jacobian(of_flat, flat)
    computed = grasp(model, CROSS_ENTROPY, batches, temperature=2.0)
    together = torch.cat([computed[name].flatten() for name in weights])
    torch.testing.assert_close(together, flat * (hessian @ slope), rtol=1e-9, atol=1e-14)


def test_grasp_keeps_what_the_flow_of_gradient_needs_most():
    """A quadratic by hand: H = diag(h), g = h w, so that removing entry i costs (h_i w_i)^2."""
    curvature, weight = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([[3.0, -2.0, 0.1]])
    layer = nn.Linear(3, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(weight)

    def quadratic(output: Tensor, target: Tensor) -> Tensor:
        return (output.flatten().square() / curvature).sum() / 2

    rows = torch.diag(curvature)  # output i is h_i w_i, the loss h_i w_i^2 / 2
    scores = grasp(layer, quadratic, [(rows, torch.zeros(3))], temperature=1)["weight"]
    torch.testing.assert_close(scores, (curvature * weight).square())
    assert scores.argsort(descending=True).tolist() == [[1, 0, 2]]


def test_an_entry_of_negative_grasp_score_hampers_the_gradient():
    batches = [images(16)]
    model = conv_net()
    scores = grasp(model, CROSS_ENTROPY, batches, temperature=1)
    loss, weights = gated_loss(model, batches)
    ones = {name: torch.ones_like(w) for name, w in weights.items()}
    step = 1e-4
    for name in weights:
        for sign, index in ((1, scores[name].argmax()), (-1, scores[name].argmin())):
            shrunk = {n: w.clone() for n, w in weights.items()}
            shrunk[name].view(-1)[index] *= 1 - step
            change = flow_by_gates(loss, shrunk, ones) - flow_by_gates(loss, weights, ones)
            assert sign * scores[name].flatten()[index] > 0
            assert change == pytest.approx(-step * scores[name].flatten()[index].item(), rel=0.01)


@pytest.mark.parametrize("score", [snip, grasp])
def test_gradients_go_where_the_masked_network_has_them(score):
    batches = [images(8), images(5, seed=6)]
    masks = random_masks(conv_net())
    masked = pol.mask_weights(conv_net(), masks=masks)
    computed = score(masked, CROSS_ENTROPY, batches)
    if score is snip:
        # the gates of a network whose pruned weights are zero
        expected = snip(zeroed(conv_net(), masks), CROSS_ENTROPY, batches)
    else:
        expected = by_gates(zeroed(conv_net(), masks), batches, 200.0, masks)
    for name, mask in masks.items():
        assert computed[name][~mask].count_nonzero() == 0
        torch.testing.assert_close(computed[name], expected[name] * mask, rtol=1e-6, atol=1e-15)


def test_a_loss_without_curvature_scores_zero_in_grasp():
    layer = seeded(nn.Linear(3, 2))
    scores = grasp(layer, lambda output, _: output.sum(), [(torch.ones(1, 3), torch.ones(1))])
    assert scores["weight"].tolist() == [[0, 0, 0], [0, 0, 0]]


def test_both_passes_of_grasp_see_the_same_dropout():
    """With g and H of one network, the sum of the scores by output is w' H g of that network."""
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(64, 1, bias=False))
    with torch.no_grad():
        model[1].weight.fill_(1.0)
    batches = [(torch.ones(1, 64), torch.zeros(1, 1))]
    scores = grasp(model, lambda out, _: out.square().sum() / 2, batches, temperature=1)["1.weight"]
    # H = x x', g = x (x'w): with x of k twos, w * H g = x (x'x)(x'w) = 2 * 4k * 2k where x lives
    k = int((scores != 0).sum())
    assert 0 < k < 64
    assert set(scores[scores != 0].tolist()) == {16.0 * k * k}


def test_a_tied_weight_is_scored_once_with_both_of_its_uses():
    tied = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)).double()
    seeded(tied)
    tied[1].weight = tied[0].weight
    w, x = tied[0].weight.detach(), torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)
    computed = snip(tied, lambda out, _: out.sum(), [(x, x)])
    # y = x W'W', L = sum y: dL/dW = W' 1 x + 1 (W x)'
    ones = torch.ones(3, 1, dtype=torch.float64)
    slope = w.T @ ones @ x + ones @ (w @ x.T).T
    assert list(computed) == ["0.weight"]
    torch.testing.assert_close(computed["0.weight"], (w * slope).abs() / (w * slope).abs().sum())


def test_what_is_left_out_still_takes_part():
    model, batches = conv_net(), [images(4)]
    part = snip(model, CROSS_ENTROPY, batches, exclude="9")
    whole = snip(model, CROSS_ENTROPY, batches)
    ratio = sum(float(whole[name].sum()) for name in part)
    for name, each in part.items():
        torch.testing.assert_close(each * ratio, whole[name])


def test_half_precision_scores_are_summed_in_float32():
    model = seeded(nn.Sequential(nn.Linear(300, 300, bias=False), nn.Linear(300, 3))).bfloat16()
    scores = snip(model, CROSS_ENTROPY, [(torch.ones(2, 300).bfloat16(), torch.tensor([0, 1]))])
    assert {each.dtype for each in scores.values()} == {torch.float32}
    assert sum(float(each.sum()) for each in scores.values()) == pytest.approx(1, abs=1e-4)


def test_a_loss_whose_gradient_is_zero_cannot_be_normalised():
    with pytest.raises(ValueError, match="sum to 0"):
        snip(noisy(), lambda out, _: (out * 0).sum(), [(torch.ones(2, 6), torch.ones(2))])


def test_grasp_needs_one_tensor_to_cool():
    with pytest.raises(TypeError, match=r"dict.*temperature"):
        grasp(Several(), square, [((torch.ones(1, 4), torch.tensor([1])), torch.ones(1))])


@pytest.mark.parametrize("temperature", [0, -1, math.nan, math.inf])
def test_the_temperature_has_to_be_positive(temperature):
    with pytest.raises(ValueError, match=f"temperature={temperature}"):
        grasp(nn.Linear(2, 2), square, [], temperature=temperature)


@pytest.mark.parametrize("score", [snip, grasp])
def test_a_seed_is_no_generator(score):
    with pytest.raises(TypeError, match=r"generator=3 is an int, expected a torch\.Generator"):
        score(noisy(), CROSS_ENTROPY, [], generator=3)
