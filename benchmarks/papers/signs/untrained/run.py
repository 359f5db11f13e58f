"""A fresh network, pruned as in round 1: its smallest survivors, and what thresholds change."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

import polarity as pol

from ....models import build_model
from ..thresholds import BY_TRAINED_WEIGHTS
from ..zero_crossing import PHI
from .config import SHAPES, UntrainedConfig


def measure(config: UntrainedConfig) -> dict[str, Any]:
    """Prune a fresh network and return its layers, and what each threshold of the paper changes.

    `changed` counts the weights that differ from those at φ = 0 after `mask0` and `standard` gave
    the survivors their signs, by strategy and φ.
    """
    shape, classes = SHAPES[config.dataset]
    draw = torch.Generator().manual_seed(config.stream("init"))
    model = build_model(config.arch, shape, classes, config.init, draw)
    model = pol.mask_weights(model.to(config.device))
    start = pol.RewindPoint.capture(model)
    report = pol.imp_prune(model, density=config.prune_base, scope=config.prune_scope)
    return {
        "layers": _layers(model, start),
        "changed": {strategy: _changed(model, start, strategy) for strategy in BY_TRAINED_WEIGHTS},
        "final": {"density": report.density, "survivors": report.survivors},
    }


def _layers(model: nn.Module, start: pol.RewindPoint) -> list[dict[str, Any]]:
    """Return the smallest survivor and the largest pruned magnitude of every layer."""
    layers = []
    for name, mask in pol.masks(model).items():
        sizes = start.weights[name].abs()
        layers.append(
            {
                "name": name,
                "total": mask.numel(),
                "survivors": int(mask.sum()),
                "smallest": float(sizes[mask].min()) if mask.any() else None,
                "largest_pruned": None if mask.all() else float(sizes[~mask].max()),
            }
        )
    return layers


def _changed(model: nn.Module, start: pol.RewindPoint, strategy: str) -> dict[str, int]:
    """Count the weights of the signed network that a threshold changes."""
    zero = _signed(model, start, strategy, 0.0)
    return {
        f"{phi:g}": sum(
            int((values != zero[name]).sum())
            for name, values in _signed(model, start, strategy, phi).items()
        )
        for phi in PHI
        if phi
    }


def _signed(
    model: nn.Module, start: pol.RewindPoint, strategy: Any, phi: float
) -> dict[str, torch.Tensor]:
    twin = copy.deepcopy(model)
    pol.reinit_signs(twin, strategy, pol.Phi(phi), init=start, trained=start)
    return pol.RewindPoint.capture(twin).weights
