"""The claims as the two sign papers state them, each with what groups of runs say of it."""

from __future__ import annotations

from collections.abc import Sequence

from ...harness.results import Result
from ...pages.claims import Case, Claim
from ...pages.paired import compare
from ...pages.published import PAPERS, transcript
from ...pages.stated import Judged, Stated
from ...pages.verdicts import positive
from .cells import departs, scale
from .claims import claims, losses
from .fragility import EXPERIMENT as FRAGILITY
from .summary import groups_of

# A claim's source and text, or the number of the text in `published_values.json`; then the data
# sets and networks that it is made for, each with the key of what judges it there.
_FRAGILITY: list[tuple[str, str | int, list[tuple[str, str, str]]]] = [
    ("section 3.1", 0, [("mnist", "fc", "above_97")]),
    ("section 3.1, Table 1", "On MNIST `standard` is the best", [("mnist", "fc", "standard")]),
    ("section 3.2", 1, [("cifar10", "vgg", "mask1_vgg")]),
    (
        "section 3.2, Table 2",
        "On CIFAR-10 strategies with learned signs (`gradual`, `mask0`) overcome the fragility of "
        "`mask1`",
        [("cifar10", arch, "learned") for arch in ("conv2", "conv4", "conv6", "vgg")],
    ),
    (
        "section 3.3, Table 3",
        "On CIFAR-100 `gradual` and `mask1` are significantly above `mask0` and `standard`",
        [("cifar100", "vgg", "initial")],
    ),
    (
        "abstract",
        2,
        [
            ("mnist", "fc", "delta"),
            *(("cifar10", arch, "delta") for arch in ("conv2", "conv4", "conv6", "vgg")),
            ("cifar100", "vgg", "delta"),
        ],
    ),
]
_ZERO_CROSSING: list[tuple[str, str | int, list[tuple[str, str, str]]]] = [
    (
        "abstract",
        "Accuracy consistently peaks at a threshold φ that is not zero",
        [
            ("mnist", "fc", "peak"),
            *(("cifar10", arch, "peak") for arch in ("conv2", "conv4", "conv6", "vgg")),
            ("cifar100", "vgg", "peak"),
        ],
    ),
    (
        "section 3.1, Table 1",
        "On MNIST the definition of polarity is irrelevant",
        [("mnist", "fc", "little")],
    ),
    (
        "section 3.2, Table 2",
        "On CIFAR-10 strategies with learned signs (`gradual`, `mask0`) outperform `mask1`",
        [("cifar10", arch, "learned") for arch in ("conv2", "conv4", "conv6", "vgg")],
    ),
    (
        "section 3.3, Table 3",
        "On CIFAR-100 `gradual` is the best, by a narrow margin",
        [("cifar100", "vgg", "gradual")],
    ),
]
_LISTS = {"fragility": _FRAGILITY, "zero_crossing": _ZERO_CROSSING}
_NAMES = {"mnist": "MNIST", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "vgg": "VGG"}


def stated(results: Sequence[Result], experiment: str) -> list[Stated]:
    """Return every claim of a paper, once for each data set and network that it is made for."""
    mine = [result for result in results if result["experiment"] == experiment]
    groups = [(group, claims(group)) for group in groups_of(mine)]
    listed = transcript(PAPERS[experiment]).get("claims", [])
    found = [
        Stated(
            source,
            text if isinstance(text, str) else listed[text],
            f"{_NAMES[dataset]}, {_NAMES.get(network, network)}",
            tuple(
                Judged(claim, scale(group), departs(group), f"{experiment}.md", len(group))
                for group, judged in groups
                if _made_for(group, dataset, network)
                for claim in judged
                if claim.key == key
            ),
        )
        for source, text, places in _LISTS[experiment]
        for dataset, network, key in places
    ]
    if experiment == FRAGILITY:
        found += _gradient([group for group, _ in groups])
    return found


def _gradient(groups: Sequence[Sequence[Result]]) -> list[Stated]:
    """Judge the complexity gradient: `mask1` loses more by flips where the task is harder."""
    text = "The harder the task, the more fragile is `mask1`: a complexity gradient"
    steps = [("mnist", "cifar10"), ("cifar10", "cifar100")]
    return [
        Stated(
            "abstract",
            text,
            f"{_NAMES[hard]} after {_NAMES[easy]}",
            tuple(
                Judged(
                    _steeper(first, second),
                    f"{scale(first)}; {scale(second)}",
                    tuple(dict.fromkeys((*departs(first), *departs(second)))),
                    "fragility.md",
                    len(first) + len(second),
                )
                for first in groups
                if first[0]["config"]["dataset"] == easy
                for second in groups
                if second[0]["config"]["dataset"] == hard
            ),
        )
        for easy, hard in steps
    ]


def _steeper(easy: Sequence[Result], hard: Sequence[Result]) -> Claim:
    """Compare what flips cost `mask1` on two data sets; the paper prints no number."""
    first, second = losses(easy, "mask1"), losses(hard, "mask1")
    cases = []
    for size in sorted(first.keys() & second.keys()):
        gain = compare(second[size], first[size])
        cases.append(Case(f"ε = {size:g}", positive(gain, None), gain, None))
    measure = "loss of `mask1` by flips on the harder task − on the easier (points)"
    return Claim("abstract", "complexity gradient", measure, tuple(cases))


def _made_for(group: Sequence[Result], dataset: str, network: str) -> bool:
    config = group[0]["config"]
    return config["dataset"] == dataset and str(config["arch"]).startswith(network)
