"""Scores for pruning at initialisation: against gates, dense Hessians and hand-written loops."""

import copy
import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.utils.prune as torch_prune
from torch import Tensor, nn
from torch.func import functional_call

import polarity as pol
from polarity.scores import grasp, snip, synflow
from tests.helpers import build, feed, same_state, zeroed
from tests.models_for_tests import FORMS, KINDS, Form, Kind, random_masks, seeded
from tests.refusals import fingerprint

PLAIN = Form("plain", lambda model: model, enforced=False)
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
each_form = pytest.mark.parametrize("form", [PLAIN, *FORMS], ids=lambda form: form.name)
CROSS_ENTROPY = nn.functional.cross_entropy


def conv_net() -> nn.Module:
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 3),
    )
    return seeded(model).double()


def mlp(*widths: int) -> nn.Module:
    parts: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        parts += [nn.Linear(inputs, outputs), nn.ReLU()]
    return seeded(nn.Sequential(*parts[:-1])).double()


def images(count: int, seed: int = 5) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 2, 6, 6, generator=draw, dtype=torch.float64)
    return inputs, torch.randint(3, (count,), generator=draw)


def square(output: Any, target: Any) -> Tensor:
    return (output.float() - target).square().mean()


def score_all(model: nn.Module, inputs: tuple[Tensor, ...]) -> list[dict[str, Tensor]]:
    batches = [(inputs, torch.tensor(1.0)), (inputs, torch.tensor(-1.0))]
    return [
        snip(model, square, batches),
        grasp(model, square, batches),
        synflow(model, inputs, density=0.3, steps=2),
    ]


def everything_of(model: nn.Module) -> list[Any]:
    """Bytes, identities, modes, classes and gradients of a model, and torch's random state."""
    tensors = dict(model.named_parameters(remove_duplicate=False))
    return [
        [(n, id(m), type(m), m.training, m._forward_hooks) for n, m in model.named_modules()],
        [(n, id(p), p.requires_grad, p._version) for n, p in tensors.items()],
        fingerprint({n: p.grad for n, p in tensors.items() if p.grad is not None}),
        fingerprint(dict(model.named_buffers())),
        fingerprint(model.state_dict()),
        fingerprint(torch.get_rng_state()),
    ]


@each_form
@each_kind
def test_scoring_leaves_the_model_exactly_as_it_was(kind, form):
    model = form.attach(build(kind))
    model(*feed(kind)).sum().backward()
    next(model.modules()).training = True
    torch.manual_seed(11)
    before = everything_of(model)
    outcome = score_all(model, feed(kind))
    assert everything_of(model) == before
    shapes = {name: target.shape for name, target in pol.find_targets(model).items()}
    assert [{name: each.shape for name, each in scores.items()} for scores in outcome] == [
        shapes
    ] * 3
    assert [s for s in outcome if not all(bool(each.isfinite().all()) for each in s.values())] == []
    model(*feed(kind)).sum().backward()


@each_form
@each_kind
def test_scores_are_those_of_the_plain_model_with_these_weights(kind, form):
    model = form.attach(build(kind).double())
    inputs = tuple(x.double() if x.is_floating_point() else x for x in feed(kind))
    masks = random_masks(build(kind))
    plain = build(kind).double()
    plain.load_state_dict(pol.dense_state_dict(model))  # Sign-In rounds once at its conversion
    found = {False: {n: torch.ones_like(m) for n, m in masks.items()}, True: masks}[form.enforced]
    for ours, theirs in list(zip(score_all(model, inputs), score_all(plain, inputs), strict=True))[
        :2
    ]:
        for name, mask in found.items():
            assert ours[name][~mask].tolist() == [0.0] * int((~mask).sum())
        if not form.enforced:
            for name in found:
                torch.testing.assert_close(ours[name], theirs[name], rtol=1e-9, atol=1e-300)


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


def gated_loss(
    model: nn.Module, batches: list[tuple[Tensor, Tensor]], temperature: float = 1.0
) -> tuple[Any, dict[str, Tensor]]:
    """The loss over all batches in training mode as a function of the prunable weights."""
    model = copy.deepcopy(model).train()
    weights = {n: p.detach().clone() for n, p in model.named_parameters() if p.dim() > 1}

    def loss(weights: dict[str, Tensor]) -> Tensor:
        outputs = [functional_call(model, weights, (inputs,)) for inputs, _ in batches]
        each = zip(outputs, batches, strict=True)
        return sum(CROSS_ENTROPY(out / temperature, target) for out, (_, target) in each)

    return loss, weights


def test_snip_is_the_gradient_by_gates_normalised():
    batches = [images(8), images(5, seed=6)]
    loss, weights = gated_loss(conv_net(), batches)
    gates = {name: torch.ones_like(w, requires_grad=True) for name, w in weights.items()}
    loss({name: gates[name] * w for name, w in weights.items()}).backward()
    total = sum(gate.grad.abs().sum() for gate in gates.values())
    computed = snip(conv_net().eval(), CROSS_ENTROPY, batches)
    assert list(computed) == ["0.weight", "4.weight", "9.weight"]
    for name, gate in gates.items():
        torch.testing.assert_close(computed[name], gate.grad.abs() / total, rtol=1e-9, atol=1e-15)
    assert sum(float(each.sum()) for each in computed.values()) == pytest.approx(1, abs=1e-12)


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
) -> dict[str, Tensor]:
    """What GraSP measures: how the flow of gradient answers to a gate on each entry."""
    loss, weights = gated_loss(model, batches, temperature)
    masks = masks or {name: torch.ones_like(w) for name, w in weights.items()}
    leaves = {name: w.detach().requires_grad_() for name, w in weights.items()}
    gates = {name: torch.ones_like(w, requires_grad=True) for name, w in weights.items()}
    gated = {name: gates[name] * leaf for name, leaf in leaves.items()}
    # the gradient by the gated weight itself, so that only its place depends on the gate
    slopes = torch.autograd.grad(loss(gated), list(gated.values()), create_graph=True)
    flow = sum((s * m).square().sum() for s, m in zip(slopes, masks.values(), strict=True)) / 2
    return dict(zip(gates, torch.autograd.grad(flow, list(gates.values())), strict=True))


@pytest.mark.parametrize("temperature", [1.0, 200.0])
def test_grasp_is_what_a_gate_does_to_the_flow_of_gradient(temperature):
    batches = [images(8), images(5, seed=6)]
    computed = grasp(conv_net(), CROSS_ENTROPY, batches, temperature=temperature)
    expected = by_gates(conv_net(), batches, temperature)
    for name, each in expected.items():
        torch.testing.assert_close(computed[name], each, rtol=1e-6, atol=1e-16)


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


def test_a_loss_without_curvature_scores_zero_in_grasp():
    layer = seeded(nn.Linear(3, 2))
    scores = grasp(layer, lambda output, _: output.sum(), [(torch.ones(1, 3), torch.ones(1))])
    assert scores["weight"].tolist() == [[0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("temperature", [0, -1, math.nan, math.inf])
def test_the_temperature_has_to_be_positive(temperature):
    with pytest.raises(ValueError, match=f"temperature={temperature}"):
        grasp(nn.Linear(2, 2), square, [], temperature=temperature)


# SynFlow.


def synflow_by_hand(model: nn.Module, ones: Tensor, density: float, steps: int) -> list[list[int]]:
    """Tanaka et al.'s algorithm 1 on a copy: which entries live after each step, numbered."""
    model = copy.deepcopy(model).double().eval()
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.abs_()
    weights = [p for p in model.parameters() if p.dim() > 1]
    total = sum(w.numel() for w in weights)
    alive, history = set(range(total)), []
    for step in range(1, steps + 1):
        model.zero_grad()
        model(ones.double()).sum().backward()
        flat = torch.cat([(w.detach() * w.grad).abs().flatten() for w in weights]).tolist()
        count = round(density ** (step / steps) * total)
        alive = set(sorted(alive, key=lambda i: (-flat[i], i))[:count])
        history.append(sorted(alive))
        mask = torch.zeros(total)
        mask[history[-1]] = 1
        with torch.no_grad():
            for w, part in zip(weights, mask.split([w.numel() for w in weights]), strict=True):
                w.mul_(part.view_as(w))
    return history


def survivors(model: nn.Module) -> list[int]:
    flat = torch.cat([mask.flatten() for mask in pol.masks(model).values()])
    return flat.nonzero().flatten().tolist()


@pytest.mark.parametrize(
    ("make", "ones"),
    [
        (lambda: mlp(8, 20, 20, 5), torch.ones(1, 8)),
        (conv_net, torch.ones(1, 2, 6, 6)),
        (lambda: conv_net().float(), torch.ones(1, 2, 6, 6)),
    ],
    ids=["mlp", "conv", "float32"],
)
@pytest.mark.parametrize("density", [0.5, 0.1, 0.03])
def test_synflow_gives_the_mask_of_a_hundred_steps(make, ones, density):
    model = make()
    scores = synflow(model, torch.rand(ones.shape), density=density)
    history = synflow_by_hand(make(), ones, density, steps=100)
    pol.prune(model, scores, density=density)
    assert survivors(model) == history[-1]


def test_synflow_ranks_by_the_step_of_removal():
    model, steps, density = conv_net(), 10, 0.05
    scores = synflow(model, torch.ones(1, 2, 6, 6), density=density, steps=steps)
    history = synflow_by_hand(model, torch.ones(1, 2, 6, 6), density, steps)
    flat = torch.cat([each.flatten() for each in scores.values()])
    assert flat.unique().numel() == flat.numel(), "every entry has a place of its own"
    assert flat.min() > 0
    assert flat.max() == 1
    for step, alive in enumerate(history, 1):
        twin = conv_net()
        pol.prune(twin, scores, density=density ** (step / steps))
        assert survivors(twin) == alive


def test_one_step_of_synflow_is_not_a_hundred():
    model, ones = mlp(8, 20, 20, 5), torch.ones(1, 8)
    masks = []
    for steps in (1, 100):
        twin = copy.deepcopy(model)
        pol.prune(twin, synflow(twin, ones, density=0.05, steps=steps), density=0.05)
        assert survivors(twin) == synflow_by_hand(model, ones, 0.05, steps)[-1]
        masks.append(survivors(twin))
    assert masks[0] != masks[1]


def test_synflow_keeps_every_layer_where_magnitude_loses_one():
    def narrow() -> nn.Module:
        model = mlp(10, 100, 100, 100, 10)
        with torch.no_grad():
            model[2].weight.mul_(0.01)
            for layer in model[::2]:
                layer.bias.zero_()
        return model

    counts = {}
    for name, scores in {
        "magnitude": {n: p.abs() for n, p in narrow().named_parameters() if p.dim() > 1},
        "synflow": synflow(narrow(), torch.ones(1, 10), density=0.005),
    }.items():
        model = narrow()
        pol.prune(model, scores, density=0.005)
        counts[name] = [int(mask.sum()) for mask in pol.masks(model).values()]
    assert min(counts["magnitude"]) == 0
    assert min(counts["synflow"]) > 0
    assert sum(counts["synflow"]) == sum(counts["magnitude"]) == round(0.005 * 22_000)


def test_synflow_goes_on_from_the_masks_that_are_there():
    model = mlp(8, 20, 20, 5)
    pol.imp_prune(model, density=0.5)
    before = set(survivors(model))
    scores = synflow(model, torch.ones(1, 8), density=0.1)
    for name, mask in pol.masks(model).items():
        assert scores[name][~mask].count_nonzero() == 0
        assert (scores[name][mask] > 0.5).all()
    plain = pol.merge(copy.deepcopy(model))
    pol.prune(model, scores, density=0.1)
    assert set(survivors(model)) <= before
    assert survivors(model) == synflow_by_hand(plain, torch.ones(1, 8), 0.1, 100)[-1]


def test_synflow_needs_more_than_float32_in_a_deep_network():
    deep = mlp(*[50] * 30).float()
    for layer in deep[::2]:
        layer.weight.data.mul_(10)
    inputs = torch.ones(1, 50)
    with pytest.raises(ValueError, match=r"range of torch\.float32.*dtype"):
        synflow(deep, inputs, density=0.1, steps=3, dtype=None)
    pol.prune(deep, synflow(deep, inputs, density=0.1, steps=3), density=0.1)
    assert pol.density(deep) == 0.1


def test_synflow_can_compute_in_the_models_own_dtype():
    model = mlp(8, 20, 5).float()
    same = synflow(model, torch.ones(1, 8), density=0.1, dtype=None)
    other = synflow(model, torch.ones(1, 8), density=0.1, dtype=torch.float32)
    assert {each.dtype for each in same.values()} == {torch.float64}
    assert [name for name in same if not torch.equal(same[name], other[name])] == []


class Several(nn.Module):
    """Takes a tensor, a scale and token indices, and returns a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix = nn.Embedding(5, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor, tokens: Tensor, scale: float = 1.0) -> dict[str, Any]:
        return {"out": self.mix(x + self.embed(tokens)) * scale, "tokens": tokens}


@pytest.mark.parametrize("form", [tuple, list, dict], ids=lambda form: form.__name__)
def test_several_inputs_tokens_and_outputs(form):
    model = seeded(Several())
    x, tokens = torch.randn(2, 4), torch.tensor([1, 3])
    inputs = {"x": x, "tokens": tokens, "scale": 2.0} if form is dict else form((x, tokens, 2.0))
    flow = synflow(model, inputs, density=0.5)["mix.weight"]
    # R is linear in the weights: the saliency of column j is |w_j| times its summed input.
    summed = (1 + model.embed.weight[tokens].abs()).sum(0)
    expected = (model.mix.weight.abs() * summed).flatten().argsort()
    assert flow.flatten().argsort().tolist() == expected.tolist()

    def loss(output: dict[str, Tensor], target: tuple[Tensor, Tensor]) -> Tensor:
        assert isinstance(target, tuple)
        return (output["out"] - target[0] - target[1]).square().mean()

    target = torch.zeros(2, 3), torch.ones(3)
    assert list(snip(model, loss, [(inputs, target)])) == ["mix.weight"]


def noisy() -> nn.Module:
    return seeded(nn.Sequential(nn.Linear(6, 30), nn.Dropout(0.5), nn.Linear(30, 3)))


@pytest.mark.parametrize("score", [snip, grasp])
def test_dropout_draws_from_the_generator_and_nothing_else_is_touched(score):
    model, batches = noisy(), [(torch.ones(4, 6), torch.tensor([0, 1, 2, 0]))]

    def of(seed: int | None) -> list[float]:
        draw = None if seed is None else torch.Generator().manual_seed(seed)
        return score(model, CROSS_ENTROPY, batches, generator=draw)["2.weight"].flatten().tolist()

    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = of(1)
    assert of(2) != first
    assert of(None) == of(None)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert of(1) == first


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


@pytest.mark.parametrize("score", [snip, grasp])
def test_batches_may_be_a_loader_and_a_loss_any_function(score):
    model, (inputs, target) = conv_net(), images(12)
    data = torch.utils.data.TensorDataset(inputs, target)
    loader = torch.utils.data.DataLoader(data, batch_size=4, shuffle=True)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    shuffled = score(model, nn.CrossEntropyLoss(label_smoothing=0.1), loader)
    assert torch.equal(torch.get_rng_state(), state)
    parts = list(zip(inputs.split(4), target.split(4), strict=True))
    listed = score(model, CROSS_ENTROPY, parts)
    streamed = score(model, CROSS_ENTROPY, (pair for pair in parts))
    assert list(shuffled) == list(listed)
    assert [name for name in listed if not torch.equal(listed[name], streamed[name])] == []


@pytest.mark.parametrize(
    "context", [torch.no_grad, torch.inference_mode], ids=["no_grad", "inference"]
)
def test_scores_can_be_computed_where_gradients_are_off(context):
    batches, model = [images(4)], conv_net()
    expected = [snip(model, CROSS_ENTROPY, batches), grasp(model, CROSS_ENTROPY, batches)]
    expected.append(synflow(model, batches[0][0], density=0.5, steps=2))
    with context():
        computed = [snip(model, CROSS_ENTROPY, batches), grasp(model, CROSS_ENTROPY, batches)]
        computed.append(synflow(model, batches[0][0], density=0.5, steps=2))
    for one, other in zip(computed, expected, strict=True):
        assert [name for name in other if not torch.equal(one[name], other[name])] == []


def test_targets_exclude_and_frozen_weights():
    model, batches = conv_net(), [images(4)]
    first = model[0].weight
    assert list(snip(model, CROSS_ENTROPY, batches, targets=nn.Conv2d)) == ["0.weight", "4.weight"]
    assert list(grasp(model, CROSS_ENTROPY, batches, exclude="9")) == ["0.weight", "4.weight"]
    itself = synflow(model, batches[0][0], density=0.5, steps=2, targets=lambda _, p: p is first)
    assert list(itself) == ["0.weight"]
    first.requires_grad_(False)
    assert list(snip(model, CROSS_ENTROPY, batches)) == ["4.weight", "9.weight"]
    masked = pol.mask_weights(conv_net(), exclude="4")
    assert list(snip(masked, CROSS_ENTROPY, batches)) == ["0.weight", "9.weight"]
    with pytest.raises(ValueError, match="targets='7'"):
        synflow(model, batches[0][0], density=0.5, targets="7")


def test_what_is_left_out_still_takes_part():
    model, batches = conv_net(), [images(4)]
    part = snip(model, CROSS_ENTROPY, batches, exclude="9")
    whole = snip(model, CROSS_ENTROPY, batches)
    ratio = sum(float(whole[name].sum()) for name in part)
    for name, each in part.items():
        torch.testing.assert_close(each * ratio, whole[name])


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


@pytest.mark.parametrize("attach", [torch_prune.l1_unstructured, nn.utils.weight_norm])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_weights_that_hooks_compute_are_no_obstacle(attach):
    model = seeded(nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)))
    attach(model[0], "weight", *([6] if attach is torch_prune.l1_unstructured else []))
    inputs, target = torch.randn(3, 4), torch.tensor([0, 1, 0])
    model(inputs).sum().backward()  # the weight hangs on a graph now
    hooked = attach is nn.utils.weight_norm
    before = model[0].weight
    scores = snip(model, CROSS_ENTROPY, [(inputs, target)], exclude="0" if hooked else None)
    assert model[0].weight is before
    assert ("0.weight" in scores) != hooked
    if not hooked:
        assert (scores["0.weight"] != 0).equal(model[0].weight_mask.bool())


def test_an_optimizer_goes_on_after_scoring_a_model_under_sign_in():
    model = seeded(nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    pol.sign_in(model, optimizer=optimizer)
    batch = torch.ones(4, 6), torch.tensor([0, 1, 2, 0])
    pol.prune(model, snip(model, CROSS_ENTROPY, [batch]), density=0.5, optimizer=optimizer)
    before = pol.dense_state_dict(model)
    CROSS_ENTROPY(model(batch[0]), batch[1]).backward()
    optimizer.step()
    assert not same_state(pol.dense_state_dict(model), before)
    assert pol.density(model) == pytest.approx(0.5, abs=0.02)


def test_half_precision_scores_are_summed_in_float32():
    model = seeded(nn.Sequential(nn.Linear(300, 300, bias=False), nn.Linear(300, 3))).bfloat16()
    scores = snip(model, CROSS_ENTROPY, [(torch.ones(2, 300).bfloat16(), torch.tensor([0, 1]))])
    assert {each.dtype for each in scores.values()} == {torch.float32}
    assert sum(float(each.sum()) for each in scores.values()) == pytest.approx(1, abs=1e-4)


GOOD = (torch.ones(2, 6), torch.tensor([0, 1]))


@pytest.mark.parametrize("score", [snip, grasp])
@pytest.mark.parametrize(
    ("loss", "batches", "error", "parts"),
    [
        (CROSS_ENTROPY, [], ValueError, ["batches is empty"]),
        (CROSS_ENTROPY, [GOOD[0]], ValueError, ["batches", "(2, 6)", "(input, target)"]),
        (CROSS_ENTROPY, [(*GOOD, 1)], ValueError, ["batches", "length 3", "(input, target)"]),
        (lambda out, _: out, [GOOD], ValueError, ["loss_fn", "(2, 3)", "one number"]),
        (lambda out, _: 1.0, [GOOD], ValueError, ["loss_fn", "float", "one number"]),
        (lambda out, _: out.detach().sum(), [GOOD], ValueError, ["loss_fn", "does not depend"]),
        (lambda out, _: out.sum() * math.nan, [GOOD], ValueError, ["'0.weight'", "NaN"]),
    ],
    ids=["none", "no pair", "three", "vector", "number", "detached", "NaN"],
)
def test_bad_batches_and_losses_are_refused_and_change_nothing(score, loss, batches, error, parts):
    model = noisy()
    before = everything_of(model)
    with pytest.raises(error) as raised:
        score(model, loss, batches)
    assert [part for part in parts if part not in str(raised.value)] == []
    assert everything_of(model) == before


def test_a_loss_whose_gradient_is_zero_cannot_be_normalised():
    with pytest.raises(ValueError, match="sum to 0"):
        snip(noisy(), lambda out, _: (out * 0).sum(), [GOOD])


def test_grasp_needs_one_tensor_to_cool():
    with pytest.raises(TypeError, match=r"dict.*temperature"):
        grasp(Several(), square, [((torch.ones(1, 4), torch.tensor([1])), torch.ones(1))])


@pytest.mark.parametrize(
    ("given", "error", "parts"),
    [
        ({"density": 0}, ValueError, ["density=0", "(0, 1]"]),
        ({"density": 1.5}, ValueError, ["density=1.5"]),
        ({"density": 0.5, "steps": 0}, ValueError, ["steps=0", "at least 1"]),
        ({"density": 0.5, "steps": 1.5}, TypeError, ["steps=1.5", "int"]),
        ({"density": 0.5, "dtype": torch.int32}, ValueError, ["dtype=torch.int32", "floating"]),
        ({"density": 0.9}, ValueError, ["density=0.9", "live"]),
    ],
)
def test_synflow_refuses_what_cannot_be_and_changes_nothing(given, error, parts):
    model = pol.mask_weights(noisy())
    pol.imp_prune(model, density=0.6)
    before = everything_of(model)
    with pytest.raises(error) as raised:
        synflow(model, torch.ones(1, 6), **given)
    assert [part for part in parts if part not in str(raised.value)] == []
    assert everything_of(model) == before


def test_synflow_refuses_a_network_through_which_nothing_flows():
    dead = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    nn.init.zeros_(dead[1].weight)
    with pytest.raises(ValueError, match="every saliency is zero"):
        synflow(dead, torch.ones(1, 3), density=0.5)


CUDA_KINDS = [kind for kind in KINDS if kind.name in ("conv2d", "lstm", "attention", "transformer")]


@pytest.mark.gpu
@pytest.mark.parametrize("kind", CUDA_KINDS, ids=lambda kind: kind.name)
def test_scores_do_not_depend_on_the_device(kind: Kind):
    inputs = tuple(x.double() for x in feed(kind))
    on_cpu = score_all(build(kind).double(), inputs)
    before = torch.cuda.get_rng_state()
    on_gpu = score_all(build(kind).double().cuda(), inputs)
    assert torch.equal(torch.cuda.get_rng_state(), before)
    for one, other in zip(on_cpu, on_gpu, strict=True):
        for name, each in one.items():
            torch.testing.assert_close(other[name].cpu(), each, rtol=1e-6, atol=1e-12)
