"""The masks of Tables 3 and 9: random with chosen densities, or by a score of the fresh network."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import polarity as pol

from ...harness.data import Dataset
from .config import Purpose

_DENSITIES = {
    "balanced": pol.densities.balanced,
    "erk": pol.densities.erk,
    "uniform": pol.densities.uniform,
}


class MaskSettings(Protocol):
    """What a run's settings say of its mask."""

    @property
    def mask(self) -> str: ...
    @property
    def density(self) -> float: ...
    @property
    def densities(self) -> str | None: ...
    @property
    def score_images(self) -> int | None: ...
    def stream(self, purpose: Purpose) -> int: ...


def prune_at_initialisation(model: nn.Module, data: Dataset, config: MaskSettings) -> None:
    """Mask every convolution and linear weight, the classifier's too, at the run's density.

    A random mask draws each layer's survivors at the densities that `config.densities` computes;
    the scores rank all weights together.

    Args:
        model: a fresh model on the device of the data; masked in place.
        data: where snip and grasp take their images from, the first of a seeded permutation.
        config: settings of the run.
    """
    generator = torch.Generator().manual_seed(config.stream("mask"))
    if config.mask == "random":
        densities = _DENSITIES[config.densities or "balanced"](model, config.density)
        pol.prune(model, pol.scores.random, densities=densities, generator=generator)
        return
    if config.mask == "synflow":
        scores = pol.scores.synflow(model, data.train_x[:1], density=config.density)
    else:
        count = config.score_images or len(data.train_y)
        chosen = torch.randperm(len(data.train_y), generator=generator)[:count]
        index = chosen.to(data.train_y.device)
        batches = [(data.train_x[index], data.train_y[index])]
        score = {"snip": pol.scores.snip, "grasp": pol.scores.grasp}[config.mask]
        scores = score(model, cross_entropy, batches)
    pol.prune(model, scores, density=config.density)
