"""The network that is rewound to points that fit it, and to such that do not."""

import torch
from torch import nn

from tests.models import noise, seeded

INPUTS = noise(8, 6)(torch.Generator().manual_seed(2))


def net(seed: int = 0) -> nn.Sequential:
    return seeded(
        nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3)), seed
    ).train()
