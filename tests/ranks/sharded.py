"""What is done to a model that ranks have divided, and to the same model in one process."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn

import polarity as pol
from tests.models import seeded

Tensors = dict[str, Tensor]
Case = Callable[[bool], Tensors]

# Older ones run FSDP2 on GPUs alone.
runs_fsdp = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 8)
needs_fsdp_on_cpu = pytest.mark.skipif(not runs_fsdp, reason="no FSDP2 on CPUs")


class Tied(nn.Module):
    """Two layers with one weight between an odd input and a narrow output."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.first, self.norm = nn.Linear(5, 7), nn.Linear(7, 7), nn.LayerNorm(7)
        self.again, self.out = nn.Linear(7, 7, bias=False), nn.Linear(7, 1)
        self.again.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.norm(self.first(torch.tanh(self.into(x))))
        return self.out(torch.tanh(self.again(hidden)))


def uneven(seed: int = 0) -> nn.Module:
    """Build a network whose rows no number of ranks divides: 7, 7 (tied) and 1."""
    return seeded(Tied(), seed).train()


def divided(model: nn.Module, sharded: bool) -> nn.Module:
    """Let FSDP2 divide a layer by itself and the rest of the model, or nothing."""
    if sharded:
        from torch.distributed.fsdp import fully_shard

        mesh = mesh_of_all()
        # Not an embedding that is tied: both its modules must be in one group.
        inner = getattr(model, "block", None) or next(iter(model.children()))
        fully_shard(inner, mesh=mesh)
        fully_shard(model, mesh=mesh)
    return model


def mesh_of_all() -> Any:
    """Return the mesh of one dimension that all ranks are in."""
    from torch.distributed.device_mesh import init_device_mesh

    return init_device_mesh("cpu", (distributed.get_world_size(),))


def whole(value: Any) -> Tensor:
    """Gather a tensor, which the tests may do."""
    return (value.full_tensor() if hasattr(value, "full_tensor") else value).detach().clone()


def state_of(model: nn.Module) -> Tensors:
    """Return what a model stores, whole, under the names of its ``state_dict``."""
    return {
        name: whole(value)
        for name, value in model.state_dict().items()
        if isinstance(value, Tensor) and value.dim()
    }


def batch(step: int, rows: int = 6) -> Tensor:
    return torch.randn(rows, 5, generator=torch.Generator().manual_seed(100 + step))


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 3, start: int = 0
) -> None:
    """Train on the same batches on every rank: the mean over ranks is then exact."""
    for step in range(start, start + steps):
        optimizer.zero_grad()
        (model(batch(step)) - 1).square().mean().backward()
        optimizer.step()


def enforced(model: nn.Module, optimizer: torch.optim.Optimizer, sharded: bool) -> Any:
    """Enforce masks in the step, as a sharded model needs; one process has them in forward."""
    return pol.enforce_in_step(model, optimizer) if sharded else None
