"""One run: the same rounds of pruning by masks and by survivors alone, and a dense network."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import polarity as pol

from ..harness.data import Dataset
from ..harness.results import finite
from ..harness.states import read_metadata, read_state_file, write_state_file
from ..harness.training import evaluate, make_optimizer, train_epochs
from ..models import build_model
from .config import RunConfig

Record = dict[str, Any]
# The networks that are trained side by side.
DENSE, MASKS, SURVIVORS = FORMS = ("dense", "masks", "survivors")


def train_rounds(
    config: RunConfig,
    data: Dataset,
    *,
    checkpoint: Path | None = None,
    on_epoch: Callable[[int, int], None] | None = None,
    on_round: Callable[[Record], None] | None = None,
) -> list[Record]:
    """Perform all rounds of a run, or those that are left of it.

    Round 0 trains the dense network. Round k prunes to density `prune_base ** k`, gives the
    survivors and all other weights their initial values, and trains with a new optimizer. All three
    networks see the same batches, epoch by epoch in turns, so that each meets the same neighbours
    on the machine; which one begins changes with the epoch.

    Args:
        config: settings of the run.
        data: resident data set.
        checkpoint: file that holds the state after each round. If it exists the run goes on there.
        on_epoch: called with the round and the number of its finished epochs.
        on_round: called with the record of each finished round, after its checkpoint is written.

    Returns:
        One record per round, round 0 first.
    """
    models = {form: _network(config, data, form) for form in FORMS}
    start = pol.RewindPoint.capture(models[MASKS])
    records: list[Record] = []
    if checkpoint is not None:
        records = _resumed(config, models, checkpoint)
    for number in range(len(records), config.rounds + 1):
        record = _round(config, data, models, start, number, on_epoch)
        records.append(record)
        if checkpoint is not None:
            groups = {form: models[form].state_dict() for form in (MASKS, SURVIVORS)}
            metadata = {"digest": config.digest, "records": records}
            write_state_file(checkpoint, groups, metadata)
        if on_round is not None:
            # What the progress shows is the network of survivors.
            on_round({**record, **record[SURVIVORS]})
    return records


def _network(config: RunConfig, data: Dataset, form: str) -> nn.Module:
    draw = torch.Generator().manual_seed(config.stream("init"))
    model = build_model(config.arch, data.shape, data.classes, config.init, draw)
    model = model.to(data.train_x.device)
    return model if form == DENSE else pol.mask_weights(model)


def _resumed(config: RunConfig, models: dict[str, nn.Module], checkpoint: Path) -> list[Record]:
    """Load the networks of an interrupted run and return the records of its rounds."""
    if read_metadata(checkpoint, ("digest", "records")) is None:
        return []
    groups, metadata = read_state_file(checkpoint, (MASKS, SURVIVORS))
    if metadata["digest"] != config.digest:
        raise ValueError(f"{checkpoint} was written by a run with other settings")
    for form, tensors in groups.items():
        models[form].load_state_dict(tensors)
    records: list[Record] = metadata["records"]
    return records


def _round(
    config: RunConfig,
    data: Dataset,
    models: dict[str, nn.Module],
    start: pol.RewindPoint,
    number: int,
    on_epoch: Callable[[int, int], None] | None,
) -> Record:
    record: Record = {"round": number, **{form: {} for form in FORMS}}
    models[DENSE] = _network(config, data, DENSE)
    for form in (MASKS, SURVIVORS):
        if number:
            pol.imp_prune(models[form], density=config.prune_base**number, rewind=start)
        start.restore_weights(models[form], only="unmasked")
    record["survivors"] |= _decided(models[SURVIVORS], data.train_x[: config.batch_size])
    optimizers = {form: make_optimizer("adam", model, config.lr) for form, model in models.items()}
    batches = {
        form: torch.Generator().manual_seed(config.stream("batches", number)) for form in FORMS
    }
    seconds = {form: [0.0, 0.0] for form in FORMS}
    losses = {}
    for epoch in range(config.epochs):
        begins = (number + epoch) % len(FORMS)
        for form in (*FORMS[begins:], *FORMS[:begins]):
            wall, processor = time.perf_counter(), time.process_time()
            losses[form] = train_epochs(
                models[form], data, optimizers[form], 1, config.batch_size, batches[form]
            )
            seconds[form][0] += time.perf_counter() - wall
            seconds[form][1] += time.process_time() - processor
        if on_epoch is not None:
            on_epoch(number, epoch + 1)
    for form, model in models.items():
        test_loss, test_accuracy = evaluate(model, data.test_x, data.test_y)
        record[form] |= {
            "seconds": seconds[form][0],
            "processor_seconds": seconds[form][1],
            "train_loss": finite(losses.get(form, float("nan"))),
            "test_loss": finite(test_loss),
            "test_accuracy": test_accuracy,
            "density": 1.0 if form == DENSE else pol.density(model),
        }
    record["same_masks"] = _same_masks(models)
    return record


def _decided(model: nn.Module, images: torch.Tensor) -> Record:
    """Let `compact` measure which layers gain now, and say what it chose and how long that took."""
    began = time.perf_counter()
    report = pol.compact(model, images)
    return {
        "deciding_seconds": time.perf_counter() - began,
        "layers": [
            {
                "name": row.name,
                "density": row.density,
                "compact": row.compact,
                "masked_seconds": row.dense_seconds,
                "sparse_seconds": row.sparse_seconds,
                "reason": row.reason,
            }
            for row in report
        ],
    }


def _same_masks(models: dict[str, nn.Module]) -> float:
    """Return the fraction of the survivors under masks that the compact network has too."""
    ours, theirs = pol.masks(models[SURVIVORS]), pol.masks(models[MASKS])
    shared = sum(int((ours[name] & theirs[name]).sum()) for name in ours)
    return shared / max(1, sum(int(mask.sum()) for mask in theirs.values()))
