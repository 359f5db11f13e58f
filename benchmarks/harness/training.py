"""The training loop of the sign experiments, in which the arithmetic takes nearly all the time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from .data import Dataset
from .execution import forward_of, memory_order, repeatable, without_denormals
from .graphs import CapturedStep


def make_optimizer(
    name: str,
    model: nn.Module | list[dict[str, Any]],
    lr: float,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    *,
    graphs: bool = False,
) -> torch.optim.Optimizer:
    """Make a fused optimizer over every trainable parameter.

    Args:
        name: `adam`, `adamw` or `sgd`.
        model: whose parameters are trained, or groups of parameters as `torch.optim` has them.
        lr: learning rate.
        momentum: for `sgd`; Adam keeps its own betas.
        weight_decay: L2 penalty, or decoupled decay for `adamw`.
        graphs: its steps may be captured as CUDA graphs.

    Returns:
        The optimizer.
    """
    parameters: list[Any] = (
        model if isinstance(model, list) else [p for p in model.parameters() if p.requires_grad]
    )
    # One call updates everything; every device that the benchmarks offer has fused kernels.
    shared: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay, "fused": True}
    adam = {**shared, "capturable": graphs}
    if name == "adam":
        return torch.optim.Adam(parameters, **adam)
    if name == "adamw":
        return torch.optim.AdamW(parameters, **adam)
    if name == "sgd":
        return torch.optim.SGD(parameters, momentum=momentum, **shared)
    raise ValueError(f"unknown optimizer {name!r}; known are adam, adamw and sgd")


@without_denormals()
@repeatable()
def train_epochs(
    model: nn.Module,
    data: Dataset,
    optimizer: torch.optim.Optimizer,
    epochs: int,
    batch_size: int,
    generator: torch.Generator,
    *,
    bf16: bool = False,
    channels_last: bool = False,
    compile: bool | str = False,
    graphs: bool = False,
    on_epoch: Callable[[int], None] | None = None,
) -> float:
    """Train on `data.train_x` and return the mean loss of the last epoch.

    Args:
        model: trained in place and left in training mode.
        data: resident tensors on the model's device.
        optimizer: steps once per batch.
        epochs: passes over the training images.
        batch_size: images per step; the last batch of an epoch may be smaller.
        generator: CPU generator of the order of the images, one permutation per epoch.
        bf16: forward passes in bfloat16, by autocast on the model's device.
        channels_last: convolutions and images in NHWC memory order.
        compile: as for `execution.forward_of`: off, on (with CUDA graphs on a GPU), or a backend.
        graphs: on a GPU, replay the whole step as one CUDA graph; the optimizer must be made for it
            (`make_optimizer`).
        on_epoch: called with the number of finished epochs.

    Returns:
        Mean training loss over the images of the last epoch, NaN for no epochs.
    """
    images, labels = data.train_x, data.train_y
    count, device = len(labels), labels.device
    loss_sum = torch.full((), float("nan"), device=device)
    layout = memory_order(model, channels_last)
    forward = forward_of(model, compile)
    precision = torch.autocast(device.type, torch.bfloat16, enabled=bf16)

    def step(index: torch.Tensor) -> None:
        batch = images.index_select(0, index).contiguous(memory_format=layout)
        target = labels.index_select(0, index)
        optimizer.zero_grad(set_to_none=True)
        with precision:
            logits = forward(batch)
        loss = cross_entropy(logits.float(), target)
        loss.backward()
        optimizer.step()
        loss_sum.add_(loss.detach(), alpha=len(index))

    perform = CapturedStep(step) if graphs else step
    model.train()
    for epoch in range(epochs):
        loss_sum.zero_()
        order = torch.randperm(count, generator=generator).to(device)
        for index in torch.split(order, batch_size):
            perform(index)
        if on_epoch is not None:
            on_epoch(epoch + 1)
    return float(loss_sum) / count


@torch.no_grad()
def evaluate(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, *, chunk: int = 2000, bf16: bool = False
) -> tuple[float, float]:
    """Compute mean loss and accuracy in percent, in evaluation mode; NaN for no images.

    The model's mode is restored afterwards.
    """
    if not len(y):
        return float("nan"), float("nan")
    was_training = model.training
    model.eval()
    loss_sum = torch.zeros((), dtype=torch.float64, device=y.device)
    correct = torch.zeros((), dtype=torch.int64, device=y.device)
    precision = torch.autocast(y.device.type, torch.bfloat16, enabled=bf16)
    for images, target in zip(torch.split(x, chunk), torch.split(y, chunk), strict=True):
        with precision:
            logits = model(images)
        loss_sum += cross_entropy(logits.float(), target, reduction="sum")
        correct += (logits.argmax(dim=1) == target).sum()
    model.train(was_training)
    return float(loss_sum) / len(y), 100.0 * int(correct) / len(y)
