"""The claims of the paper on training from scratch, each with what groups of runs say of it."""

from __future__ import annotations

from collections.abc import Sequence

from ...harness.results import Result
from ...pages.stated import Judged, Stated
from .captions import departs_from_paper
from .cells import PAGE, scale
from .claims import TEXTS, claims
from .config import EXPERIMENT
from .summary import comparisons

_PLACES = {
    "cifar10": "CIFAR-10, ResNet-20",
    "cifar100": "CIFAR-100, ResNet-18",
    "imagenet": "ImageNet, ResNet-50",
}
_CIFAR = ("cifar10", "cifar100")
# The data sets that a claim is made for, by its key.
_LIST = {
    "table3": tuple(_PLACES),
    "table11": tuple(_PLACES),
    "table9": _CIFAR,
    "random": _CIFAR,
    "flips": ("imagenet",),
    "flat": ("imagenet",),
}


def stated(results: Sequence[Result]) -> list[Stated]:
    """Return every claim, once for each data set that it is made for.

    Figure 5 shows ImageNet alone; what CIFAR-10 says of it stands for that.
    """
    mine = [result for result in results if result["experiment"] == EXPERIMENT]
    groups = [(group, claims(group)) for group in comparisons(mine)]
    found = [
        Stated(
            *TEXTS[key],
            _PLACES[dataset],
            tuple(
                Judged(
                    claim,
                    scale(group),
                    departs_from_paper(group.results[0]),
                    PAGE,
                    len(group.results),
                )
                for group, judged in groups
                if group.config["dataset"] == dataset
                or (key in ("flips", "flat") and group.config["dataset"] in _CIFAR)
                for claim in judged
                if claim.key == key
            ),
        )
        for key, datasets in _LIST.items()
        for dataset in datasets
    ]
    deit = "A randomly masked vision transformer gains more than 1 point with Sign-In"
    return [*found, Stated("Table 4", deit, "ImageNet, DeiT-S")]
