"""One layer with a mask, whose row can be worked out by hand."""

from typing import Any

import torch
from torch import Tensor, nn

import polarity as pol
from polarity.analysis import WeightSummary

VALUES = torch.tensor([[1.0, -3.0, 0.5, 2.0], [-1.0, 4.0, 0.0, 3.0]])
MASK = torch.tensor([[1, 1, 0, 1], [0, 1, 1, 1]]) > 0


def layer(values: Tensor = VALUES) -> nn.Linear:
    made = nn.Linear(values.shape[1], values.shape[0], bias=False)
    with torch.no_grad():
        made.weight.copy_(values)
    return made


def only(model: nn.Module, *args: Any, **options: Any) -> WeightSummary:
    (row,) = pol.summary(model, *args, **options)
    return row
