"""Dense-to-sparse results sorted by arm, density and seed, with the paper's numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ....harness.results import Result
from ....pages.estimates import Estimate, estimate, same_settings, shared_key
from ....pages.paired import Spread, pooled_spread, spread_to_reference
from ....pages.published import transcript
from .config import METHODS, SEARCH, STARTS

# What differs between the runs of one comparison: what belongs to an arm.
VARIED = (
    "arm",
    "seed",
    "density",
    "densities",
    "score_images",
    "weight_decay",
    "beta",
    "rescale_period",
    "rescale_until",
    "rescale_momentum",
    "frobenius_decay",
    "acdc_calendar",
    "rigl_updates",
    "rigl_until",
    "rigl_fraction",
    "rigl_replace_step",
    "str_s0",
    "str_decay",
    "search_seed",
    "search_between",
    "search_runs",
    "search_tolerance",
)
MASKS = ("acdc", "rigl", "str", "snip", "synflow", "random")
NAMES = {
    "acdc": "AC/DC",
    "rigl": "RigL",
    "str": "STR",
    "snip": "SNIP",
    "synflow": "SynFlow",
    "random": "Random",
}
# The density of Tables 1 and 10 and of the figures.
DENSITY = 0.1
# The rows of Table 1, by the paper's key; the runs they are made of end their arm's name.
TABLE1 = {
    "": "baseline",
    "sign10": "epoch10_sign+mask",
    "sign30": "epoch30_sign+mask",
    "sign_final": "final_sign+mask",
    "mag10": "epoch10_mag+mask",
    "mag_final": "final_mag+mask",
    "random": "random_init+mask",
}

# One number per seed.
Seeds = dict[int, float]


@dataclass(frozen=True)
class Comparison:
    """Runs that differ in arm, density and seed, and in nothing that all arms share."""

    results: tuple[Result, ...]

    @property
    def config(self) -> dict[str, Any]:
        """Settings of one of the runs."""
        config: dict[str, Any] = self.results[0]["config"]
        return config

    @property
    def shared(self) -> str:
        """The settings that all runs share, as JSON."""
        return shared_key(self.config, VARIED)

    @cached_property
    def _cells(self) -> dict[tuple[str, float], list[Result]]:
        """Results by arm and density: of several settings of an arm, those with most runs.

        Of equally many the paper's layers are taken, which are balanced.
        """
        cells: dict[tuple[str, float], list[Result]] = {}
        for group in same_settings(self.results, ("seed",)):
            config = group[0]["config"]
            key = config["arm"], config["density"]
            if _rank(group) > _rank(cells.get(key, ())):
                cells[key] = _by_seed(group)
        return cells

    @cached_property
    def layers_of_rigl(self) -> dict[str, list[Result]]:
        """RigL's runs by how their masks spread over layers: those shown, then others.

        The others differ in nothing else.
        """
        found: dict[str, list[Result]] = {}
        if shown := self.of("rigl"):
            found[shown[0]["config"]["densities"]] = shown
            of_shown = _all_but_layers(shown[0])
            alike = [result for result in self.results if _all_but_layers(result) == of_shown]
            for group in same_settings(alike, ("seed",)):
                found.setdefault(group[0]["config"]["densities"], _by_seed(group))
        return found

    @property
    def shown(self) -> list[Result]:
        """The runs that tables and figures are made of, the search for STR's decay among them."""
        return [result for cell in self._cells.values() for result in cell]

    @property
    def tabulated(self) -> list[Result]:
        """The runs that are shown, and RigL's with other layers."""
        shown = {id(result) for result in self.shown}
        rest = [r for runs in self.layers_of_rigl.values() for r in runs if id(r) not in shown]
        return [*self.shown, *rest]

    @property
    def left_out(self) -> Counter[str]:
        """How many runs of each arm are not shown: an arm's other settings have more."""
        shown = {id(result) for result in self.tabulated}
        return Counter(
            result["config"]["arm"] for result in self.results if id(result) not in shown
        )

    @property
    def search(self) -> Result | None:
        """The search for STR's decay."""
        found = [result for result in self.shown if result["config"]["arm"] == SEARCH]
        return found[0] if found else None

    def of(self, arm: str, density: float = DENSITY) -> list[Result]:
        """Return the results of an arm at a density, by seed."""
        return self._cells.get((arm, density), [])

    def seeds(self, arm: str, key: str, density: float = DENSITY) -> Seeds:
        """Return a number of `final` by seed, where it was measured."""
        return {
            result["config"]["seed"]: float(value)
            for result in self.of(arm, density)
            if (value := result["final"].get(key)) is not None
        }

    def final(self, arm: str, key: str, density: float = DENSITY) -> Estimate | None:
        """Return the mean over seeds of a number of `final`."""
        return estimate(self.seeds(arm, key, density).values())

    def accuracy(self, arm: str, density: float = DENSITY) -> Seeds:
        """Return the test accuracy by seed."""
        return self.seeds(arm, "test_accuracy", density)

    def spread_to_baseline(self, method: str) -> Spread | None:
        """Pool over the starts of Table 1 how far one differs from its baseline by chance.

        They share a seed's mask with it, but neither initialisation nor batches.
        """
        baseline, *starts = table1_arms(method)
        return spread_to_reference(map(self.accuracy, starts), self.accuracy(baseline))

    def spread_of_starts(self, method: str) -> Spread | None:
        """Pool over the starts of Table 1 how far two of them differ by chance."""
        return pooled_spread([[self.accuracy(arm) for arm in table1_arms(method)[1:]]])

    def spread5(self) -> Spread | None:
        """Pool the spread of a difference over the densities of Table 5."""
        return pooled_spread(
            [self.accuracy(arm, density) for arm in ("acdc", "acdc+sign_in")]
            for density in table5_densities()
        )

    def spread10(self) -> Spread | None:
        """Pool the spread of a difference over the masks of Table 10."""
        return pooled_spread([self.accuracy(arm) for arm in table10_arms(mask)] for mask in MASKS)

    @property
    def epochs_named(self) -> dict[str, int]:
        """The epochs that stand for the paper's 10 and 30 of 100."""
        epochs = self.config["epochs"]
        return {"10": max(1, round(0.1 * epochs)), "30": max(1, round(0.3 * epochs))}


def comparisons(results: Iterable[Result]) -> list[Comparison]:
    """Group results by all settings that do not belong to an arm."""
    return [Comparison(tuple(group)) for group in same_settings(results, VARIED)]


def table1_arms(method: str) -> list[str]:
    """Return the arms of a method's column of Table 1, the baseline first."""
    return [method, *(f"{method}/{start}" for start in STARTS)]


def table10_arms(mask: str) -> tuple[str, str]:
    """Return the two arms of a row of Table 10: a random start, and the same with Sign-In."""
    plain = f"{mask}/random" if mask in METHODS else mask
    return plain, f"{plain}+sign_in"


def table5_densities() -> list[float]:
    """Return the densities of Table 5, largest first."""
    return [round(1 - float(sparsity), 4) for sparsity in _paper("table5_acdc_resnet50")]


def paper1(method: str, start: str) -> float:
    """Return a number of the paper's Table 1."""
    return float(_paper("table1_imagenet_resnet50_s90")[TABLE1[start]][method])


def paper5(arm: str, density: float) -> tuple[float, float]:
    """Return a number of the paper's Table 5 and its deviation."""
    mean, std = _paper("table5_acdc_resnet50")[f"{1 - density:.4g}"][arm]
    return float(mean), float(std)


def paper10(mask: str, *, sign_in: bool) -> tuple[float, float | None]:
    """Return a number of the paper's Table 10 and its deviation; None where one run is printed."""
    table = _paper("table10_masks_imagenet_resnet50_s90")
    mean, std = table[mask]["sign_in" if sign_in else "random_init"]
    return float(mean), None if std is None else float(std)


def arm_name(arm: str) -> str:
    """Return what an arm is called where no table explains it."""
    mask, _, start = arm.removesuffix("+sign_in").partition("/")
    name = NAMES[mask]
    if start == "random":
        name += " mask, fresh start"
    elif start:
        name += f", {start}"
    return name + (" + Sign-In" if arm.endswith("+sign_in") else "")


def by_layer(results: Sequence[Result], key: str) -> list[list[float]]:
    """Return a number of every layer, for every seed: flips as fractions, or `density`."""
    return [
        [
            layer["survivors"] / layer["total"] if key == "density" else layer[key]
            for layer in result["layers"]
        ]
        for result in results
    ]


def _rank(results: Sequence[Result]) -> tuple[int, bool]:
    """Rank the settings of an arm: by the number of runs, then by the paper's layers."""
    balanced = bool(results) and results[0]["config"]["densities"] == "balanced"
    return len(results), balanced


def _by_seed(results: Iterable[Result]) -> list[Result]:
    return sorted(results, key=lambda result: int(result["config"]["seed"]))


def _all_but_layers(result: Result) -> str:
    """Write the settings of a run, but for its seed and its layers."""
    return shared_key(result["config"], ("seed", "densities"))


def _paper(table: str) -> dict[str, Any]:
    found: dict[str, Any] = transcript("sign_in_to_the_lottery")[table]
    return found
