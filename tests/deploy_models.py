"""Pruned models to compress, and ways of deciding that need no clock."""

import torch
from torch import nn

from polarity import deploy


def sparse_wins(dense, sparse):
    """Measure nothing: the sparse product is twice as fast."""
    dense(), sparse()
    return 2.0, 1.0


def dense_wins(dense, sparse):
    return 1.0, 2.0


def thinned(model: nn.Module, density: float = 0.2, seed: int = 0) -> nn.Module:
    """Zero a fixed number of entries of every matrix of a model, in evaluation mode."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw))
            if parameter.dim() == 2:
                order = torch.randperm(parameter.numel(), generator=draw)
                parameter.view(-1)[order[round(density * parameter.numel()) :]] = 0
    return model.eval()


def mlp(density: float = 0.2) -> nn.Module:
    return thinned(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), density)


def x_of(*shape: int, seed: int = 5, dtype=torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def swapped_modules(model: nn.Module) -> list[str]:
    return [n for n, each in model.named_modules() if isinstance(each, deploy.SparseLinear)]


def reasons(report: deploy.CompressReport) -> dict[str, str]:
    return {layer.name: layer.reason for layer in report}
