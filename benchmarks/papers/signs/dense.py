"""Round 0, the training of the dense network, which all runs of a seed have in common."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...harness.results import git_commit, machine, versions
from ...harness.settings import settings_digest
from ...harness.states import Tensors, read_metadata, read_state_file, write_state_file
from .config import RunConfig


@dataclass(frozen=True)
class Dense:
    """The state after round 0.

    Attributes:
        model: state_dict of the masked model, all of whose masks are ones.
        batches: state of the stream of batches.
        record: the record of the round.
    """

    model: Tensors
    batches: torch.Tensor
    record: dict[str, Any]


def dense_path(out: Path, config: RunConfig, **execution: Any) -> Path:
    """Return the path of the state after round 0.

    Its name holds everything that may change a bit of it: settings, commit, versions, machine, and
    how it is executed.
    """
    computed_by = {
        "settings": config.dense_digest,
        "commit": git_commit(),
        "versions": versions(),
        "machine": machine(config.device),
        **execution,
    }
    name = f"dense-{config.dataset}-{config.arch}-seed{config.seed}-{settings_digest(computed_by)}"
    return out / "checkpoints" / f"{name}.safetensors"


def write_dense(
    path: Path, model: nn.Module, batches: torch.Generator, record: dict[str, Any]
) -> None:
    """Write the state after round 0."""
    groups = {"model": model.state_dict(), "generator": {"batches": batches.get_state()}}
    write_state_file(path, groups, {"record": record})


def read_dense(path: Path) -> Dense | None:
    """Read the state after round 0; None where it is missing, or damaged and set aside."""
    if read_metadata(path, ("record",)) is None:
        return None
    groups, metadata = read_state_file(path, ("model", "generator"))
    return Dense(groups["model"], groups["generator"]["batches"], metadata["record"])
