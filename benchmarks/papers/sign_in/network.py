"""The network that a run of the paper's experiments trains: fresh, and ready for its optimizer."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import nn

import polarity as pol

from ...harness.data import Dataset
from ...models.networks import build_network
from .config import Purpose


class NetworkSettings(Protocol):
    """What the settings of a run say of its network."""

    @property
    def arch(self) -> str: ...
    @property
    def width(self) -> int | None: ...
    @property
    def stem_stride(self) -> int | None: ...
    @property
    def channels_last(self) -> bool: ...
    @property
    def parametrized(self) -> bool: ...
    @property
    def beta(self) -> float | None: ...
    def stream(self, purpose: Purpose) -> int: ...


def fresh_network(config: NetworkSettings, data: Dataset) -> nn.Module:
    """Build a network with the initialisation of its seed, on the device of the data."""
    return build_network(
        config.arch,
        data.shape,
        data.classes,
        width=config.width,
        stem_stride=config.stem_stride,
        generator=torch.Generator().manual_seed(config.stream("init")),
    ).to(data.train_y.device)


def converted(model: nn.Module, config: NetworkSettings) -> nn.Module:
    """Bring a masked network into its memory order, and make its weights products if asked for."""
    if config.channels_last:
        # Before Sign-In, so that factors and optimizer state have the layout too.
        model = model.to(memory_format=torch.channels_last)
    if config.parametrized:
        pol.sign_in(model, beta=config.beta or 1.0)
    return model
