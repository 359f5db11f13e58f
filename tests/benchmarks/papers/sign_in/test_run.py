"""One run of each method: its masks, flips, inner scaling, penalty and sharpness."""

import pytest
import torch

import polarity as pol
from benchmarks.papers.sign_in.run import train_sparse
from benchmarks.papers.sign_in.watch import product_penalty
from tests.benchmarks.papers.sign_in.small import masked, one


def test_balanced_random_masks_have_equal_counts_and_belong_to_the_seed(digits):
    config = one("random")
    counts = [int(mask.sum()) for mask in pol.masks(masked(config, digits)).values()]
    sizes = [mask.numel() for mask in pol.masks(masked(config, digits)).values()]
    assert sum(counts) == round(0.2 * sum(sizes))
    level = max(counts)
    for count, size in zip(counts, sizes, strict=True):
        assert count == size or level - 1 <= count <= level

    def same(first, second):
        pairs = zip(pol.masks(first).values(), pol.masks(second).values(), strict=True)
        return all(torch.equal(a, b) for a, b in pairs)

    assert same(masked(config, digits), masked(one("random+sign_in"), digits))
    assert not same(masked(config, digits), masked(one("random", seeds=(1,)), digits))


@pytest.mark.parametrize("mask", ["snip", "grasp", "synflow"])
def test_scored_masks_have_the_density_over_the_whole_network(mask, digits):
    config = one(mask)
    assert config.densities is None
    model = masked(config, digits)
    total = sum(each.numel() for each in pol.masks(model).values())
    assert sum(int(each.sum()) for each in pol.masks(model).values()) == round(0.2 * total)
    # They look at the network, and so do not agree with a random mask.
    layers = {name: each.float().mean().item() for name, each in pol.masks(model).items()}
    random = pol.masks(masked(one("random"), digits))
    assert any(abs(layers[n] - random[n].float().mean().item()) > 0.05 for n in layers)


@pytest.fixture(scope="module")
def outcomes():
    from benchmarks.harness.data import load_dataset

    torch.set_num_threads(1)
    data = load_dataset("digits", train_size=300, test_size=100, holdout=0)
    methods = ("random", "random+sign_in", "random+mv")
    return {method: train_sparse(one(method, sharpness_images=64), data) for method in methods}


def test_flips_add_up(outcomes):
    for outcome in outcomes.values():
        final = outcome.final
        assert len(outcome.epochs) == 3
        assert final["flips_cumulative"] == outcome.epochs[-1]["flips_cumulative"]
        assert final["init_to_end"] == pytest.approx(outcome.epochs[-1]["flips"])
        # The warm-up is the first of three epochs: nothing has flipped twice by its end.
        first = outcome.epochs[0]
        assert first["flips"] == first["flips_cumulative"] == final["init_to_warmup"] > 0
        assert final["init_to_end"] <= final["init_to_warmup"] + final["warmup_to_end"] + 1e-12
        curve = [epoch["flips_cumulative"] for epoch in outcome.epochs]
        assert curve == sorted(curve)
        survivors = sum(layer["survivors"] for layer in outcome.layers)
        flipped = sum(layer["init_to_end"] * layer["survivors"] for layer in outcome.layers)
        assert flipped / survivors == pytest.approx(final["init_to_end"])
        assert final["density"] == pytest.approx(
            survivors / sum(x["total"] for x in outcome.layers)
        )
        assert final["density"] == pytest.approx(0.2, abs=1e-3)


def test_rescaling_restores_the_inner_scaling_and_its_absence_lets_it_shrink(outcomes):
    assert outcomes["random"].final["inner_scaling"] is None
    rescaled, free = outcomes["random+sign_in"], outcomes["random+mv"]
    # Algorithm 1 with p = 1 and T2 = 3: epochs 1 and 2 begin with it, 3 does not.
    assert [epoch["rescaled"] for epoch in rescaled.epochs] == [True, True, False]
    assert not any(epoch["rescaled"] for epoch in free.epochs)
    means = [epoch["inner_scaling"]["mean"] for epoch in free.epochs]
    assert 1 > means[0] > means[1] > means[2]
    assert rescaled.final["inner_scaling"]["mean"] > free.final["inner_scaling"]["mean"]
    # At epoch 1 there is nothing to restore yet: both have trained the same network.
    for key in ("train_loss", "test_accuracy", "flips"):
        assert rescaled.epochs[0][key] == pytest.approx(free.epochs[0][key], rel=1e-5)


def test_every_method_learns_and_has_a_sharpness(outcomes):
    for outcome in outcomes.values():
        assert outcome.epochs[-1]["train_loss"] < outcome.epochs[0]["train_loss"]
        assert outcome.final["sharpness"] == outcome.epochs[-1]["sharpness"] > 0
        assert "sharpness" not in outcome.epochs[0]


def test_the_frobenius_penalty_pulls_as_weight_decay_does(digits):
    free = train_sparse(one("random+mv", weight_decay=0.0, epochs=1, lr=0.0), digits)
    decayed = train_sparse(one("random+mv", weight_decay=0.5, epochs=1, lr=0.0), digits)
    # With a rate of zero nothing moves, whatever the penalty.
    assert decayed.epochs[0]["train_loss"] == free.epochs[0]["train_loss"]
    model = masked(config := one("random+mv", weight_decay=0.5), digits)
    theta = pol.dense_state_dict(model)
    pol.sign_in(model)
    product_penalty(config.frobenius_decay)(model).backward()
    conv = model.conv1.parametrizations.weight
    m, v, mask = conv.original0, conv.original1, pol.masks(model)["conv1.weight"]
    # d/dm of λ/2 (mv)² is λθ·v.
    expected = 0.5 * theta["conv1.weight"] * v.detach() * mask
    torch.testing.assert_close(m.grad * mask, expected, rtol=1e-4, atol=1e-6)
