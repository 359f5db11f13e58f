"""The sentences on Figure 9 as the front page lists them."""

from __future__ import annotations

from collections.abc import Sequence

from ....harness.results import Result
from ....pages.captions import NOT_GIVEN, Row, departures, written
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
    return tuple(departures(settings(group)))


def settings(group: Sequence[Result]) -> list[Row]:
    """Return every setting that a group of masks has in common: its name, ours, and the paper's."""
    config = group[0]["config"]
    rows = [
        Row(key.replace("_", " "), written(value), _PAPER.get(key, NOT_GIVEN))
        for key, value in config.items()
        if key not in (*_VARIED, "experiment")
    ]
    numbers = dict.fromkeys(
        count for result in group if (count := result["config"]["score_images"])
    )
    if numbers:
        rows.append(Row("images of SNIP", "Gaussian noise", "ImageNet's"))
        rows.append(Row("number of SNIP's images", " or ".join(map(written, numbers)), NOT_GIVEN))
    return rows
