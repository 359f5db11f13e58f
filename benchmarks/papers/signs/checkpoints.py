"""The state of a run between two rounds, in one safetensors file.

An optimizer is new in every round, so model, starting weights and random streams are all of it.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from benchmarks.papers.signs.config import RunConfig

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on as if it had never stopped.

    Attributes:
        model: state_dict of the masked model.
        start: Plain-named weights of the run's beginning.
        generators: State of each random stream.
        records: One record per finished round.
    """

    model: Tensors
    start: Tensors
    generators: Tensors
    records: list[dict[str, Any]]


def write_checkpoint(path: Path, config: RunConfig, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint; whoever reads the path finds the old file or the new one, never half."""
    groups = {
        "model": checkpoint.model,
        "start": checkpoint.start,
        "generator": checkpoint.generators,
    }
    tensors = {
        f"{group}/{name}": tensor.detach().cpu().contiguous()
        for group, named in groups.items()
        for name, tensor in named.items()
    }
    metadata = {
        "config": json.dumps(config.as_json()),
        "records": json.dumps(checkpoint.records),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    save_file(tensors, unfinished, metadata)
    os.replace(unfinished, path)


def last_round(path: Path) -> int | None:
    """The last round that a checkpoint has behind it, None where there is no checkpoint."""
    if not path.is_file():
        return None
    with safe_open(path, framework="pt") as stored:
        return len(json.loads(stored.metadata()["records"])) - 1


def read_checkpoint(path: Path, config: RunConfig) -> Checkpoint:
    """Reads a checkpoint of exactly this run.

    Raises:
        ValueError: The file belongs to other settings.
    """
    groups: dict[str, Tensors] = {"model": {}, "start": {}, "generator": {}}
    with safe_open(path, framework="pt") as stored:
        metadata = stored.metadata()
        if RunConfig.from_json(json.loads(metadata["config"])) != config:
            raise ValueError(f"{path} was written by a run with other settings")
        for key in stored.keys():  # noqa: SIM118 - not a dict, cannot be iterated
            group, name = key.split("/", 1)
            groups[group][name] = stored.get_tensor(key)
    records: list[dict[str, Any]] = json.loads(metadata["records"])
    return Checkpoint(groups["model"], groups["start"], groups["generator"], records)
