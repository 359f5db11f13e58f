"""The training steps that are timed: a model, a batch, an optimizer, and one step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torchvision
from torch import nn
from torch.nn.functional import cross_entropy

from ..models.resnet import cifar_resnet
from .forms import Form


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


def wide() -> nn.Module:
    """1024-4096-1024-10, whose layers are as wide as those that are pruned in earnest."""
    return nn.Sequential(
        nn.Linear(1024, 4096), nn.ReLU(), nn.Linear(4096, 1024), nn.ReLU(), nn.Linear(1024, 10)
    )


def chain() -> nn.Module:
    """64 layers of almost nothing, whose step is Python and little else."""
    return nn.Sequential(nn.Flatten(), *[nn.Linear(4, 4, bias=False) for _ in range(CHAIN)])


CHAIN = 64
WORKLOADS = {
    "mlp": Workload("MLP, batch 128", mlp, (128, 1, 28, 28)),
    "vit_s": Workload("ViT-S, 65 tokens, batch 4", vit_small, (4, 3, 32, 32)),
    "resnet18": Workload(
        "ResNet-18, batch 32", lambda: torchvision.models.resnet18(num_classes=10), (32, 3, 64, 64)
    ),
    "resnet8": Workload("ResNet-8, 16x16, batch 128", lambda: cifar_resnet(8), (128, 3, 16, 16)),
    "resnet20": Workload("ResNet-20, batch 128", lambda: cifar_resnet(20), (128, 3, 32, 32)),
    "wide64": Workload("1024-4096-1024-10, batch 64", wide, (64, 1024)),
    "wide512": Workload("1024-4096-1024-10, batch 512", wide, (512, 1024)),
    "chain": Workload("64 layers of 4x4", chain, (1, 1, 2, 2), classes=4),
}
OPTIMIZERS: dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = {
    "SGD": lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9, weight_decay=1e-4),
    "fused SGD": lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9, weight_decay=1e-4, fused=True),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=1e-4),
    "fused AdamW": lambda p: torch.optim.AdamW(p, lr=1e-4, fused=True),
}


@dataclass(frozen=True)
class Training:
    """A model, its optimizer, and one step of them."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    step: Callable[[], None]


def step_of(
    workload: Workload,
    form: Form,
    device: torch.device,
    optimizer: str = "SGD",
    compiled: bool = False,
) -> Callable[[], None]:
    """Return one training step, always on the same batch."""
    return training(workload, form, device, optimizer, compiled).step


def training(
    workload: Workload,
    form: Form,
    device: torch.device,
    optimizer: str = "SGD",
    compiled: bool = False,
) -> Training:
    """Return a model in training, always on the same batch.

    Five steps are made at once, for what is done at the first steps only.
    """
    torch.manual_seed(0)
    model = form.attach(workload.build().to(device)).train()
    images = torch.randn(workload.batch, device=device)
    labels = torch.randint(workload.classes, workload.batch[:1], device=device)
    trainer = OPTIMIZERS[optimizer](list(model.parameters()))
    if form.follow is not None:
        form.follow(model, trainer)
    schedule = None if form.schedule is None else form.schedule(model, trainer)
    if compiled:
        torch._dynamo.reset()
    forward = torch.compile(model) if compiled else model

    def step() -> None:
        trainer.zero_grad()
        cross_entropy(forward(images), labels).backward()
        trainer.step()
        if schedule is not None:
            schedule.step()

    for _ in range(5):
        step()
    return Training(model, trainer, step)
