"""Sign-In results sorted into groups of equal settings, and means over seeds within them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ...harness.results import Result
from ...pages.estimates import Estimate, estimate, same_settings, shared_key
from ...pages.published import transcript
from .config import Method

# A method and its rescale period; None where nothing is rescaled.
Arm = tuple[str, int | None]

# What differs between the runs of one comparison.
_VARIED = (
    "seed",
    "method",
    "density",
    "densities",
    "score_images",
    "weight_decay",
    "beta",
    "rescale_period",
    "rescale_until",
    "rescale_momentum",
    "frobenius_decay",
)
_MASKS = {"random": "Random", "snip": "SNIP", "grasp": "GraSP", "synflow": "SynFlow"}
_WAYS = {"": "", "matched": ", rate of m⊙v", "sign_in": " + Sign-In", "mv": " + m⊙v"}
_ORDER = [f"{mask}{way}" for mask in _MASKS for way in ("", "+matched", "+mv", "+sign_in")]
_PAPER_ARCHS = {"cifar10": "cifar10_resnet20", "cifar100": "cifar100_resnet18"}


@dataclass(frozen=True)
class Comparison:
    """Runs that differ in method, density, rescale period and seed, and in nothing else."""

    results: tuple[Result, ...]

    @property
    def config(self) -> dict[str, Any]:
        """Settings of one of the runs."""
        config: dict[str, Any] = self.results[0]["config"]
        return config

    @property
    def shared(self) -> str:
        """The settings that all runs share, as JSON."""
        return shared_key(self.config, _VARIED)

    @property
    def densities(self) -> list[float]:
        """The densities, largest first."""
        return sorted({result["config"]["density"] for result in self.results}, reverse=True)

    @property
    def arms(self) -> list[Arm]:
        """Methods with their rescale periods, in the order of the tables."""
        found = {_arm(result) for result in self.results}
        return sorted(found, key=lambda arm: (_ORDER.index(arm[0]), arm[1] or 0))

    @property
    def main_arms(self) -> list[Arm]:
        """Each method once: of several rescale periods, the one with most runs."""
        chosen: dict[str, Arm] = {}
        for arm in self.arms:
            known = chosen.get(arm[0])
            if known is None or len(self.of(arm)) > len(self.of(known)):
                chosen[arm[0]] = arm
        return list(chosen.values())

    def of(self, arm: Arm, density: float | None = None) -> list[Result]:
        """Return the results of an arm, of all seeds, at one density or at all."""
        return [
            result
            for result in self.results
            if _arm(result) == arm and density in (None, result["config"]["density"])
        ]

    def final(self, arm: Arm, density: float, key: str) -> Estimate | None:
        """Return the mean over seeds of a number of `final`."""
        return estimate(result["final"][key] for result in self.of(arm, density))

    def swept(self) -> list[tuple[str, float]]:
        """Return the methods and densities that have more than one rescale period."""
        periods: dict[tuple[str, float], set[int]] = defaultdict(set)
        for result in self.results:
            config = result["config"]
            if config["rescale_period"] is not None:
                periods[config["method"], config["density"]].add(config["rescale_period"])
        return [key for key, found in periods.items() if len(found) > 1]


def comparisons(results: Iterable[Result]) -> list[Comparison]:
    """Group results by all settings that do not belong to a method."""
    return [Comparison(tuple(group)) for group in same_settings(results, _VARIED)]


def label(arm: Arm, *, period: bool = False) -> str:
    """Return the paper's name of an arm."""
    method, every = arm
    mask, _, way = method.partition("+")
    name = f"{_MASKS[mask]}{_WAYS[way]}"
    return f"{name}, p = {every}" if period and every is not None else name


def published(dataset: str, method: Method | str, density: float) -> str | None:
    """Return the paper's number as printed, with its deviation; None where it prints none."""
    network = _PAPER_ARCHS.get(dataset)
    if network is None:
        return None
    paper, sparsity = transcript("sign_in_to_the_lottery"), f"{1 - density:.4g}"
    if method == "random+mv":
        found = paper["table11_rescaling"][network]["no_rescale"].get(sparsity)
    elif method in ("random", "random+sign_in"):
        key = "sign_in" if method.endswith("sign_in") else "random"
        found = paper["table3_random_mask"][network].get(sparsity, {}).get(key)
    else:
        found = paper["table9_pai"][network].get(method, {}).get(sparsity)
    if found is None:
        return None
    mean, spread = found
    # One run, where the paper's others crashed, has no spread.
    return f"{mean:g}" if spread is None else f"{mean:g} ± {spread:g}"


def _arm(result: Result) -> Arm:
    return result["config"]["method"], result["config"]["rescale_period"]
