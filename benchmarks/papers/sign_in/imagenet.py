"""The ImageNet recipes of Sign-In under torchrun and DDP: random masks, with Sign-In or without.

    torchrun --nproc-per-node 8 -m benchmarks.papers.sign_in.imagenet imagenet-resnet50
        --data /data/imagenet --density 0.1 --sign-in --rescale-period 1 --bf16

`--data` holds torchvision's `train` and `val` folders. `--synthetic N` trains on N random images
instead, to try the whole path where no ImageNet is: its accuracies mean nothing. No full run of
these recipes has been made with this file.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import torch.distributed as dist
import tyro
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, DistributedSampler, TensorDataset

import polarity as pol
from benchmarks.harness.recipe_training import recipe_optimizer
from benchmarks.harness.schedules import make_schedule
from benchmarks.models.networks import build_network
from benchmarks.papers.sign_in.recipes import SIGN_IN

# ImageNet's usual channel statistics.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass
class ImageNetOptions:
    """Sparse training from scratch on ImageNet (Tables 3, 4, 9 and 11 of Sign-In)."""

    recipe: Annotated[Literal["imagenet-resnet50", "imagenet-deit-small"], tyro.conf.Positional] = (
        "imagenet-resnet50"  # Recipe of Tables 6 and 7.
    )
    data: Path | None = None  # Folder with train/ and val/, a folder per class in each.
    synthetic: int | None = None  # Train on this many random images, test on a quarter as many.
    density: float = 0.1  # Fraction of the weights that survive, drawn with balanced layers.
    sign_in: bool = False  # Train as m⊙v; without --rescale-period it is never rescaled.
    rescale_period: int | None = None  # Period p in epochs. The paper does not give it.
    image_size: int = 224  # Height and width of an image.
    classes: int = 1000  # Classes of the synthetic images.
    epochs: int | None = None  # Default: the recipe's; T2 keeps its fraction of them.
    batch_size: int | None = None  # Images per step over all processes. Default: the recipe's.
    seed: int = 0  # Of initialisation, mask and order.
    workers: int = 8  # Processes that read images, per rank.
    bf16: bool = False  # Forward passes in bfloat16.
    save: Path | None = None  # Where rank 0 writes the merged model's weights.


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Train and return one record per epoch; rank 0 prints them."""
    options = tyro.cli(ImageNetOptions, args=arguments)
    if (options.data is None) == (options.synthetic is None):
        raise SystemExit("error: give exactly one of --data and --synthetic")
    cuda = torch.cuda.is_available()
    if "RANK" in os.environ:
        dist.init_process_group("nccl" if cuda else "gloo")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if cuda else "cpu"
    try:
        return _train(options, torch.device(device))
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _train(options: ImageNetOptions, device: torch.device) -> list[dict[str, Any]]:
    ranks = dist.get_world_size() if dist.is_initialized() else 1
    first = not dist.is_initialized() or dist.get_rank() == 0
    named = SIGN_IN[options.recipe]
    named = named.scaled(named.plain.epochs if options.epochs is None else options.epochs)
    recipe = named.converted if options.sign_in else named.plain
    batch = (options.batch_size or recipe.batch_size) // ranks
    train_set, val_set, classes = _datasets(options)

    # The same seed draws the same weights and the same mask on every rank.
    generator = torch.Generator().manual_seed(options.seed)
    shape = (3, options.image_size, options.image_size)
    model = build_network(named.arch, shape, classes, generator=generator)
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    densities = pol.densities.balanced(model, options.density)
    pol.prune(model, pol.scores.random, densities=densities, generator=generator)
    if options.sign_in:
        pol.sign_in(model, beta=named.part.beta)
    # Converted first, wrapped and optimised after: DDP and the optimizer then see m and v.
    optimizer = recipe_optimizer(recipe, model)
    parallel: nn.Module = model
    if dist.is_initialized():
        parallel = DistributedDataParallel(model, [device] if device.type == "cuda" else None)
    rescaling = None
    if options.sign_in and options.rescale_period is not None:
        rescaling = pol.RescaleSchedule(
            model, every=options.rescale_period, until=named.part.until, optimizer=optimizer
        )

    sampler: Any = DistributedSampler(train_set, ranks, seed=options.seed) if ranks > 1 else None
    loaded = {"num_workers": options.workers, "pin_memory": device.type == "cuda"}
    loader = DataLoader(
        train_set, batch, shuffle=sampler is None, sampler=sampler, drop_last=True, **loaded
    )
    # Every rank tests on its share.
    share = range(dist.get_rank() if ranks > 1 else 0, len(val_set), ranks)  # type: ignore[arg-type]
    val_loader = DataLoader(torch.utils.data.Subset(val_set, share), batch, **loaded)
    steps = max(1, recipe.epochs * len(loader))
    factor = make_schedule(recipe.schedule, steps)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    precision = torch.autocast(device.type, torch.bfloat16, enabled=options.bf16)
    records = []
    for epoch in range(1, recipe.epochs + 1):
        if rescaling is not None:
            rescaling.step()
        if sampler is not None:
            sampler.set_epoch(epoch)
        parallel.train()
        sums = torch.zeros(2, dtype=torch.float64, device=device)
        for images, labels in loader:
            x = images.to(device, non_blocking=True, memory_format=torch.channels_last)
            y = labels.to(device, non_blocking=True)
            with precision:
                loss = cross_entropy(parallel(x).float(), y, label_smoothing=recipe.label_smoothing)
            penalty = 0.0
            if options.sign_in and named.part.frobenius_decay:
                penalty = 0.5 * named.part.frobenius_decay * pol.frobenius_decay(model)
            optimizer.zero_grad(set_to_none=True)
            (loss + penalty).backward()
            optimizer.step()
            schedule.step()
            sums += torch.stack([loss.detach().double() * len(y), loss.new_tensor(len(y))])
        tested = _test(model, val_loader, device, precision)
        if dist.is_initialized():
            dist.all_reduce(sums)
            dist.all_reduce(tested)
        record = {
            "epoch": epoch,
            "train_loss": float(sums[0] / sums[1]) if float(sums[1]) else math.nan,
            "test_accuracy": 100 * float(tested[0] / tested[1]),
            "density": pol.density(model),
        }
        records.append(record)
        if first:
            print(record, flush=True)
    if options.save is not None and first:
        torch.save(pol.dense_state_dict(model), options.save)
    return records


@torch.no_grad()
def _test(model: nn.Module, loader: Any, device: torch.device, precision: Any) -> torch.Tensor:
    """Count correct answers and images of this rank."""
    model.eval()
    sums = torch.zeros(2, dtype=torch.float64, device=device)
    for images, labels in loader:
        with precision:
            guess = model(images.to(device, memory_format=torch.channels_last)).argmax(dim=1)
        hits = (guess == labels.to(device)).sum()
        sums += torch.stack([hits.double(), hits.new_tensor(len(labels)).double()])
    return sums


def _datasets(options: ImageNetOptions) -> tuple[Dataset[Any], Dataset[Any], int]:
    if options.synthetic is not None:
        draw = torch.Generator().manual_seed(options.seed)
        sets = []
        for count in (options.synthetic, max(1, options.synthetic // 4)):
            images = torch.randn(count, 3, options.image_size, options.image_size, generator=draw)
            labels = torch.randint(options.classes, (count,), generator=draw)
            sets.append(TensorDataset(images, labels))
        return sets[0], sets[1], options.classes
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    end = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(_MEAN, _STD)]
    size, root = options.image_size, Path(options.data or ".")
    crop = [v2.RandomResizedCrop(size), v2.RandomHorizontalFlip()]
    centre = [v2.Resize(round(size * 256 / 224)), v2.CenterCrop(size)]
    train_set = ImageFolder(str(root / "train"), v2.Compose([*crop, *end]))
    return (
        train_set,
        ImageFolder(str(root / "val"), v2.Compose([*centre, *end])),
        len(train_set.classes),
    )


if __name__ == "__main__":
    main()
    sys.exit(0)
