"""`python -m benchmarks sign_in layerwise`: the layerwise densities of untrained masks."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from ....harness.command_line import RunOptions, conduct, too_small
from ....harness.names import NetworkName
from .config import MASKS, LayerwiseConfig, MaskName
from .report import describe

if TYPE_CHECKING:
    from ....harness.sweep import Outcome


@dataclass
class LayerwiseOptions:
    """Layerwise densities of masks that need no training (Figure 9 of Sign-In).

    Without further options: torchvision's ResNet-50 for ImageNet at its random initialisation. A
    seed takes about ten minutes of one core, nearly all of it SynFlow's.
    """

    # Masks. The paper's Figure 9 is at 90 % sparsity; it names AC/DC, RigL, STR, Snip and Synflow.
    masks: tuple[MaskName, ...] = MASKS

    # Network. The paper: resnet50.
    arch: NetworkName = "resnet50"

    # Outputs of the network. The paper's ImageNet has 1000.
    classes: int = 1000

    # Height and width of the images that scores are computed with.
    image_size: int = 224

    # Fraction of the weights that survive. The paper: 0.1.
    density: float = 0.1

    # Gaussian noise images with random labels that SNIP looks at.
    score_images: int = 64

    # Seeds of initialisation, random masks and noise.
    seeds: tuple[int, ...] = (0, 1, 2)

    # Where masks are computed, and what is shown of them.
    where: tyro.conf.OmitArgPrefixes[RunOptions] = field(
        default_factory=lambda: RunOptions(out=Path("runs/layerwise"))
    )


def main(options: LayerwiseOptions) -> int:
    """Compute the masks, print their table and draw them; gives 0, or 1 where one failed."""

    def perform() -> tuple[list[LayerwiseConfig], list[Outcome]]:
        # Not before here: torch is slow to import, and --help must not wait for it.
        from ....harness.untrained import compute
        from .run import measure

        configs = configurations(options)
        return configs, compute(configs, options.where.place(), measure)

    return conduct(options.where, _problems(options), perform, describe)


def configurations(options: LayerwiseOptions) -> list[LayerwiseConfig]:
    """Return the masks that options ask for, seed by seed."""
    return [
        LayerwiseConfig(
            arch=options.arch,
            classes=options.classes,
            image_size=options.image_size,
            mask=mask,
            density=options.density,
            seed=seed,
            score_images=options.score_images if mask == "snip" else None,
            device=options.where.chosen_device(),
        )
        for seed in dict.fromkeys(options.seeds)
        for mask in dict.fromkeys(options.masks)
    ]


def _problems(options: LayerwiseOptions) -> list[str]:
    problems = too_small(options, ("classes", "image_size", "score_images"))
    if not (options.seeds and options.masks):
        problems.append("at least one seed and one mask are needed")
    if not 0 < options.density <= 1:
        problems.append(f"--density {options.density:g} is not above 0 and at most 1")
    if options.where.bf16 or options.where.compile:
        problems.append("--bf16 and --compile are not offered: nothing is trained")
    return problems
