"""The training steps that are timed: a model, a batch, and one step of SGD."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from torch import nn
from torch.nn.functional import cross_entropy

from benchmarks.models.resnet import cifar_resnet


@dataclass(frozen=True)
class Workload:
    """A model of the field and the batch it is trained with."""

    name: str
    build: Callable[[], nn.Module]
    batch: tuple[int, ...]
    classes: int = 10


def mlp() -> nn.Module:
    """784-300-100-10, the net of the MNIST experiments."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(),
        nn.Linear(100, 10),
    )  # fmt: skip


def vit_small() -> nn.Module:
    """ViT-S with patches of 4 on 32x32 images: 64 tokens and the class token."""
    return torchvision.models.VisionTransformer(
        image_size=32, patch_size=4, num_layers=12, num_heads=6, hidden_dim=384, mlp_dim=1536,
        num_classes=10,
    )  # fmt: skip


WORKLOADS = {
    "mlp": Workload("MLP, batch 128", mlp, (128, 1, 28, 28)),
    "vit_s": Workload("ViT-S, 65 tokens, batch 4", vit_small, (4, 3, 32, 32)),
    "resnet18": Workload(
        "ResNet-18, batch 32", lambda: torchvision.models.resnet18(num_classes=10), (32, 3, 64, 64)
    ),
    "resnet20": Workload("ResNet-20, batch 128", lambda: cifar_resnet(20), (128, 3, 32, 32)),
}


def step_of(
    workload: Workload,
    attach: Callable[[nn.Module], nn.Module],
    device: torch.device,
    fused: bool = False,
) -> Callable[[], None]:
    """One step of SGD with momentum and weight decay, always on the same batch.

    Three steps are made at once, for what is done at the first steps only.
    """
    torch.manual_seed(0)
    model = attach(workload.build().to(device)).train()
    images = torch.randn(workload.batch, device=device)
    labels = torch.randint(workload.classes, workload.batch[:1], device=device)
    settings: dict[str, Any] = {"lr": 1e-3, "momentum": 0.9, "weight_decay": 1e-4}
    optimizer = torch.optim.SGD(model.parameters(), **settings, fused=fused or None)

    def step() -> None:
        optimizer.zero_grad()
        cross_entropy(model(images), labels).backward()
        optimizer.step()

    for _ in range(3):
        step()
    return step
