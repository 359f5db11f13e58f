"""A recipe that runs in a second on digits, and what stands for its training."""

from dataclasses import replace

import torch

from benchmarks.harness.command_line import RunOptions
from benchmarks.harness.recipes import Recipe
from benchmarks.papers.winning_sign.config import AwsConfig
from benchmarks.papers.winning_sign.recipes import AwsRecipe

CPU = RunOptions(device="cpu")
FINAL = Recipe(epochs=1, batch_size=60, lr=0.05, weight_decay=5e-4, schedule="cosine")
TINY = AwsRecipe("digits", "mixer", FINAL, warmup_epochs=1, round_epochs=1, rounds=3)


def config(**changes):
    recipe = {key: changes.pop(key) for key in list(changes) if hasattr(TINY, key)}
    return AwsConfig(replace(TINY, **recipe), seed=0, recalibrate=50, score_lr=1.0, **changes)


def shake(model, epochs, *, seed=0):
    """Stands for training: everything moves."""
    generator = torch.Generator().manual_seed(seed + epochs)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
