"""The ImageNet recipes of Sign-In under torchrun and DDP: random masks, AC/DC, RigL and STR.

    torchrun --nproc-per-node 8 -m benchmarks.papers.sign_in.imagenet imagenet-resnet50
        --method acdc --data /data/imagenet --density 0.1 --bf16 --checkpoint runs/acdc

`--sign-in --rescale-period 1` adds Sign-In to any of them. `--data` holds torchvision's `train` and
`val` folders. `--synthetic N` trains on N random images instead, to try the whole path where no
ImageNet is: its accuracies mean nothing. No full run of these recipes has been made with this file.

A run with `--checkpoint` that was stopped goes on after the last whole epoch, and ends as it would
have without the stop.
"""

from __future__ import annotations

import hashlib
import math
import os
import sys
from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import tyro
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, Subset

import polarity as pol

from ...harness.schedules import make_schedule
from ...harness.settings import stream_seed
from ...models.networks import build_network
from . import imagenet_checkpoint as checkpoint
from .imagenet_data import image_folders, random_images
from .imagenet_methods import Attached, attach
from .imagenet_options import ImageNetOptions, check
from .recipes import SIGN_IN


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Train and return one record per epoch; rank 0 prints them."""
    options = tyro.cli(ImageNetOptions, args=arguments)
    cuda = torch.cuda.is_available()
    launched = "RANK" in os.environ and not dist.is_initialized()
    if launched:
        dist.init_process_group("nccl" if cuda else "gloo")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if cuda else "cpu"
    try:
        return _train(options, torch.device(device))
    finally:
        if launched:
            dist.destroy_process_group()


def _train(options: ImageNetOptions, device: torch.device) -> list[dict[str, Any]]:
    ranks, rank = (dist.get_world_size(), dist.get_rank()) if dist.is_initialized() else (1, 0)
    check(options, ranks)
    named = SIGN_IN[options.recipe]
    named = named.scaled(named.plain.epochs if options.epochs is None else options.epochs)
    recipe = named.plain
    if options.synthetic is not None:
        size, count = options.image_size, options.synthetic
        train_set, val_set, classes = random_images(count, size, options.classes, options.seed)
    else:
        train_set, val_set, classes = image_folders(options.data or Path(), options.image_size)
    batch = (options.batch_size or recipe.batch_size) // ranks
    sampler: Any = DistributedSampler(train_set, ranks, rank, seed=options.seed)
    loaded = {"num_workers": options.workers, "pin_memory": device.type == "cuda"}
    loader = DataLoader(train_set, batch, sampler=sampler, drop_last=True, **loaded)
    # Every rank tests on its share.
    share = range(rank, len(val_set), ranks)  # type: ignore[arg-type]
    val_loader = DataLoader(Subset(val_set, share), batch, **loaded)
    steps = recipe.epochs * len(loader)
    if not steps:
        raise SystemExit("error: there are fewer training images than a batch has, or no epochs")

    # The same seed draws the same weights and the same mask on every rank.
    generator = torch.Generator().manual_seed(options.seed)
    shape = (3, options.image_size, options.image_size)
    model = build_network(named.arch, shape, classes, generator=generator)
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    factor = make_schedule(recipe.schedule, steps)
    attached = attach(model, named, options, steps, factor, generator)
    schedule = torch.optim.lr_scheduler.LambdaLR(attached.optimizer, factor)
    parallel: nn.Module = model
    if dist.is_initialized():
        # Masks are buffers, as large as the weights: they are not sent at every step.
        newer = "forward_sync_buffers" in signature(DistributedDataParallel).parameters
        unsent = {"forward_sync_buffers" if newer else "broadcast_buffers": False}
        devices = [device] if device.type == "cuda" else None
        parallel = DistributedDataParallel(model, devices, **unsent)
    precision = torch.autocast(device.type, torch.bfloat16, enabled=options.bf16)

    deciding = options.deciding() | {"ranks": ranks}
    parts = attached.stateful() | {"lr": schedule}
    records = []
    if options.checkpoint is not None:
        records = checkpoint.resume(options.checkpoint, deciding, parts)
    _check_same("number of epochs in the checkpoint", len(records), device)
    for epoch in range(len(records) + 1, recipe.epochs + 1):
        # The images of an epoch depend on its number alone, not on where a run was resumed.
        sampler.set_epoch(epoch)
        torch.manual_seed(stream_seed(f"{options.seed}, epoch {epoch}, rank {rank}"))
        if attached.rescaling is not None:
            attached.rescaling.step()
        loss, updates = _train_epoch(parallel, attached, schedule, loader, precision, device)
        _share_statistics(model)
        tested = _test(model, val_loader, device, precision)
        _check_same("masks", _digest(model), device)
        record = {
            "epoch": epoch,
            "train_loss": loss,
            "test_accuracy": 100 * tested,
            "density": attached.density(),
            "mask_updates": updates,
        }
        records.append(record)
        if rank == 0:
            print(record, flush=True)
            if options.checkpoint is not None:
                checkpoint.write(options.checkpoint, deciding, parts, records)
    if options.save is not None and rank == 0:
        if options.method == "str":
            print(pol.dense_to_sparse.extract_soft_mask(model, attached.optimizer))
        torch.save(pol.dense_state_dict(model), options.save)
    return records


def _train_epoch(
    parallel: nn.Module,
    attached: Attached,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    loader: Any,
    precision: Any,
    device: torch.device,
) -> tuple[float, int]:
    """Train an epoch; return the mean loss over all ranks and the number of mask updates."""
    smoothing, decay = attached.label_smoothing, attached.frobenius_decay
    parallel.train()
    sums, updates = torch.zeros(2, dtype=torch.float64, device=device), 0
    for images, labels in loader:
        x = images.to(device, non_blocking=True, memory_format=torch.channels_last)
        y = labels.to(device, non_blocking=True)
        with precision:
            loss = cross_entropy(parallel(x).float(), y, label_smoothing=smoothing)
        penalty = 0.5 * decay * pol.frobenius_decay(attached.model) if decay else 0.0
        attached.optimizer.zero_grad(set_to_none=True)
        (loss + penalty).backward()
        attached.optimizer.step()
        if attached.schedule is not None:
            updates += attached.schedule.step() is not None
        schedule.step()
        sums += torch.stack([loss.detach().double() * len(y), loss.new_tensor(len(y))])
    if dist.is_initialized():
        dist.all_reduce(sums)
    return (float(sums[0] / sums[1]) if float(sums[1]) else math.nan), updates


@torch.no_grad()
def _test(model: nn.Module, loader: Any, device: torch.device, precision: Any) -> float:
    """Return the fraction of correct answers over the images of all ranks."""
    model.eval()
    sums = torch.zeros(2, dtype=torch.float64, device=device)
    for images, labels in loader:
        with precision:
            guess = model(images.to(device, memory_format=torch.channels_last)).argmax(dim=1)
        hits = (guess == labels.to(device)).sum()
        sums += torch.stack([hits.double(), hits.new_tensor(len(labels)).double()])
    if dist.is_initialized():
        dist.all_reduce(sums)
    return float(sums[0] / sums[1])


@torch.no_grad()
def _share_statistics(model: nn.Module) -> None:
    """Give every rank the mean of the running statistics of all of them."""
    if not dist.is_initialized():
        return
    for name, buffer in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            dist.all_reduce(buffer)
            buffer /= dist.get_world_size()


def _digest(model: nn.Module) -> int:
    """Return a number that stands for all masks, and for what is above soft thresholds."""
    digest = hashlib.sha256()
    for name, mask in pol.dense_to_sparse.soft_mask(model).items():
        digest.update(name.encode())
        digest.update(mask.cpu().numpy().tobytes())
    return int.from_bytes(digest.digest()[:7], "big")


def _check_same(what: str, number: int, device: torch.device) -> None:
    """Raise on every rank where a number is not the same on all of them."""
    if not dist.is_initialized():
        return
    every = torch.tensor([number, -number], device=device)
    dist.all_reduce(every, dist.ReduceOp.MAX)
    if int(every[0]) != -int(every[1]):
        raise RuntimeError(f"{what}: {number} on rank {dist.get_rank()}, expected the same on all")


if __name__ == "__main__":
    main()
    sys.exit(0)
