"""Networks on disk, which later runs begin with."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

import polarity as pol

from ...harness.states import Tensors, read_metadata, read_state_file, write_state_file
from .config import AwsConfig


@dataclass(frozen=True)
class State:
    """A network between two rounds or after its final training.

    Attributes:
        weights: every parameter and buffer under its plain name, seen through its mask.
        masks: the masks.
        generators: states of the random streams that go on.
        records: one record per finished round.
        alphas: `pol.norm_alpha_state` of a network under interpolation.
    """

    weights: Tensors
    masks: Tensors
    generators: Tensors = field(default_factory=dict)
    records: list[dict[str, Any]] = field(default_factory=list)
    alphas: Tensors = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        model: nn.Module,
        generators: dict[str, torch.Generator] | None = None,
        records: list[dict[str, Any]] | None = None,
        alphas: Tensors | None = None,
    ) -> State:
        """Copy a model's state; norms under interpolation count with their trained values."""
        was_training = model.training
        weights = pol.RewindPoint.capture(model.eval()).weights
        model.train(was_training)
        masks = {name: mask.clone() for name, mask in pol.masks(model).items()}
        states = {name: each.get_state() for name, each in (generators or {}).items()}
        return cls(weights, masks, states, list(records or []), alphas or {})

    def restore(self, model: nn.Module) -> nn.Module:
        """Give a network of the same structure these weights and masks."""
        pol.mask_weights(model, masks=self.masks)
        return pol.RewindPoint(self.weights).restore_weights(model)


def state_path(out: Path, config: AwsConfig, round: int | None = None) -> Path:
    """Return the path of a network: that after a round of a finder, or a finally trained one."""
    place = "" if round is None else f"-at{round}"
    return out / "states" / f"{config.run_id}{place}.safetensors"


def is_saved(path: Path) -> bool:
    """Whether a network is on disk; a damaged file is set aside."""
    return read_metadata(path, ("records",)) is not None


def write_state(path: Path, state: State) -> None:
    """Write a state; a reader of the path finds all of it or nothing."""
    groups = {"weight": state.weights, "mask": state.masks, "generator": state.generators}
    groups["alpha"] = state.alphas
    write_state_file(path, groups, {"records": state.records})


def read_state(path: Path, device: str | torch.device = "cpu") -> State:
    """Read a state; the random streams stay on the CPU."""
    groups, metadata = read_state_file(path, ("weight", "mask", "generator", "alpha"))
    weights, masks = (
        {name: tensor.to(device) for name, tensor in groups[group].items()}
        for group in ("weight", "mask")
    )
    return State(weights, masks, groups["generator"], metadata["records"], groups["alpha"])
