"""What decides one mask of Figure 9, its name, and its random streams. Nothing here needs torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal, get_args

from ....harness.settings import settings_digest, stream_seed

EXPERIMENT = "layerwise"

MaskName = Literal["balanced", "erk", "uniform", "synflow", "synflow_once", "snip", "magnitude"]
MASKS: tuple[MaskName, ...] = get_args(MaskName)
NAMES: dict[str, str] = {
    "balanced": "Random, balanced (RigL)",
    "erk": "Random, ERK",
    "uniform": "Random, uniform",
    "synflow": "SynFlow, 100 steps",
    "synflow_once": "SynFlow, 1 step",
    "snip": "SNIP, noise images",
    "magnitude": "Magnitude",
}
# SynFlow's published number of steps, and that of the public code that the paper's resembles.
STEPS = {"synflow": 100, "synflow_once": 1}


@dataclass(frozen=True)
class LayerwiseConfig:
    """One mask of one fresh network.

    Attributes:
        arch: name of the network.
        classes: its outputs.
        image_size: height and width of the images that scores are computed with.
        mask: how survivors are chosen.
        density: fraction of the weights that survive.
        seed: of initialisation, random masks and noise images.
        score_images: noise images of SNIP; None for the other masks.
        device: where it is computed.
    """

    arch: str
    classes: int
    image_size: int
    mask: MaskName
    density: float
    seed: int
    score_images: int | None
    device: str = "cpu"
    experiment: str = EXPERIMENT

    @property
    def digest(self) -> str:
        """Short hash of the settings."""
        return settings_digest(asdict(self))

    @property
    def run_id(self) -> str:
        """Readable and unique name of the mask, fit for a file name."""
        parts = (EXPERIMENT, self.arch, self.mask, f"density{self.density:g}", f"seed{self.seed}")
        return "-".join((*parts, self.digest))

    def stream(self, purpose: str) -> int:
        """Return the seed of a stream; masks of one seed share the network."""
        return stream_seed(f"polarity layerwise, seed {self.seed}, {purpose}")
