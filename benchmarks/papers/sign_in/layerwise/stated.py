"""The sentences on Figure 9 as the front page lists them."""

from __future__ import annotations

from collections.abc import Sequence

from ....harness.results import Result
from ....pages.captions import Row, departures, written
from ....pages.estimates import same_settings
from ....pages.stated import Judged, Stated
from .claims import claims
from .config import EXPERIMENT

# What differs between the masks of one comparison.
_VARIED = ("mask", "seed", "score_images")
_PAPER = {"arch": "resnet50", "classes": "1000", "image_size": "224", "density": "0.1"}


def stated(results: Sequence[Result]) -> list[Stated]:
    """Return every sentence, with what groups of masks say of it; our controls are left out."""
    mine = [result for result in results if result["experiment"] == EXPERIMENT]
    found: dict[tuple[str, str], list[Judged]] = {}
    for group in same_settings(mine, _VARIED):
        scale = f"{group[0]['config']['arch']} at initialisation"
        for claim in claims(group):
            if claim.source != "Control":
                judged = Judged(claim, scale, departs_from_paper(group), "sign_in.md", len(group))
                found.setdefault((claim.source, claim.text), []).append(judged)
    return [Stated(*claim, "ImageNet, ResNet-50", tuple(each)) for claim, each in found.items()]


def departs_from_paper(group: Sequence[Result]) -> tuple[str, ...]:
    """Return everything that the paper has otherwise; nothing at the paper's scale."""
    config = group[0]["config"]
    rows = [Row(key, written(config[key]), value) for key, value in _PAPER.items()]
    noise = any(result["config"]["score_images"] for result in group)
    images = [Row("images of SNIP", "Gaussian noise", "ImageNet's")] if noise else []
    return tuple(departures([*rows, *images]))
