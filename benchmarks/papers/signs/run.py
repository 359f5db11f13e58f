"""One run: train dense, then prune, give the survivors new signs, train again, round by round."""

from __future__ import annotations

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
from .config import Perturbation, RunConfig

Record = dict[str, Any]
_KINDS: dict[str, Callable[[float], Any]] = {
    "phi": pol.Phi,
    "epsilon": pol.Epsilon,
    "delta": pol.Delta,
}

# What a record states of a sign report, and of each of its layers.
_COUNTS = ("positive", "agree_init", "agree_trained", "flipped")


def train_rounds(
    config: RunConfig,
    data: Dataset,
    *,
    checkpoint: Path | None = None,
    on_epoch: Callable[[int, int], None] | None = None,
    on_round: Callable[[Record], None] | None = None,
    channels_last: bool = False,
    compile: bool | str = False,
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
        on_epoch: called with the round and the number of its finished epochs.
        on_round: called with the record of each finished round, after its checkpoint is written.
        channels_last: as for `training.train_epochs`.
        compile: as for `training.train_epochs`. Like the memory order and the number of threads it
            changes only the last bits of a result, and is no part of the settings.

    Returns:
        One record per round, round 0 first.
    """
    device = data.train_x.device
    signs = perturbations(config.perturbation)
    generators = {
        name: torch.Generator().manual_seed(config.stream(name))
        for name in ("init", "batches", "signs")
    }
    model = build_model(
        config.arch, data.shape, data.classes, config.init, generators["init"], config.weights
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

    for number in range(len(records), config.rounds + 1):
        began = time.perf_counter()
        if number == 0:
            touched = _dense_layers(model)
        else:
            touched = _next_ticket(model, config, number, start, signs, generators["signs"])
        optimizer = make_optimizer(
            config.optimizer, model, config.lr, config.momentum, config.weight_decay
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
            on_epoch=None if on_epoch is None else partial(on_epoch, number),
        )
        val_loss, val_accuracy = evaluate(model, data.val_x, data.val_y, bf16=config.bf16)
        test_loss, test_accuracy = evaluate(model, data.test_x, data.test_y, bf16=config.bf16)
        record = {
            "round": number,
            **touched,
            "train_loss": finite(loss),
            "val_loss": finite(val_loss),
            "val_accuracy": finite(val_accuracy),
            "test_loss": finite(test_loss),
            "test_accuracy": test_accuracy,
            "seconds": time.perf_counter() - began,
        }
        records.append(record)
        if checkpoint is not None:
            states = {name: generator.get_state() for name, generator in generators.items()}
            reached = Checkpoint(model.state_dict(), start.weights, states, records)
            write_checkpoint(checkpoint, config, reached)
        if on_round is not None:
            on_round(record)
    return records


def perturbations(perturbation: Perturbation) -> tuple[Any, ...]:
    """Make polarity's objects for a configured perturbation; a value out of range raises here."""
    return tuple(_KINDS[kind](value) for kind, value in perturbation)


def _next_ticket(
    model: nn.Module,
    config: RunConfig,
    number: int,
    start: pol.RewindPoint,
    signs: tuple[Any, ...],
    generator: torch.Generator,
) -> Record:
    # `standard` gives pruned weights back: that takes their values from before, and only a density
    # of the whole model is meaningful.
    trained = pol.RewindPoint.capture(model)
    pruned = pol.imp_prune(model, density=config.prune_base**number, scope=config.prune_scope)
    if not config.keep_rest:
        start.restore_weights(model, only="unmasked")
    report = pol.reinit_signs(
        model,
        config.strategy,
        signs or None,
        init=start,
        trained=trained,
        scope=config.sign_scope,
        mix=config.mix,
        generator=generator,
    )
    signed = {row.name: row for row in report}
    return {
        "density": pruned.density,
        "survivors": pruned.survivors,
        "total": pruned.total,
        "signs": {key: getattr(report, key) for key in _COUNTS},
        "layers": [
            {
                "name": row.name,
                "total": row.total,
                "survivors": row.after,
                "density": row.density,
                **{key: getattr(signed[row.name], key) for key in ("sigma", *_COUNTS)},
            }
            for row in pruned
        ],
    }


def _dense_layers(model: nn.Module) -> Record:
    sizes = {name: mask.numel() for name, mask in pol.masks(model).items()}
    total = sum(sizes.values())
    layers = [
        {"name": name, "total": size, "survivors": size, "density": 1.0}
        for name, size in sizes.items()
    ]
    shared = {"density": 1.0, "survivors": total, "total": total, "signs": None}
    return {**shared, "layers": layers}
