"""Gem-Miner: what it may move, what it must not, and how many weights it keeps."""

from itertools import pairwise

import pytest
import torch
from torch import nn

import polarity as pol
from benchmarks.papers.winning_sign.gem_miner import Scored, freeze_smallest, gem_miner
from benchmarks.papers.winning_sign.loops import Plan


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def model():
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(6, 10), nn.BatchNorm1d(10), nn.ReLU(), nn.Linear(10, 3))
    return pol.mask_weights(layers, exclude="3")


def a_few_steps(seen):
    """Trains scores on noise, and remembers what each training saw."""
    inputs = torch.randn(32, 6, generator=generator(1))
    labels = torch.randint(3, (32,), generator=generator(2))

    def train(network, epochs, optimizer, penalty):
        plain = {name: value.clone() for name, value in network.named_parameters()}
        for _ in range(epochs):
            loss = nn.functional.cross_entropy(network(inputs), labels) + penalty(network)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            for name, value in network.named_parameters():
                if name.endswith("scores"):
                    assert 0 <= float(value.detach().min()) <= float(value.detach().max()) <= 1
        after = dict(network.named_parameters())
        moved = {name for name in plain if not torch.equal(plain[name], after[name])}
        seen.append((epochs, moved, optimizer))

    return train


def test_only_scores_move_and_the_density_is_exact(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    seen = []
    mined = list(
        gem_miner(
            model,
            a_few_steps(seen),
            Plan(rounds=4, warmup_epochs=3, round_epochs=2),
            lr=1.0,
            penalty=1e-3,
            generator=generator(),
        )
    )
    assert [k for k, *_ in mined] == [0, 1, 2, 3, 4]
    for k, _, masks, away in mined:
        (mask,) = masks.values()
        assert set(masks) == {"0.weight"}
        assert int(mask.sum()) == round(0.8**k * 60)
        assert 0 <= away <= 1
    for (_, _, earlier, _), (_, _, later, _) in pairwise(mined):
        assert bool((earlier["0.weight"] | ~later["0.weight"]).all())  # what is frozen stays so
    assert [epochs for epochs, _, _ in seen] == [3, 2, 2, 2, 2]
    assert all(moved == {"0.parametrizations.weight.0.scores"} for _, moved, _ in seen)
    assert len({id(optimizer) for _, _, optimizer in seen}) == 1
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(bool(mask.all()) for mask in pol.masks(model).values())


def test_the_scored_weight_and_its_gradient_by_hand():
    weight = torch.tensor([[2.0, -3.0, 5.0, 7.0]])
    scored = Scored(weight, generator())
    with torch.no_grad():
        scored.scores.copy_(torch.tensor([[0.5, 0.9, 0.49, 1.0]]))
        scored.unfrozen.copy_(torch.tensor([[True, True, True, False]]))
    out = scored(weight)
    assert out.tolist() == [[2.0, -3.0, 0.0, 0.0]]
    upstream = torch.tensor([[1.0, 10.0, 100.0, 1000.0]])
    out.backward(upstream)
    # As if the weight were w * p, frozen entries out of the game.
    assert scored.scores.grad.tolist() == [[2.0, -30.0, 500.0, 0.0]]


def test_the_smallest_scores_of_all_layers_are_frozen_together():
    one, two = (Scored(torch.ones(1, n), generator()) for n in (3, 2))
    with torch.no_grad():
        one.scores.copy_(torch.tensor([[0.9, 0.1, 0.4]]))
        two.scores.copy_(torch.tensor([[0.3, 0.8]]))
    freeze_smallest([one, two], 3)
    assert one.unfrozen.tolist() == [[True, False, True]]
    assert two.unfrozen.tolist() == [[False, True]]
    # A frozen score does not come back, even behind one that fell to 0.
    with torch.no_grad():
        one.scores[0, 2] = 0.0
    freeze_smallest([one, two], 3)
    assert one.unfrozen.tolist() == [[True, False, True]]
    freeze_smallest([one, two], 2)
    assert one.unfrozen.tolist() == [[True, False, False]]
    assert one.scores.tolist() == [[pytest.approx(0.9), 0.0, 0.0]]


def test_the_penalty_pulls_scores_down(model):
    def shrink(network, epochs, optimizer, penalty):
        for _ in range(50):
            optimizer.zero_grad()
            penalty(network).backward()
            optimizer.step()

    rounds = gem_miner(
        model,
        shrink,
        Plan(rounds=0, warmup_epochs=1, round_epochs=1),
        lr=0.1,
        momentum=0.0,
        penalty=0.5,
        generator=generator(),
    )
    ((_, mined, _, away),) = rounds
    scores = mined[0].parametrizations.weight[0].scores.detach()
    start = torch.rand(10, 6, generator=generator())
    # p <- p - lr * 2 * penalty * p, fifty times.
    torch.testing.assert_close(scores, start * 0.9**50)
    assert away == 1.0


def test_the_same_generator_mines_the_same_masks(model):
    def mine(seed):
        plan = Plan(rounds=2, warmup_epochs=1, round_epochs=1)
        rounds = gem_miner(model, a_few_steps([]), plan, lr=1.0, generator=generator(seed))
        *_, (_, _, masks, _) = rounds
        return masks["0.weight"]

    assert torch.equal(mine(0), mine(0))
    assert not torch.equal(mine(0), mine(1))
