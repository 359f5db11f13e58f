"""Seeded initialisation: every random number of a fresh network comes from one generator."""

from __future__ import annotations

from typing import get_args

import torch
from torch import nn

from ..harness.names import Init

INITS: tuple[str, ...] = get_args(Init)


def initialise(model: nn.Module, init: str, generator: torch.Generator) -> None:
    """Draw the linear and convolutional weights of a model anew, in the order of its modules.

    Args:
        model: a model on the CPU; normalisation layers keep their ones and zeros.
        init: `glorot_normal` or `kaiming_normal`, both with zero biases, or `torch` for PyTorch's
            own default.
        generator: source of all randomness; the global one is left as it was.
    """
    if init not in INITS:
        raise ValueError(f"unknown init {init!r}; known are {', '.join(INITS)}")
    layers = [module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    if init == "torch":
        _torch_defaults(layers, generator)
        return
    for layer in layers:
        if init == "glorot_normal":
            nn.init.xavier_normal_(layer.weight, generator=generator)
        else:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def _torch_defaults(layers: list[nn.Linear | nn.Conv2d], generator: torch.Generator) -> None:
    # reset_parameters takes no generator, so the global one is lent a seed and then put back.
    seed = int(torch.randint(2**62, (), generator=generator))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in layers:
            layer.reset_parameters()
