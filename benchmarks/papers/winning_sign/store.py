"""Files of the AWS runs: one JSON per run, and the networks that later runs begin with."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import polarity as pol
from benchmarks.harness.results import git_commit, machine, read_result, versions, write_result
from benchmarks.papers.winning_sign.config import EXPERIMENT, AwsConfig

SCHEMA = 1
Result = dict[str, Any]
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class State:
    """A network between two rounds or after its final training.

    Attributes:
        weights: Every parameter and buffer under its plain name, seen through its mask.
        masks: The masks.
        generators: States of the random streams that go on.
        records: One record per finished round.
    """

    weights: Tensors
    masks: Tensors
    generators: Tensors = field(default_factory=dict)
    records: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        model: nn.Module,
        generators: dict[str, torch.Generator] | None = None,
        records: list[dict[str, Any]] | None = None,
    ) -> State:
        """Copies a model's state; norms under interpolation count with their trained values."""
        was_training = model.training
        weights = pol.RewindPoint.capture(model.eval()).weights
        model.train(was_training)
        masks = {name: mask.clone() for name, mask in pol.masks(model).items()}
        states = {name: each.get_state() for name, each in (generators or {}).items()}
        return cls(weights, masks, states, list(records or []))

    def restore(self, model: nn.Module) -> nn.Module:
        """Gives a network of the same structure these weights and masks."""
        pol.mask_weights(model, masks=self.masks)
        return pol.RewindPoint(self.weights).restore_weights(model)


def result_path(out: Path, config: AwsConfig) -> Path:
    """Where the result of a run lies."""
    return out / f"{config.run_id}.json"


def state_path(out: Path, config: AwsConfig, round: int | None = None) -> Path:
    """Where a network lies: that after a round of a finder, or a finally trained one."""
    place = "" if round is None else f"-at{round}"
    return out / "states" / f"{config.run_id}{place}.safetensors"


def write_state(path: Path, state: State) -> None:
    """Writes a state; whoever reads the path finds all of it or nothing."""
    groups = {"weight": state.weights, "mask": state.masks, "generator": state.generators}
    tensors = {
        f"{group}/{name}": tensor.detach().cpu().contiguous()
        for group, named in groups.items()
        for name, tensor in named.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    save_file(tensors, unfinished, {"records": json.dumps(state.records)})
    os.replace(unfinished, path)


def read_state(path: Path, device: str | torch.device = "cpu") -> State:
    """Reads a state; the random streams stay on the CPU."""
    groups: dict[str, Tensors] = {"weight": {}, "mask": {}, "generator": {}}
    with safe_open(path, framework="pt") as stored:
        records = json.loads(stored.metadata()["records"])
        for key in stored.keys():  # noqa: SIM118 - not a dict, cannot be iterated
            group, name = key.split("/", 1)
            tensor = stored.get_tensor(key)
            groups[group][name] = tensor if group == "generator" else tensor.to(device)
    return State(groups["weight"], groups["mask"], groups["generator"], records)


def store_result(
    out: Path,
    config: AwsConfig,
    dataset: dict[str, Any],
    content: dict[str, Any],
    *,
    started: datetime,
    seconds: float,
) -> Result:
    """Adds provenance to what a run found and writes its file."""
    result = {
        "schema": SCHEMA,
        "experiment": EXPERIMENT,
        "run_id": config.run_id,
        "config": config.as_json(),
        "config_digest": config.digest,
        "density": config.density,
        "dataset": dataset,
        **content,
        "started": started.isoformat(timespec="seconds"),
        "seconds": seconds,
        "versions": versions(),
        "machine": machine(config.device),
        "git_commit": git_commit(),
    }
    write_result(result_path(out, config), result)
    return result


def load_results(folder: Path) -> list[Result]:
    """Every result of this experiment in a folder, in the order of their names."""
    found = []
    for path in sorted(folder.glob(f"{EXPERIMENT}-*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        if result.get("schema") == SCHEMA and result.get("experiment") == EXPERIMENT:
            found.append(result)
    return found


def read_known(out: Path, configs: Sequence[AwsConfig]) -> list[Result]:
    """The results of those of the runs that have one."""
    paths = [result_path(out, config) for config in configs]
    return [read_result(path) for path in paths if path.is_file()]
