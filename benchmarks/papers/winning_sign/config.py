"""What decides the outcome of one AWS run, its name and its random streams; nothing needs torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from ...harness.recipes import Recipe
from ...harness.settings import settings_digest, stream_seed
from .recipes import AwsRecipe

EXPERIMENT = "winning_sign"
AwsArch = Literal[
    "small_resnet",
    "resnet20",
    "resnet32",
    "resnet50",
    "mixer",
    "mixer_s16",
    "small_vgg",
    "vgg11_bn",
    "mobilenet_v2",
    "shufflenet_v2",
    "efficientnet_b0",
]
# rounds: find; final: train a ticket or a baseline; barrier: walk between two trained networks.
Kind = Literal["rounds", "final", "barrier"]


@dataclass(frozen=True)
class AwsConfig:
    """One run: a setting, and what of the comparison is computed in it.

    Attributes:
        recipe: how networks are trained, and how many rounds there are.
        seed: of every random stream.
        train_size: Random subset of that many training images; None is all.
        test_size: likewise of the test images.
        recalibrate: training images that batch-norm statistics are computed from at a point of an
            error barrier.
        prune_classifier: count and prune the classifier too.
        official_signs: tickets lend the signs of classifier and biases too, as the official code's.
        score_lr: learning rate of Gem-Miner's scores.
        score_penalty: its L2 penalty on them.
        device: where it runs.
        bf16: forward passes in bfloat16.
        image_size: height and width of images from folders; None is the data set's own.
        kind: what sort of run this is.
        subject: what is found, trained or compared; see `contestants`.
        round: round of the ticket, 0 for dense networks.
        order: which SGD noise the final training has.
    """

    recipe: AwsRecipe
    seed: int
    train_size: int | None = None
    test_size: int | None = None
    recalibrate: int = 1000
    prune_classifier: bool = False
    official_signs: bool = False
    score_lr: float = 0.1
    score_penalty: float = 0.0
    device: str = "cpu"
    bf16: bool = False
    image_size: int | None = None
    kind: Kind = "rounds"
    subject: str = "lrr"
    round: int = 0
    order: int = 0

    def task(self, kind: Kind, subject: str, round: int = 0, order: int = 0) -> AwsConfig:
        """Return another run of the same setting and seed.

        What does not bear on it is left out of its digest: Gem-Miner's settings on other runs.
        """
        task = replace(self, kind=kind, subject=subject, round=round, order=order)
        if subject != "gem_miner":
            task = replace(task, score_lr=0.0, score_penalty=0.0)
        return task

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> AwsConfig:
        """Read back the settings as a result file states them."""
        recipe = AwsRecipe(**{**stored["recipe"], "final": Recipe(**stored["recipe"]["final"])})
        return cls(**{**stored, "recipe": recipe})

    @property
    def experiment(self) -> str:
        """Name of the experiment, as result files state it."""
        return EXPERIMENT

    @property
    def dataset(self) -> str:
        """Name of the data set."""
        return self.recipe.dataset

    @property
    def digest(self) -> str:
        """Short hash of the settings; the note of a recipe decides nothing."""
        decisive = asdict(self)
        if self.image_size is None:
            # Results that are older than this setting keep their names.
            decisive.pop("image_size")
        decisive["recipe"].pop("note")
        return settings_digest(decisive)

    @property
    def run_id(self) -> str:
        """Readable and unique name of the run, fit for a file name."""
        place = [] if self.kind == "rounds" else [f"round{self.round}"]
        order = [f"order{self.order}"] if self.kind == "final" else []
        subject = self.subject.replace(":", "-")  # not every file system takes colons
        parts = (EXPERIMENT, self.recipe.dataset, self.recipe.arch, self.kind, subject)
        return "-".join((*parts, *place, *order, f"seed{self.seed}", self.digest))

    @property
    def density(self) -> float:
        """Density of the ticket's round."""
        return (1 - self.recipe.amount) ** self.round

    def stream(self, purpose: str) -> int:
        """Return the seed of a stream: init, fresh, other, rounds, alpha, scores, order0, ….

        They depend on the seed alone: contestants start from the same fresh network and see the
        same batches, so that they differ in their tickets and nothing else.
        """
        return stream_seed(f"polarity winning_sign, seed {self.seed}, stream {purpose}")
