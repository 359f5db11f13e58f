"""Scores at initialisation leave the model alone, whatever it is made of and computed from."""

import math

import pytest
import torch
import torch.nn.utils.prune as torch_prune
from torch import Tensor, nn

import polarity as pol
from polarity.scores import grasp, snip, synflow
from tests.forms import FORMS, Form, every_weight, random_masks
from tests.helpers import build, everything_of, feed, same_state
from tests.laws.grid import pairs_in_turn
from tests.models import (
    CROSS_ENTROPY,
    KINDS,
    Kind,
    Several,
    conv_net,
    images,
    noisy,
    seeded,
    square,
)

# Networks in which living weights have a saliency of zero: all positions score alike, gates cancel.
GATED = ("attention", "transformer", "gru")
PLAIN = Form("plain", lambda model: model, enforced=False)
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
# Every kind and every form, and with --slow every pair of them.
in_turn = pytest.mark.parametrize(
    ("kind", "form"), pairs_in_turn(KINDS, [PLAIN, *FORMS], whole=(KINDS[2],))
)


def score_all(model: nn.Module, inputs: tuple[Tensor, ...]) -> list[dict[str, Tensor]]:
    batches = [(inputs, torch.tensor(1.0)), (inputs, torch.tensor(-1.0))]
    names = every_weight(model)
    return [
        snip(model, square, batches, targets=names),
        grasp(model, square, batches, targets=names),
        synflow(model, inputs, density=0.3, steps=2, targets=names),
    ]


@in_turn
def test_scoring_leaves_the_model_exactly_as_it_was(kind, form):
    model = form.attach(build(kind))
    model(*feed(kind)).sum().backward()
    next(model.modules()).training = True
    torch.manual_seed(11)
    before = everything_of(model)
    outcome = score_all(model, feed(kind))
    assert everything_of(model) == before
    names = every_weight(model)
    shapes = {name: target.shape for name, target in pol.find_targets(model, names).items()}
    assert [{name: each.shape for name, each in scores.items()} for scores in outcome] == [
        shapes
    ] * 3
    assert [s for s in outcome if not all(bool(each.isfinite().all()) for each in s.values())] == []
    model(*feed(kind)).sum().backward()


@in_turn
def test_scores_are_those_of_the_plain_model_with_these_weights(kind, form):
    model = form.attach(build(kind).double())
    inputs = tuple(x.double() if x.is_floating_point() else x for x in feed(kind))
    plain = build(kind).double()
    plain.load_state_dict(pol.dense_state_dict(model) if form is not PLAIN else model.state_dict())
    masks = random_masks(plain)
    if not form.enforced:
        masks = {name: torch.ones_like(mask) for name, mask in masks.items()}
    outcomes = zip(score_all(model, inputs), score_all(plain, inputs), strict=True)
    for score, (ours, theirs) in zip((snip, grasp, synflow), outcomes, strict=True):
        for name, mask in masks.items():
            assert ours[name][~mask].count_nonzero() == 0
            if form.enforced and (score is grasp or (score is synflow and kind.name in GATED)):
                continue  # g has no part of what is pruned; living zeros are pruned with the rest
            torch.testing.assert_close(ours[name][mask], theirs[name][mask], rtol=1e-9, atol=1e-300)


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


CUDA_KINDS = [kind for kind in KINDS if kind.name in ("conv2d", "lstm", "attention", "transformer")]


@pytest.mark.gpu
@pytest.mark.parametrize("kind", CUDA_KINDS, ids=lambda kind: kind.name)
def test_scores_do_not_depend_on_the_device(kind: Kind):
    inputs = tuple(x.double() for x in feed(kind))
    on_cpu = score_all(build(kind).double(), inputs)
    before = torch.cuda.get_rng_state()
    on_gpu = score_all(build(kind).double().cuda(), inputs)
    assert torch.equal(torch.cuda.get_rng_state(), before)
    for score, one, other in zip((snip, grasp, synflow), on_cpu, on_gpu, strict=True):
        for name, each in one.items():
            same = other[name].cpu()
            if score is synflow and name.endswith("in_proj_weight"):
                each, same = (x[2 * len(x) // 3 :] for x in (each, same))  # the values' rows
            torch.testing.assert_close(same, each, rtol=1e-6, atol=1e-12)


def test_synflow_prunes_queries_and_keys_first():
    kind = next(kind for kind in KINDS if kind.name == "attention")
    model, inputs = build(kind).double(), tuple(x.double() for x in feed(kind))
    scores = synflow(model, inputs, density=0.3, steps=2, targets=every_weight(model))
    queries, keys, values = scores["in_proj_weight"].chunk(3)
    least = min(values.min(), scores["out_proj.weight"].min())
    assert max(queries.max(), keys.max()) < least
