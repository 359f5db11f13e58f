"""Training by a recipe on resident tensors: per-step schedule, augmentation, a record per epoch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy, pad

from .data import Dataset
from .execution import forward_of, memory_order, repeatable, without_denormals
from .graphs import CapturedStep
from .recipes import Recipe
from .results import finite
from .schedules import make_schedule
from .training import evaluate, make_optimizer

Record = dict[str, Any]
PADDING = 4


@without_denormals()
@repeatable()
def train(
    model: nn.Module,
    data: Dataset,
    recipe: Recipe,
    *,
    generator: torch.Generator,
    optimizer: torch.optim.Optimizer | None = None,
    before_epoch: Callable[[int], None] | None = None,
    after_step: Callable[[], object] | None = None,
    on_epoch: Callable[[Record], None] | None = None,
    penalty: Callable[[nn.Module], torch.Tensor] | None = None,
    test_every: int = 1,
    padding: int = PADDING,
    bf16: bool = False,
    channels_last: bool = False,
    compile: bool | str = False,
    graphs: bool = False,
) -> list[Record]:
    """Train a model in place and return one record per epoch.

    Args:
        model: on the device of the data; left in training mode.
        data: resident tensors; `train_*` is trained on, `test_*` is tested on.
        recipe: how to train; the last batch of an epoch may be smaller.
        generator: CPU generator of the order of the images and of their augmentation. The same
            seed gives the same batches on every device.
        optimizer: of the model's parameters, at the recipe's peak rate; made from the recipe by
            default.
        before_epoch: called with the number of each epoch, from 1, before it is trained.
        after_step: called after every step of the optimizer, as schedules of masks ask for.
        on_epoch: called with the record of each finished epoch.
        penalty: added to the loss that is differentiated, but not to the one that is recorded.
        test_every: test after every this many epochs, and after the last; 0 only after the last.
        padding: largest shift of an augmented image, in pixels.
        bf16: forward passes in bfloat16, by autocast on the model's device.
        channels_last: convolutions and images in NHWC memory order.
        compile: as for `execution.forward_of`: off, on (with CUDA graphs on a GPU), or a backend.
        graphs: on a GPU, replay the step of the model and the optimizer as one CUDA graph. Nothing
            but `after_step` may do other things in different steps. The optimizer's learning rates
            become tensors, which the schedule changes.

    Returns:
        Records with `epoch` (from 1), `lr` (of its last step), `train_loss` and `train_accuracy`
        (means over the epoch's batches as they were trained on), and where it was tested
        `test_loss`, `test_accuracy`.
    """
    device, count = data.train_y.device, len(data.train_y)
    images, layout = data.train_x, memory_order(model, channels_last)
    forward = forward_of(model, compile)
    optimizer = optimizer or recipe_optimizer(recipe, model, graphs=graphs)
    peak = float(optimizer.param_groups[0]["lr"])
    if graphs:
        for group in optimizer.param_groups:
            group["lr"] = torch.tensor(group["lr"], device=device)
    steps = recipe.epochs * math.ceil(count / recipe.batch_size)
    factor = make_schedule(recipe.schedule, steps, end=recipe.final_lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    precision = torch.autocast(device.type, torch.bfloat16, enabled=bf16)
    loss_sum = torch.zeros((), device=device)
    correct = torch.zeros((), dtype=torch.int64, device=device)

    def step(batch: torch.Tensor, target: torch.Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        with precision:
            logits = forward(batch.contiguous(memory_format=layout))
            loss = cross_entropy(logits.float(), target, label_smoothing=recipe.label_smoothing)
        objective = loss if penalty is None else loss + penalty(model)
        objective.backward()
        optimizer.step()
        loss_sum.add_(loss.detach(), alpha=len(target))
        correct.add_((logits.detach().argmax(dim=1) == target).sum())

    perform = CapturedStep(step) if graphs else step
    records = []
    for epoch in range(1, recipe.epochs + 1):
        if before_epoch is not None:
            before_epoch(epoch)
        model.train()
        loss_sum.zero_()
        correct.zero_()
        lr = 0.0
        order = torch.randperm(count, generator=generator).to(device)
        for index in torch.split(order, recipe.batch_size):
            batch, target = images.index_select(0, index), data.train_y.index_select(0, index)
            if recipe.augment:
                batch = crop_and_flip(batch, generator, padding)
            perform(batch, target)
            if after_step is not None:
                after_step()
            lr = peak * factor(schedule.last_epoch)
            schedule.step()
        record: Record = {
            "epoch": epoch,
            "lr": lr,
            "train_loss": finite(float(loss_sum) / count),
            "train_accuracy": 100.0 * int(correct) / count,
        }
        if epoch == recipe.epochs or (test_every and epoch % test_every == 0):
            with precision:
                test_loss, test_accuracy = evaluate(model, data.test_x, data.test_y)
            record |= {"test_loss": finite(test_loss), "test_accuracy": test_accuracy}
        records.append(record)
        if on_epoch is not None:
            on_epoch(record)
    return records


def recipe_optimizer(
    recipe: Recipe, model: nn.Module | list[dict[str, Any]], *, graphs: bool = False
) -> torch.optim.Optimizer:
    """Make the recipe's optimizer, fused, over every trainable parameter, or groups of them."""
    return make_optimizer(
        recipe.optimizer,
        model,
        recipe.lr,
        recipe.momentum,
        recipe.weight_decay,
        graphs=graphs,
    )


def crop_and_flip(
    images: torch.Tensor, generator: torch.Generator, padding: int = PADDING
) -> torch.Tensor:
    """Shift each image by up to `padding` pixels either way and mirror half of them.

    The border that is shifted in is zero, the mean colour of normalised images.

    Args:
        images: (N, C, H, W), any floating dtype and device.
        generator: CPU generator; draws 3N numbers.
        padding: largest shift.

    Returns:
        Images of the same shape and dtype.
    """
    count, _, height, width = images.shape
    shift = torch.randint(2 * padding + 1, (2, count), generator=generator)
    mirror = torch.randint(2, (count,), generator=generator).bool()
    down, right = torch.arange(height), torch.arange(width)
    columns = torch.where(mirror[:, None], right.flip(0), right) + shift[1, :, None]
    rows = down + shift[0, :, None]
    # Indices are made on the CPU, where they are drawn, and copied in one small transfer.
    device = images.device
    rows, columns = rows.to(device), columns.to(device)
    padded = pad(images, (padding,) * 4)
    each = torch.arange(count, device=device)
    # Advanced indices on both sides of the slice put the channels last.
    taken = padded[each[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return taken.permute(0, 3, 1, 2)
