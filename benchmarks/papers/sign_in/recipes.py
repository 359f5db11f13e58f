"""The recipes of Tables 6 and 7 of "Sign-In to the Lottery", and its dense-to-sparse methods.

Nothing here needs torch, so `--help` answers at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from ...harness.names import NetworkName
from ...harness.recipes import Recipe


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


@dataclass(frozen=True)
class ACDCPart:
    """AC/DC on ImageNet, as its own paper and code have it. The Sign-In paper gives no setting.

    Attributes:
        calendar: phases by name, of `acdc_switches`.
        momentum: when the optimizer's averages are zeroed.
    """

    calendar: Literal["imagenet"] = "imagenet"
    momentum: Literal["dense"] = "dense"


@dataclass(frozen=True)
class RigLPart:
    """RigL on ImageNet, as its own paper and code have it. The Sign-In paper gives no setting.

    Attributes:
        every: steps ΔT between updates.
        until: last update, as a fraction of all steps.
        fraction: of the survivors of a layer, exchanged at the first update.
        replace_step: whether an update takes the place of the gradient step.
    """

    every: int = 100
    until: float = 0.75
    fraction: float = 0.3
    replace_step: bool = True


@dataclass(frozen=True)
class STRPart:
    """STR on ImageNet, as its own configuration for ResNet-50 has it.

    The Sign-In paper gives no setting. A published decay belongs to the learning rates of its own
    run: that of 0.0000225 would bring s from −3200 to −82 in a run of Table 6, and leave every
    weight. Ours keeps what it adds up to instead, so that s gets as far in the same part of a run.

    Attributes:
        s0: initial value of s.
        pull: Σ η·λ / (1 − μ) over the published run, of 100 epochs of 5005 steps with η = 0.256
            (5 epochs of warm-up, then a cosine), μ = 0.875 and λ = 0.00002251757813.
        density: at which the published run ended, about.
    """

    s0: float = -3200.0
    pull: float = 11.77
    density: float = 0.1


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

# Method of the ImageNet command: what makes the network sparse.
Method = Literal["random", "acdc", "rigl", "str"]

# All of the paper's dense-to-sparse runs on ImageNet train this recipe's network, by its Table 6.
DENSE_TO_SPARSE_RECIPE = "imagenet-resnet50"
ACDC, RIGL, STR = ACDCPart(), RigLPart(), STRPart()
