"""Who takes part in the comparisons, which pairs are compared, and in which part of the paper.

The names are those of the published table: `lrr` and `aws` are the sparse networks as they were
found, `init+…` is a fresh random network that a ticket was applied to, `other+…` another one.
Nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

# What a fresh network gets from the found one; see `starts`.
Gift = Literal["signs", "mask", "signs, norms", "signs, norm signs", "signs, norm bias"]


@dataclass(frozen=True)
class Contestant:
    """One network of a comparison.

    Attributes:
        finder: whose ticket it carries; None for the dense network.
        fresh: stream of the random network that the ticket is applied to; None where training goes
            on from the found network itself.
        gift: what a fresh network gets from the found one.
        label: as tables and legends call it.
    """

    finder: str | None
    fresh: str | None
    gift: Gift | None
    label: str


CONTESTANTS: dict[str, Contestant] = {
    "dense": Contestant(None, "init", None, "dense"),
    # Final training alone is shorter than what LRR and AWS networks have had by then.
    "dense_longer": Contestant(None, "init", None, "dense, as many epochs as LRR and AWS"),
    "lrr": Contestant("lrr", None, None, "LRR"),
    "aws": Contestant("aws", None, None, "AWS"),
    "init+lrr_sign": Contestant("lrr", "fresh", "signs", "init + LRR sign"),
    "init+aws_sign": Contestant("aws", "fresh", "signs", "init + AWS sign"),
    "init+lrr_mask": Contestant("lrr", "fresh", "mask", "init + LRR mask"),
    "init+lrr_sign+norms": Contestant(
        "lrr", "fresh", "signs, norms", "init + LRR sign, trained norms"
    ),
    "init+lrr_sign+norm_signs": Contestant(
        "lrr", "fresh", "signs, norm signs", "init + LRR sign, norm signs, β 0.1"
    ),
    "init+lrr_sign+norm_bias": Contestant(
        "lrr", "fresh", "signs, norm bias", "init + LRR sign, β 0.1"
    ),
    "other+lrr_sign": Contestant("lrr", "other", "signs", "another init + LRR sign"),
    "other+aws_sign": Contestant("aws", "other", "signs", "another init + AWS sign"),
    "imp": Contestant("imp", None, None, "IMP"),
    "wr": Contestant("wr", None, None, "weight rewinding"),
    "gem_miner": Contestant("gem_miner", None, None, "Gem-Miner"),
}
SIX = ("dense", "lrr", "aws", "init+lrr_sign", "init+aws_sign", "init+lrr_mask")


@dataclass(frozen=True)
class Part:
    """A part of the paper: its contestants at every density, and its pairs at one.

    Attributes:
        everywhere: contestants at every reported density.
        once: contestants at the density of the barriers only.
        pairs: names in `PAIRS`, at the density of the barriers.
        source: where in the paper.
    """

    everywhere: Sequence[str]
    pairs: Sequence[str] = ()
    once: Sequence[str] = ()
    source: str = ""


# An endpoint is a contestant after its final training with one SGD noise, a found network as it
# is, or a found network with initial norms.
Endpoint = tuple[str, str, int]
PAIRS: dict[str, tuple[Endpoint, Endpoint]] = {
    # Stability against SGD noise as the paper defines it: one start, two orders of the data.
    **{
        f"noise:{name}": (("final", name, 0), ("final", name, 1))
        for name in ("lrr", "aws", "init+lrr_sign", "init+aws_sign", "init+lrr_sign+norms")
    },
    # As the official script measures it: two random initialisations too.
    **{
        f"two-inits:{name}_sign": (
            ("final", f"init+{name}_sign", 0),
            ("final", f"other+{name}_sign", 1),
        )
        for name in ("lrr", "aws")
    },
    # Linear mode connectivity to the solution that the ticket came from.
    **{
        f"solution:{name}": (("final", name.split("+")[1].split("_")[0], 0), ("final", name, 1))
        for name in ("init+lrr_sign", "init+aws_sign", "init+lrr_sign+norms")
    },
    "solution:init+lrr_sign+norm_signs": (
        ("final", "lrr", 1),
        ("final", "init+lrr_sign+norm_signs", 0),
    ),
    # What AWS is made to keep low: from the found network to the same with initial norms.
    "norms:lrr": (("found", "lrr", 0), ("initial-norms", "lrr", 0)),
    "norms:aws": (("found", "aws", 0), ("initial-norms", "aws", 0)),
}

PARTS: dict[str, Part] = {
    "six": Part(
        SIX[1:],
        (
            "noise:lrr",
            "noise:aws",
            "noise:init+lrr_sign",
            "noise:init+aws_sign",
            "two-inits:lrr_sign",
            "two-inits:aws_sign",
            "solution:init+lrr_sign",
            "solution:init+aws_sign",
            "norms:lrr",
            "norms:aws",
        ),
        ("dense_longer",),
        source="Figure 3 and Table 2",
    ),
    "norms": Part(
        ("lrr", "init+lrr_sign", "init+lrr_sign+norms", "init+lrr_mask"),
        (
            "noise:lrr",
            "noise:init+lrr_sign",
            "noise:init+lrr_sign+norms",
            "solution:init+lrr_sign",
            "solution:init+lrr_sign+norms",
        ),
        source="Figure 2",
    ),
    "norm_signs": Part(
        ("lrr", "init+lrr_sign"),
        ("solution:init+lrr_sign", "solution:init+lrr_sign+norm_signs"),
        ("init+lrr_sign+norm_signs", "init+lrr_sign+norm_bias"),
        source="appendix A, Figure 5",
    ),
    "gem_miner": Part(("aws", "init+aws_sign", "gem_miner"), source="Figure 4"),
    "rewinding": Part(("imp", "wr"), source="section 2"),
}


def pair_label(pair: str) -> str:
    """Name the network that a pair is about, as tables and legends call it."""
    name = pair.split(":", 1)[1]
    return CONTESTANTS.get(name, CONTESTANTS.get(f"init+{name}", CONTESTANTS["dense"])).label
