"""What a run with a learned mask starts from: the file that its source leaves, and its use."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

import polarity as pol

from ....harness.states import Tensors, read_metadata, read_state_file, write_state_file
from .config import DenseToSparseConfig

_GROUPS = ("masks", "10", "30", "final")


@dataclass
class Learned:
    """What a source learned: its final masks, and its weights at three moments.

    Weights hold signs and magnitudes of entries that the final masks prune, too: those of STR are
    the stored ones, before the threshold.

    Attributes:
        masks: by name of the weight.
        weights: by moment, `10`, `30` or `final`, and by name.
    """

    masks: Tensors = field(default_factory=dict)
    weights: dict[str, Tensors] = field(default_factory=dict)

    def keep(self, moment: str, model: nn.Module) -> None:
        """Keep the weights of a moment."""
        self.weights[moment] = pol.dense_to_sparse.weights_before_threshold(model)


def learned_path(folder: Path, source: DenseToSparseConfig) -> Path:
    """Return the path of what a source learned."""
    return folder / "learned" / f"{source.run_id}.safetensors"


def write_learned(path: Path, learned: Learned) -> None:
    """Write what a source learned, in one go."""
    write_state_file(path, {"masks": learned.masks, **learned.weights}, {"moments": _GROUPS})


def read_learned(path: Path) -> Learned | None:
    """Read what a source learned; None where the file is missing, or damaged and set aside."""
    if read_metadata(path, ["moments"]) is None:
        return None
    groups, _ = read_state_file(path, _GROUPS)
    return Learned(groups.pop("masks"), groups)


def start_from(model: nn.Module, config: DenseToSparseConfig, learned: Learned) -> pol.StartReport:
    """Give a fresh model the learned masks, and the signs or magnitudes that its arm names.

    Args:
        model: freshly initialised; masked in place.
        config: settings of the run.
        learned: by its source.

    Returns:
        The report, with how many survivors had no sign or no magnitude.
    """
    start = config.start or ""
    if start == "random":
        return pol.start_from_mask(model, learned.masks)
    moment = {"sign10": "10", "mag10": "10", "sign30": "30"}.get(start, "final")
    if start.startswith("sign"):
        return pol.start_from_signs(model, learned.weights[moment], learned.masks)
    generator = torch.Generator().manual_seed(config.stream("mask"))
    return pol.start_from_magnitudes(
        model, learned.weights[moment], learned.masks, generator=generator
    )
