"""The claims as the paper states them, each with what groups of runs say of it."""

from __future__ import annotations

from collections.abc import Sequence

from ...harness.results import Result
from ...pages.published import transcript
from ...pages.stated import Judged, Stated
from .captions import departs_from_paper
from .cells import PAGE, PAPER, scale
from .claims import TEXTS, claims
from .config import EXPERIMENT
from .summary import settings

_KINDS = {
    "batch norm": ("resnet", "mobilenet", "shufflenet", "efficientnet"),
    "LayerNorm": ("mixer",),
    "VGG": ("vgg",),
}
_BOTH = ("batch norm", "LayerNorm")
# Where the paper makes the claims that `published_values.json` lists.
_SOURCES = ("Table 2, Figure 3", "Figure 2, appendix A", "Figure 3", "appendix B")
# A claim's text, or the number of the text in `published_values.json`; the keys of what is judged
# of it; and the networks that it is made for.
_LIST: list[tuple[str | int, tuple[str, ...], tuple[str, ...]]] = [
    (0, ("aws_reaches", "lrr_lags", "mask_lags", "aws_over_lrr"), _BOTH),
    (1, ("norms_reach", "norms_gain", "norms_barrier", "norm_signs"), ("batch norm",)),
    (2, ("noise_barrier", "solution_barrier"), ("batch norm",)),
    (3, ("vgg",), ("VGG",)),
    (
        "Any randomly initialised network generalises comparably to a dense one with the signed "
        "mask of AWS",
        ("dense",),
        _BOTH,
    ),
    (
        "Without trained norms the signs of LRR are not beneficial: init + LRR sign is similar to "
        "its mask without signs",
        ("signs_alone",),
        ("batch norm",),
    ),
    ("AWS is comparable to LRR or better", ("aws_lrr",), _BOTH),
    ("The signed mask of AWS is better than Gem-Miner", ("gem",), ("batch norm",)),
]


def stated(results: Sequence[Result]) -> list[Stated]:
    """Return every claim of the paper, once for each part and kind of network."""
    mine = [result for result in results if result["experiment"] == EXPERIMENT]
    groups = [(group, claims(group)) for group in settings(mine)]
    listed = transcript(PAPER)["claims"]
    found = []
    for text, keys, kinds in _LIST:
        for key in keys:
            source, part = TEXTS[key]
            for kind in kinds:
                judged = tuple(
                    Judged(claim, scale(group), departs_from_paper(group), PAGE, len(group.results))
                    for group, of_group in groups
                    if any(name in group.arch for name in _KINDS[kind])
                    for claim in of_group
                    if claim.key == key
                )
                found.append(
                    Stated(_SOURCES[text], listed[text], f"{kind}: {part}", judged)
                    if isinstance(text, int)
                    else Stated(source, text, kind, judged)
                )
    return found
