"""The options of the ImageNet command, and what of them decides a run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from .config import Densities
from .recipes import DENSE_TO_SPARSE_RECIPE, STR, Method

# These may change when a run is resumed.
_NOT_OF_THE_RUN = ("data", "workers", "save", "checkpoint")


@dataclass
class ImageNetOptions:
    """Sparse and dense-to-sparse training on ImageNet (Tables 1, 3, 4, 5, 9 and 11 of Sign-In)."""

    recipe: Annotated[Literal["imagenet-resnet50", "imagenet-deit-small"], tyro.conf.Positional] = (
        "imagenet-resnet50"  # Recipe of Tables 6 and 7.
    )
    # A random mask from the start, or AC/DC, RigL, STR. The paper gives none of their settings:
    # those of their own papers are taken, and said in benchmarks/papers/sign_in/recipes.py.
    method: Method = "random"
    data: Path | None = None  # Folder with train/ and val/, a folder per class in each.
    synthetic: int | None = None  # Train on this many random images, test on a quarter as many.
    # Fraction of the weights that survive. What STR ends at follows from its decay instead.
    density: float = 0.1
    # How a random mask, and RigL's, spread it over layers. The paper: balanced.
    layers: Densities = "balanced"
    sign_in: bool = False  # Train as m⊙v; without --rescale-period it is never rescaled.
    rescale_period: int | None = None  # Period p in epochs. The paper does not give it.
    # RigL: steps from one update to the next. Default: 100, RigL's own; a short run needs fewer.
    update_every: int | None = None
    # STR: weight decay of s. Default: what adds up over the run to what the published one does,
    # which is known for density 0.1 and --str-s0 -3200 only.
    str_decay: float | None = None
    str_s0: float = STR.s0  # STR: initial value of s. The default is published for ImageNet.
    image_size: int = 224  # Height and width of an image.
    classes: int = 1000  # Classes of the synthetic images.
    epochs: int | None = None  # Default: the recipe's. T2, calendars and schedules are stretched.
    batch_size: int | None = None  # Images per step over all processes. Default: the recipe's.
    seed: int = 0  # Of initialisation, mask and order.
    workers: int = 8  # Processes that read images, per rank.
    bf16: bool = False  # Forward passes in bfloat16.
    # Folder, seen by every process, of the run's state after each epoch. A run that finds a state
    # there goes on from it, on as many processes as before.
    checkpoint: Path | None = None
    save: Path | None = None  # Where rank 0 writes the merged model's weights.

    def deciding(self) -> dict[str, Any]:
        """Return the options that decide what a run computes."""
        return {key: value for key, value in asdict(self).items() if key not in _NOT_OF_THE_RUN}


def check(options: ImageNetOptions, ranks: int) -> None:
    """Stop unless the options go together."""
    if (options.data is None) == (options.synthetic is None):
        raise SystemExit("error: give exactly one of --data and --synthetic")
    if options.method != "random" and options.recipe != DENSE_TO_SPARSE_RECIPE:
        raise SystemExit(
            f"error: --method {options.method} with {options.recipe}: the paper trains it on "
            f"{DENSE_TO_SPARSE_RECIPE} alone"
        )
    if options.rescale_period is not None and not options.sign_in:
        raise SystemExit("error: --rescale-period is for --sign-in")
    if options.update_every is not None and options.method != "rigl":
        raise SystemExit("error: --update-every is for --method rigl")
    if (options.str_decay, options.str_s0) != (None, STR.s0) and options.method != "str":
        raise SystemExit("error: --str-decay and --str-s0 are for --method str")
    if options.batch_size is not None and options.batch_size % ranks:
        raise SystemExit(
            f"error: --batch-size {options.batch_size} over {ranks} processes, expected a multiple"
        )
    published = (options.density, options.str_s0) == (STR.density, STR.s0)
    if options.method == "str" and options.str_decay is None and not published:
        raise SystemExit(
            f"error: --density {options.density:g} --str-s0 {options.str_s0:g}: no decay is "
            f"published but for density {STR.density:g} and s0 {STR.s0:g}; search for one with "
            "polarity.dense_to_sparse.find_decay and give it as --str-decay"
        )
