"""Training by a recipe on images that are read from files; `recipe_training` is for tensors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from .execution import forward_of, memory_order, without_denormals
from .image_folders import ImageFolders
from .recipe_training import recipe_optimizer
from .recipes import Recipe
from .results import finite
from .schedules import make_schedule

Record = dict[str, Any]
# Images per batch of a test.
_TESTED = 256


@without_denormals()
def train(
    model: nn.Module,
    images: ImageFolders,
    recipe: Recipe,
    *,
    generator: torch.Generator,
    optimizer: torch.optim.Optimizer | None = None,
    penalty: Callable[[nn.Module], torch.Tensor] | None = None,
    bf16: bool = False,
    channels_last: bool = False,
    compile: bool | str = False,
) -> list[Record]:
    """Train a model in place and return one record per epoch; it is tested after the last.

    Args:
        model: on the device of the images; left in training mode.
        images: what is trained and tested on.
        recipe: how to train; `augment` cuts and flips as the data set has it.
        generator: CPU generator of the order of the images, and of the seeds of their crops.
        optimizer: as for `recipe_training.train`.
        penalty: as for `recipe_training.train`.
        bf16: as for `recipe_training.train`.
        channels_last: as for `recipe_training.train`.
        compile: as for `recipe_training.train`.

    Returns:
        Records as those of `recipe_training.train`.
    """
    count = len(images.train_index)
    layout, forward = memory_order(model, channels_last), forward_of(model, compile)
    optimizer = optimizer or recipe_optimizer(recipe, model)
    steps = recipe.epochs * math.ceil(count / recipe.batch_size)
    factor = make_schedule(recipe.schedule, steps, end=recipe.final_lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    precision = torch.autocast(torch.device(images.device).type, torch.bfloat16, enabled=bf16)
    records = []
    for epoch in range(1, recipe.epochs + 1):
        model.train()
        sums = torch.zeros(2, dtype=torch.float64, device=images.device)
        lr = 0.0
        order = torch.randperm(count, generator=generator)
        seed = int(torch.randint(2**62, (), generator=generator))
        for batch, target in images.training_batches(
            order, recipe.batch_size, seed=seed, augment=recipe.augment
        ):
            optimizer.zero_grad(set_to_none=True)
            with precision:
                logits = forward(batch.contiguous(memory_format=layout))
                loss = cross_entropy(logits.float(), target, label_smoothing=recipe.label_smoothing)
            (loss if penalty is None else loss + penalty(model)).backward()
            optimizer.step()
            lr = optimizer.param_groups[0]["lr"]
            schedule.step()
            hits = (logits.detach().argmax(dim=1) == target).sum()
            sums += torch.stack([loss.detach().double() * len(target), hits.double()])
        records.append(
            {
                "epoch": epoch,
                "lr": lr,
                "train_loss": finite(float(sums[0]) / count),
                "train_accuracy": 100.0 * float(sums[1]) / count,
            }
        )
    if records:
        test_loss, test_accuracy = evaluate(model, images, bf16=bf16)
        records[-1] |= {"test_loss": finite(test_loss), "test_accuracy": test_accuracy}
    return records


@torch.no_grad()
def evaluate(model: nn.Module, images: ImageFolders, *, bf16: bool = False) -> tuple[float, float]:
    """Compute mean loss and accuracy in percent on the test images, in evaluation mode.

    The model's mode is restored afterwards.
    """
    was_training = model.training
    model.eval()
    sums = torch.zeros(2, dtype=torch.float64, device=images.device)
    precision = torch.autocast(torch.device(images.device).type, torch.bfloat16, enabled=bf16)
    for batch, target in images.test_batches(_TESTED):
        with precision:
            logits = model(batch)
        loss = cross_entropy(logits.float(), target, reduction="sum")
        hits = (logits.argmax(dim=1) == target).sum()
        sums += torch.stack([loss.double(), hits.double()])
    model.train(was_training)
    count = len(images.test_index)
    return float(sums[0]) / count, 100.0 * float(sums[1]) / count
