"""Runs on digits that take a second, and the network that they begin with."""

from dataclasses import replace

import torch

from benchmarks.harness.command_line import RunOptions
from benchmarks.models.networks import build_network
from benchmarks.papers.sign_in.command import SignInOptions, configurations
from benchmarks.papers.sign_in.masks import prune_at_initialisation

CPU = RunOptions(device="cpu")
SMALL = SignInOptions(
    dataset="digits",
    width=8,
    epochs=3,
    batch_size=64,
    lr=0.1,
    densities=(0.2,),
    seeds=(0,),
    train_size=300,
    test_size=100,
    sharpness_images=0,
    rescale_until=3,
    where=CPU,
)


def one(method, **changes):
    (config,) = configurations(replace(SMALL, methods=(method,), **changes))
    return config


def masked(config, data):
    generator = torch.Generator().manual_seed(config.stream("init"))
    model = build_network(config.arch, data.shape, 10, width=8, generator=generator)
    prune_at_initialisation(model, data, config)
    return model
