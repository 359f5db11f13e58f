"""The paper's recipes under names, section 4.1, with what the official code does otherwise.

Nothing here needs torch, so that `--help` answers at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...harness.recipes import Recipe


@dataclass(frozen=True)
class AwsRecipe:
    """How tickets are found and trained.

    Attributes:
        dataset: data set that the recipe was written for.
        arch: network that it was written for.
        final: the final training, and every re-training of a ticket. Warm-up and rounds take
            everything but epochs and schedule from it.
        warmup_epochs: epochs before the first pruning.
        round_epochs: epochs after each pruning, at the constant peak learning rate.
        rounds: prunings.
        amount: fraction of the survivors that one pruning removes.
        note: where the official code differs from the paper, or what is not stated.
    """

    dataset: str
    arch: str
    final: Recipe
    warmup_epochs: int
    round_epochs: int
    rounds: int
    amount: float = 0.2
    note: str = ""

    @property
    def inside(self) -> Recipe:
        """What a round trains with; its number of epochs is set when it is used."""
        return replace(self.final, schedule="constant")


_NO_ROUNDS = "the number of rounds is the official script's; the paper does not print it"
_SHUFFLE = "the paper cites ShuffleNet (version 1), torchvision has version 2"
_SMALL_ARCHS = ("resnet50", "mobilenet_v2", "shufflenet_v2", "efficientnet_b0")


def _small_images(dataset: str, arch: str, note: str = _NO_ROUNDS) -> AwsRecipe:
    """Return the recipe of CIFAR-100 and Tiny-ImageNet: SGD, 10 + 15 x 10 epochs, then 100."""
    final = Recipe(
        epochs=100,
        batch_size=128,
        lr=0.05 if arch == "mobilenet_v2" else 0.1,
        weight_decay=5e-4,
        schedule="multistep",
        # Not in the paper; usual for these data sets.
        augment=True,
    )
    if arch == "shufflenet_v2":
        note = f"{note}; {_SHUFFLE}"
    return AwsRecipe(dataset, arch, final, 10, 10, 15, note=note)


def _imagenet(arch: str, final: Recipe, note: str) -> AwsRecipe:
    """Return the recipe of ImageNet: 20 + 10 x 5 epochs, then 120 or 200, cosine."""
    code = "the official scripts train 100 epochs and end the cosine at 0.001 of the peak rate"
    return AwsRecipe("imagenet", arch, final, 20, 5, 10, note=f"{_NO_ROUNDS}; {code}; {note}")


_ADAM = Recipe(
    epochs=120,
    batch_size=256,
    optimizer="adam",
    lr=1e-3,
    weight_decay=1e-5,
    schedule="cosine",
    final_lr=1e-3,
    # Not in the paper; usual for ImageNet: a crop of random size, and a flip.
    augment=True,
)

AWS: dict[str, AwsRecipe] = {
    **{f"cifar100-{arch}": _small_images("cifar100", arch) for arch in _SMALL_ARCHS},
    # Appendix B and Figure 4 name no settings of their own; neither net is in the official code.
    **{
        f"cifar100-{arch}": _small_images(
            "cifar100", arch, f"{_NO_ROUNDS}; the network is not in the official code"
        )
        for arch in ("vgg11_bn", "resnet32")
    },
    **{f"tiny_imagenet-{arch}": _small_images("tiny_imagenet", arch) for arch in _SMALL_ARCHS},
    "imagenet-resnet50": _imagenet(
        "resnet50", _ADAM, "Adam with its decay as an L2 penalty, as in the official code"
    ),
    "imagenet-mobilenet_v2": _imagenet(
        "mobilenet_v2",
        replace(_ADAM, optimizer="sgd", lr=0.05, weight_decay=5e-5),
        "SGD with momentum 0.9",
    ),
    "imagenet-mixer_s16": _imagenet(
        "mixer_s16",
        replace(_ADAM, epochs=200, batch_size=512, weight_decay=5e-5),
        "the paper does not say which Mixer; S/16 is our choice",
    ),
}

# What two CPU cores can do: the paper's settings with everything shorter and a cosine, because a
# tenth of the rate for the last quarter of eight epochs would be two epochs' worth of steps.
_SMALL_SGD = Recipe(
    epochs=8,
    batch_size=64,
    lr=0.05,
    weight_decay=5e-4,
    schedule="cosine",
    augment=True,
)
_SMALL_ADAM = replace(_SMALL_SGD, optimizer="adam", lr=2e-3, weight_decay=5e-5)


def small_recipe(dataset: str, arch: str) -> AwsRecipe:
    """Return our own recipe for a small network on a CPU.

    SGD for networks with batch norm and Adam for Mixers, as in the paper; digits are not mirrored.
    """
    final = _SMALL_ADAM if "mixer" in arch else _SMALL_SGD
    if dataset not in ("cifar10", "cifar100"):
        final = replace(final, augment=False)
    return AwsRecipe(dataset, arch, final, 3, 1, 14, note="ours, for a CPU")


def choose_recipe(name: str, dataset: str | None, arch: str | None) -> AwsRecipe:
    """Return the recipe of a name; `small` is ours, `paper` the paper's for the pair.

    Args:
        name: `small`, `paper`, or one of `AWS`.
        dataset: data set. Default: that of the name; cifar10 for `small`.
        arch: network. Default: that of the name; small_resnet for `small`.

    Raises:
        ValueError: unknown name, `paper` for a pair that the paper does not have, or another data
            set or network than those of a named recipe.
    """
    if name == "small":
        return small_recipe(dataset or "cifar10", arch or "small_resnet")
    if name == "paper" and (dataset is None or arch is None):
        raise ValueError(
            "--recipe paper needs --dataset and --arch, or give the recipe by its name"
        )
    wanted = f"{dataset}-{arch}" if name == "paper" else name
    if wanted not in AWS:
        raise ValueError(f"unknown recipe {wanted!r}; known are small, paper, {', '.join(AWS)}")
    recipe = AWS[wanted]
    asked = (dataset or recipe.dataset, arch or recipe.arch)
    if asked != (recipe.dataset, recipe.arch):
        raise ValueError(
            f"--recipe {name} trains {recipe.arch} on {recipe.dataset}, not {asked[1]} on "
            f"{asked[0]}: leave --dataset and --arch out, or take --recipe small"
        )
    return recipe
