"""The recipes of Tables 6 and 7 of "Sign-In to the Lottery", by name.

Nothing here needs torch, so `--help` answers at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from benchmarks.harness.names import NetworkName
from benchmarks.harness.recipes import Recipe


@dataclass(frozen=True)
class SignInPart:
    """What Sign-In adds to a recipe, and the weight decay that then replaces the recipe's.

    Attributes:
        beta: inner scaling m² − v² of every weight.
        until: epoch T2 from which on nothing is rescaled any more.
        frobenius_decay: λ of the penalty λ/2 · Σ(m⊙v)², whose gradient in θ = m⊙v is λθ, that of
            a weight decay λ. The paper says "(m⊙w)² with the same strength as weight decay".
        weight_decay: decay of m, v and every other parameter.
    """

    beta: float
    until: int
    frobenius_decay: float
    weight_decay: float


@dataclass(frozen=True)
class SignInRecipe:
    """A row of Table 6 and the same row of Table 7."""

    dataset: str
    arch: NetworkName
    plain: Recipe
    part: SignInPart

    @property
    def converted(self) -> Recipe:
        """The recipe under Sign-In (and m⊙v): Table 7's weight decay overrides Table 6's."""
        return replace(self.plain, weight_decay=self.part.weight_decay)

    def scaled(self, epochs: int) -> SignInRecipe:
        """Return the recipe over another number of epochs, T2 at the same fraction of them."""
        until = max(1, round(self.part.until * epochs / self.plain.epochs))
        return replace(self, plain=self.plain.scaled(epochs), part=replace(self.part, until=until))


_CIFAR = Recipe(
    epochs=150,
    batch_size=512,
    lr=0.2,
    weight_decay=1e-4,
    schedule="triangular",
    # Not in the tables; usual for CIFAR, and what the printed accuracies need.
    augment=True,
)

# "Confidence 0.9" is a label smoothing of 0.1. Crops and flips are made while the files are read
# (imagenet.py).
_IMAGENET = Recipe(
    epochs=100,
    batch_size=1024,
    lr=0.25,
    weight_decay=5e-5,
    schedule="triangular",
    label_smoothing=0.1,
)

SIGN_IN: dict[str, SignInRecipe] = {
    "cifar10-resnet20": SignInRecipe("cifar10", "resnet20", _CIFAR, SignInPart(1.0, 75, 1e-4, 0.0)),
    "cifar100-resnet18": SignInRecipe(
        "cifar100", "resnet18", _CIFAR, SignInPart(1.0, 75, 1e-4, 0.0)
    ),
    "imagenet-resnet50": SignInRecipe(
        "imagenet",
        "resnet50",
        _IMAGENET,
        SignInPart(1.0, 75, 0.0, 5e-5),
    ),
    "imagenet-deit-small": SignInRecipe(
        "imagenet",
        "deit_small",
        replace(_IMAGENET, epochs=300, optimizer="adamw", lr=1e-3, weight_decay=0.1),
        SignInPart(1.0, 225, 0.0, 0.1),
    ),
}
