"""Contestants and the pairs of them: what each begins with, and the paths between two."""

from dataclasses import replace

import pytest
import torch

import polarity as pol
from benchmarks.papers.winning_sign.contestants import CONTESTANTS, PAIRS
from benchmarks.papers.winning_sign.networks import masked_network, norm_parameters
from benchmarks.papers.winning_sign.starts import start
from tests.benchmarks.papers.winning_sign.tiny import config, shake

# Contestants ------------------------------------------------------------------------------------


@pytest.fixture
def found(network):
    """A pruned network whose norms have moved, some of them below zero."""
    shake(network, 1)
    pol.imp_prune(network, density=0.3)
    with torch.no_grad():
        network.bn1.weight[0] = -0.5
    return network


@pytest.fixture
def fresh():
    return masked_network("small_resnet", (1, 8, 8), 10, torch.Generator().manual_seed(9))


def test_a_signed_start_has_the_tickets_signs_and_the_fresh_magnitudes(found, fresh):
    magnitudes = {name: v.abs() for name, v in pol.RewindPoint.capture(fresh).weights.items()}
    begun = start("init+lrr_sign", found, fresh)
    theirs, masks = pol.RewindPoint.capture(found).weights, pol.masks(found)
    now = pol.RewindPoint.capture(begun).weights
    for name, mask in masks.items():
        expected = torch.sign(theirs[name]) * magnitudes[name] * mask
        assert torch.equal(now[name], expected), name
        assert torch.equal(pol.masks(begun)[name], mask)
    for name in norm_parameters(begun):
        assert torch.equal(now[name].abs(), magnitudes[name])  # norms and the rest stay fresh


def test_a_masked_start_keeps_its_own_signs(found, fresh):
    before = pol.RewindPoint.capture(fresh).weights
    now = pol.RewindPoint.capture(start("init+lrr_mask", found, fresh)).weights
    for name, mask in pol.masks(found).items():
        assert torch.equal(now[name], before[name] * mask), name


def test_norms_come_along_in_figure_2_and_their_signs_in_appendix_a(found, fresh):
    theirs = {name: found.get_parameter(name).detach() for name in norm_parameters(found)}
    kept = start("init+lrr_sign+norms", found, fresh)
    assert all(torch.equal(kept.get_parameter(name), value) for name, value in theirs.items())
    signed = start("init+lrr_sign+norm_signs", found, fresh)
    for name, value in theirs.items():
        size = 0.1 if name.endswith("bias") else 1.0
        assert torch.equal(signed.get_parameter(name), size * torch.sign(value)), name
    assert float(signed.bn1.weight[0].detach()) == -1.0
    unsigned = start("init+lrr_sign+norm_bias", found, fresh)
    assert torch.equal(unsigned.bn1.bias, torch.full((16,), 0.1))
    assert torch.equal(unsigned.bn1.weight, torch.ones(16))


def test_the_official_ticket_lends_the_classifiers_signs_too(found, fresh):
    plain = fresh.fc.weight.detach().clone()
    assert torch.equal(start("init+lrr_sign", found, fresh).fc.weight, plain)
    official = start("init+lrr_sign", found, fresh, official=True)
    expected = plain.abs() * torch.sign(found.fc.weight)
    assert torch.equal(official.fc.weight, expected)


def test_a_final_training_leaves_every_pruned_weight_at_zero(pipeline):
    task = config().task("final", "init+aws_sign", 3)
    result = pipeline.result(task)
    trained = pipeline.trained(task)
    ticket = pipeline.found(config(), "aws", 3)
    for name, mask in ticket.masks.items():
        assert torch.equal(trained.masks[name], mask)
        assert not trained.weights[name][~mask].any()
    assert 0 < result["signs_kept"] <= 1


def test_contestants_of_one_seed_share_initialisation_and_order_and_differ_over_seeds():
    one, two = config(), replace(config(), seed=1)
    assert one.stream("fresh") == one.task("final", "lrr", 3).stream("fresh")
    streams = [c.stream(s) for c in (one, two) for s in ("init", "fresh", "other", "order0")]
    assert len(set(streams)) == len(streams)


# Barriers ---------------------------------------------------------------------------------------


def test_ends_of_a_path_are_the_trained_networks(pipeline):
    # Without batch norm nothing is computed anew, so the ends are exactly those networks.
    base = config()
    path = pipeline.result(base.task("barrier", "noise:init+lrr_sign", 3))
    ends = [pipeline.result(base.task("final", "init+lrr_sign", 3, order)) for order in (0, 1)]
    for error, end in zip((path["errors"][0], path["errors"][-1]), ends, strict=True):
        assert error == pytest.approx(100 - end["test_accuracy"])
    mean = sum(100 - end["test_accuracy"] for end in ends) / 2
    assert path["barrier"] == pytest.approx(max(path["errors"]) - mean)
    assert len(path["alphas"]) == 11
    first, second = (pipeline.trained(base.task("final", "init+lrr_sign", 3, o)) for o in (0, 1))
    assert not torch.equal(first.weights["embed.weight"], second.weights["embed.weight"])


def test_every_pair_names_contestants_that_exist():
    for pair, ends in PAIRS.items():
        for what, name, _ in ends:
            assert name in CONTESTANTS, pair
            assert what in ("final", "found", "initial-norms")
    # A solution is the one that the ticket came from.
    assert PAIRS["solution:init+aws_sign"][0] == ("final", "aws", 0)
    assert PAIRS["solution:init+lrr_sign+norms"][0] == ("final", "lrr", 0)
    assert [end[1] for end in PAIRS["two-inits:aws_sign"]] == ["init+aws_sign", "other+aws_sign"]
    assert [end[2] for end in PAIRS["two-inits:aws_sign"]] == [0, 1]


def test_initial_norms_replace_norms_alone(pipeline):
    base = config(arch="small_resnet")
    state = pipeline.found(base, "lrr", 3).weights
    replaced = pipeline._end(base.task("barrier", "norms:lrr", 3), "initial-norms", "lrr", 0)
    for name, value in replaced.items():
        if "bn" in name and name.endswith(("weight", "bias")):
            assert torch.equal(value, torch.full_like(value, float(name.endswith("weight"))))
        elif "downsample.1" not in name:
            assert torch.equal(value, state[name]), name
