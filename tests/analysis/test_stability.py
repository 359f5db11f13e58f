"""Stability against the noise of SGD and of initialisation."""

import pytest
import torch
from torch import nn

import polarity as pol
from tests.analysis.xor import (
    HIDDEN,
    SWAP,
    error_on,
    mlp,
    permuted,
    snapshot,
    solved,
    unchanged,
    xor_data,
)


def drift(seed_counts: bool):
    """Return a ``train`` that moves every weight by something its seed decides, or nothing."""

    def train(network: nn.Module, seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=draw) * seed_counts)

    return train


def test_stability_against_sgd_noise_starts_both_runs_from_the_same_weights():
    model = solved(batch_norm=False)
    before = snapshot(model)
    x, y = xor_data()
    same = pol.sgd_noise_stability(model, drift(False), error_on(x, y))
    assert same.excess == (0.0,) * 11
    noisy = pol.sgd_noise_stability(model, drift(True), error_on(x, y), seeds=(2, 3))
    assert len(set(noisy.curve)) > 2
    assert unchanged(model.state_dict(), before)


def test_stability_against_initialisation_builds_two_networks():
    x, y = xor_data()
    model = solved(batch_norm=False)
    orders = {2: torch.arange(HIDDEN), 3: SWAP}
    seen = []

    def train(network: nn.Module, seed: int) -> nn.Module:
        seen.append(seed)
        return network

    path = pol.init_noise_stability(
        lambda seed: permuted(model, orders[seed]), train, error_on(x, y), seeds=(2, 3)
    )
    assert seen == [2, 3]
    assert path.endpoints == (0.0, 0.0)
    assert path.barrier > 0.3


def test_stability_needs_two_seeds_and_two_networks():
    model = mlp(False)
    with pytest.raises(ValueError, match="seeds="):
        pol.sgd_noise_stability(model, drift(True), lambda network: 0.0, seeds=(1, 1))
    with pytest.raises(ValueError, match="same network for both seeds"):
        pol.init_noise_stability(lambda seed: model, drift(True), lambda network: 0.0)
