"""The network whose weights become products, and what an optimizer of it holds."""

import torch
from torch import nn

from tests.models import seeded

INPUTS = (torch.randn(8, 6, generator=torch.Generator().manual_seed(3)),)


def mlp(seed: int = 0) -> nn.Sequential:
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4))
    return seeded(model, seed)


def held(optimizer: torch.optim.Optimizer) -> list[int]:
    return [id(each) for group in optimizer.param_groups for each in group["params"]]
