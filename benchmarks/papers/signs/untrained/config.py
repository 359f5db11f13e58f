"""What decides the smallest survivors of one fresh network. Nothing here needs torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from ....harness.names import Arch, Init
from ....harness.settings import settings_digest
from ..config import Scope, Stream, run_stream

EXPERIMENT = "untrained"
# The papers' networks with the data sets that they are built for; no data is read.
NETWORKS: tuple[tuple[str, Arch], ...] = (
    ("mnist", "fc"),
    ("cifar10", "conv2"),
    ("cifar10", "conv4"),
    ("cifar10", "conv6"),
    ("cifar10", "vgg16"),
    ("cifar100", "vgg16"),
)
# Channels, height and width of an image, and the number of classes.
SHAPES = {
    "mnist": ((1, 28, 28), 10),
    "cifar10": ((3, 32, 32), 10),
    "cifar100": ((3, 32, 32), 100),
}


@dataclass(frozen=True)
class UntrainedConfig:
    """One fresh network, pruned once.

    Attributes:
        dataset: data set that it is built for.
        arch: name of the network.
        init: how its weights are drawn.
        prune_base: density after pruning, that of round 1.
        prune_scope: compare magnitudes across the network or within each layer.
        seed: of the initialisation; the runs of this seed train the same network.
        device: where it is computed.
    """

    dataset: str
    arch: Arch
    init: Init
    prune_base: float
    prune_scope: Scope
    seed: int
    device: str = "cpu"
    experiment: str = EXPERIMENT

    @property
    def digest(self) -> str:
        """Short hash of the settings."""
        return settings_digest(asdict(self))

    @property
    def run_id(self) -> str:
        """Readable and unique name, fit for a file name."""
        parts = (EXPERIMENT, self.dataset, self.arch, f"seed{self.seed}", self.digest)
        return "-".join(parts)

    def stream(self, purpose: Stream) -> int:
        """Return the seed of a random stream, that of the runs of the same seed."""
        return run_stream(self.seed, purpose)
