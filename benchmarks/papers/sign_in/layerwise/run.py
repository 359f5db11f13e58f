"""One mask of a fresh network: how many weights of every layer survive."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import polarity as pol

from ....models.networks import build_network
from .config import STEPS, LayerwiseConfig

# Images per pass of SNIP: the activations of a ResNet-50 take 100 MB each.
_CHUNK = 16


def measure(config: LayerwiseConfig) -> dict[str, Any]:
    """Return what the result of a mask holds."""
    layers = layer_counts(config)
    kept, total = (sum(layer[key] for layer in layers) for key in ("survivors", "total"))
    return {"layers": layers, "final": {"density": kept / total, "survivors": kept}}


def layer_counts(config: LayerwiseConfig) -> list[dict[str, Any]]:
    """Prune a fresh network and return `name`, `total` and `survivors` of every layer."""
    shape = (3, config.image_size, config.image_size)
    model = build_network(config.arch, shape, config.classes, generator=_draw(config, "init"))
    model.to(config.device)
    _prune(model, config)
    return [
        {"name": name, "total": mask.numel(), "survivors": int(mask.sum())}
        for name, mask in pol.masks(model).items()
    ]


def _prune(model: nn.Module, config: LayerwiseConfig) -> None:
    if config.mask in ("balanced", "erk", "uniform"):
        densities = getattr(pol.densities, config.mask)(model, config.density)
        draw = _draw(config, "mask")
        pol.prune(model, pol.scores.random, densities=densities, generator=draw)
        return
    if config.mask == "magnitude":
        pol.prune(model, pol.scores.magnitude, density=config.density)
        return
    if config.mask == "snip":
        scores = pol.scores.snip(model, cross_entropy, _noise(config))
    else:
        image = torch.ones(1, 3, config.image_size, config.image_size, device=config.device)
        steps = STEPS[config.mask]
        scores = pol.scores.synflow(model, image, density=config.density, steps=steps)
    pol.prune(model, scores, density=config.density)


def _noise(config: LayerwiseConfig) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Draw Gaussian images and labels in batches."""
    draw, count = _draw(config, "noise"), config.score_images or 0
    labels = torch.randint(config.classes, (count,), generator=draw)
    size = config.image_size
    return [
        (torch.randn(len(batch), 3, size, size, generator=draw), batch)
        for batch in torch.split(labels, _CHUNK)
    ]


def _draw(config: LayerwiseConfig, purpose: str) -> torch.Generator:
    return torch.Generator().manual_seed(config.stream(purpose))
