"""The experiment harness: its epoch and the usual epochs, and two processes against one.

A full run of MNIST (10 rounds of 10 epochs) is a hundred repetitions of the epoch that is timed
here, and eleven evaluations and ten prunings, together less than a hundredth of it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from ..harness.training import make_optimizer, train_epochs
from ..harness.workers import perform, plan
from .mnist_epoch import (
    LR,
    epoch_of_ours,
    epoch_through,
    loader,
    masked_mlp,
    resident,
    resident_on,
)


@pytest.mark.parametrize("kind", ["torchvision's items", "TensorDataset"])
@pytest.mark.parametrize("batch_size", [60, 128])
def test_an_epoch_of_mnist_with_masks(
    in_turns: Any, benchmark: Any, quick: bool, batch_size: int, kind: str
) -> None:
    benchmark.group = f"one epoch of MNIST, MLP with masks, Adam, batch {batch_size}"
    count = 600 if quick else None
    theirs = loader(kind, count, batch_size)
    images = len(resident(count).train_y)
    in_turns(
        lambda: epoch_of_ours(count, batch_size),
        lambda: epoch_through(theirs),
        what="the experiments' loop",
        against=f"DataLoader over {kind}",
        rounds=5,
        waits=True,
        target=1 / 4 if kind == "torchvision's items" else None,
    )
    per_second(benchmark, images)


def test_an_epoch_of_replayed_steps(
    in_turns: Any, benchmark: Any, quick: bool, device: torch.device
) -> None:
    benchmark.group = "one epoch of MNIST on a GPU, MLP with masks, Adam, batch 60"
    if device.type != "cuda":
        pytest.skip("CUDA graphs")
    images = resident_on(600 if quick else None, device)
    model = masked_mlp().to(device)
    plain, captured = (make_optimizer("adam", model, LR, graphs=each) for each in (False, True))

    def epoch(optimizer: torch.optim.Optimizer, graphs: bool) -> None:
        draw = torch.Generator().manual_seed(0)
        train_epochs(model, images, optimizer, 1, 60, draw, graphs=graphs)

    in_turns(
        lambda: epoch(captured, True),
        lambda: epoch(plain, False),
        what="steps replayed as a CUDA graph",
        against="steps launched one kernel at a time",
        rounds=5,
    )
    per_second(benchmark, len(images.train_y))


def test_two_processes_beside_one(in_turns: Any, benchmark: Any, quick: bool) -> None:
    benchmark.group = "two runs of MNIST at once, MLP with masks, batch 128"
    if len(plan(1).allowed) == 1:
        pytest.skip("one core")
    count, runs = 600 if quick else None, (0, 1)
    images = len(resident(count).train_y) * len(runs)
    work = partial(epoch_of_run, count=count)
    in_turns(
        lambda: list(perform(work, runs, jobs=2, threads=1)),
        lambda: list(perform(work, runs, jobs=1, threads=1)),
        what="two pinned processes",
        against="one process (limit 1/2)",
        rounds=9,
        waits=True,
        # A share of the memory bandwidth is all that two cores have to fight over.
        target=1 / 1.9,
    )
    per_second(benchmark, images)


def epoch_of_run(run: int, count: int | None) -> float:
    """What a worker does; the number of the run changes nothing."""
    return epoch_of_ours(count, 128)


def per_second(benchmark: Any, images: int) -> None:
    """Note the speed of ours next to the ratio."""
    if benchmark.stats is not None:
        speed = images / benchmark.stats.stats.median
        benchmark.extra_info.update(images=images, samples_per_second=round(speed))
