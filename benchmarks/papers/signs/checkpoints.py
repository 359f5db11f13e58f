"""The state of a run between two rounds, in one file.

An optimizer is new in every round, so model, starting weights and random streams are all of it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...harness.states import Tensors, read_metadata, read_state_file, write_state_file
from .config import RunConfig


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on as if it had never stopped.

    Attributes:
        model: state_dict of the masked model.
        start: plain-named weights of the run's beginning.
        generators: state of each random stream.
        records: one record per finished round.
    """

    model: Tensors
    start: Tensors
    generators: Tensors
    records: list[dict[str, Any]]


def checkpoint_path(out: Path, config: RunConfig) -> Path:
    """Return the path of an unfinished run's state."""
    return out / "checkpoints" / f"{config.run_id}.safetensors"


def write_checkpoint(path: Path, config: RunConfig, checkpoint: Checkpoint) -> None:
    """Write a checkpoint in the place of an older one."""
    groups = {
        "model": checkpoint.model,
        "start": checkpoint.start,
        "generator": checkpoint.generators,
    }
    metadata = {"config": asdict(config), "records": checkpoint.records}
    write_state_file(path, groups, metadata)


def last_round(path: Path) -> int | None:
    """Return the last round that a checkpoint has behind it; None without one, or a damaged one."""
    metadata = read_metadata(path, ("config", "records"))
    return None if metadata is None else len(metadata["records"]) - 1


def read_checkpoint(path: Path, config: RunConfig) -> Checkpoint:
    """Read a checkpoint of exactly this run.

    Raises:
        ValueError: the file belongs to other settings.
    """
    groups, metadata = read_state_file(path, ("model", "start", "generator"))
    if RunConfig.from_json(metadata["config"]) != config:
        raise ValueError(f"{path} was written by a run with other settings")
    return Checkpoint(groups["model"], groups["start"], groups["generator"], metadata["records"])
