"""One run: train dense, then prune, give the survivors new signs, train again, round by round."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

import polarity as pol

from ...harness.data import Dataset
from ...harness.results import finite
from ...harness.training import evaluate, make_optimizer, train_epochs
from ...models import build_model
from .checkpoints import (
    Checkpoint,
    last_round,
    read_checkpoint,
    write_checkpoint,
)
from .config import RunConfig
from .dense import read_dense, write_dense
from .tickets import dense_layers, next_ticket, perturbations

Record = dict[str, Any]


def train_rounds(
    config: RunConfig,
    data: Dataset,
    *,
    checkpoint: Path | None = None,
    dense: Path | None = None,
    on_epoch: Callable[[int, int], None] | None = None,
    on_round: Callable[[Record], None] | None = None,
    channels_last: bool = False,
    compile: bool | str = False,
    graphs: bool = False,
) -> list[Record]:
    """Perform all rounds of a run, or those that are left of it.

    Round 0 trains the dense network. Round k prunes to density `prune_base ** k`, restores what is
    not masked from the start (unless `keep_rest`), gives every survivor a new sign at constant
    magnitude, and trains with a new optimizer. Ten rounds are eleven trainings and end at density
    0.107, the papers' "final sparsity of about 89 %".

    Args:
        config: settings of the run.
        data: resident data set, on the device of the run.
        checkpoint: file that holds the state after each round. If it exists the run goes on from
            there, bit for bit as if it had not been interrupted.
        dense: file of the state after round 0, which the runs of a seed share: read where it is,
            written where not.
        on_epoch: called with the round and the number of its finished epochs.
        on_round: called with the record of each finished round, after its checkpoint is written.
        channels_last: as for `training.train_epochs`.
        compile: as for `training.train_epochs`. Like the memory order and the number of threads it
            changes only the last bits of a result, and is no part of the settings.
        graphs: as for `training.train_epochs`.

    Returns:
        One record per round, round 0 first.
    """
    device = data.train_x.device
    signs = perturbations(config.perturbation)
    generators = {
        name: torch.Generator().manual_seed(config.stream(name))
        for name in ("init", "batches", "signs", "masks")
    }
    model = build_model(
        config.arch,
        data.shape,
        data.classes,
        config.init,
        generators["init"],
        config.weights,
        config.width,
    )
    model = pol.mask_weights(model.to(device))
    if checkpoint is not None and last_round(checkpoint) is not None:
        stored = read_checkpoint(checkpoint, config)
        model.load_state_dict(stored.model)
        start = pol.RewindPoint(weights={k: v.to(device) for k, v in stored.start.items()})
        for name, state in stored.generators.items():
            generators[name].set_state(state)
        records = stored.records
    else:
        start, records = pol.RewindPoint.capture(model), []

    def reached(record: Record) -> None:
        records.append(record)
        if checkpoint is not None:
            states = {name: generator.get_state() for name, generator in generators.items()}
            state = Checkpoint(model.state_dict(), start.weights, states, records)
            write_checkpoint(checkpoint, config, state)
        if on_round is not None:
            on_round(record)

    shared = None if records or dense is None else read_dense(dense)
    if shared is not None:
        model.load_state_dict(shared.model)
        generators["batches"].set_state(shared.batches)
        reached(shared.record)

    for number in range(len(records), config.rounds + 1):
        began = time.perf_counter()
        if number == 0:
            touched = dense_layers(model)
        else:
            touched = next_ticket(model, config, number, start, signs, generators)
        optimizer = make_optimizer(
            config.optimizer,
            model,
            config.lr,
            config.momentum,
            config.weight_decay,
            graphs=graphs,
        )
        loss = train_epochs(
            model,
            data,
            optimizer,
            config.epochs,
            config.batch_size,
            generators["batches"],
            bf16=config.bf16,
            channels_last=channels_last,
            compile=compile,
            graphs=graphs,
            on_epoch=None if on_epoch is None else partial(on_epoch, number),
        )
        record = {
            "round": number,
            **touched,
            "train_loss": finite(loss),
            **_tested(model, data, config),
            **(_with_its_mask(model, data, config) if number else {}),
            "seconds": time.perf_counter() - began,
        }
        if number == 0 and dense is not None:
            write_dense(dense, model, generators["batches"], record)
        reached(record)
    return records


def _tested(model: nn.Module, data: Dataset, config: RunConfig) -> Record:
    """Test a network on the images that it was trained on, those held out, and the test images."""
    _, train_accuracy = evaluate(model, data.train_x, data.train_y, bf16=config.bf16)
    val_loss, val_accuracy = evaluate(model, data.val_x, data.val_y, bf16=config.bf16)
    test_loss, test_accuracy = evaluate(model, data.test_x, data.test_y, bf16=config.bf16)
    return {
        "train_accuracy": finite(train_accuracy),
        "val_loss": finite(val_loss),
        "val_accuracy": finite(val_accuracy),
        "test_loss": finite(test_loss),
        "test_accuracy": test_accuracy,
    }


def _with_its_mask(model: nn.Module, data: Dataset, config: RunConfig) -> Record:
    """Test a network that trains without its masks, as `standard` does, with them too."""
    if config.strategy != "standard":
        return {}
    sparse = copy.deepcopy(model)
    pol.load_masks(sparse, pol.masks(sparse))
    accuracies = {
        f"{part}_accuracy_masked": evaluate(sparse, x, y, bf16=config.bf16)[1]
        for part, x, y in (
            ("val", data.val_x, data.val_y),
            ("test", data.test_x, data.test_y),
        )
    }
    return {name: finite(accuracy) for name, accuracy in accuracies.items()}
