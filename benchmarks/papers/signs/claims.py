"""The two papers' claims, each judged on our runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ...harness.results import Result
from ...pages.claims import Case, Claim
from ...pages.paired import (
    Compared,
    Seeds,
    Spread,
    compare,
    level_spread,
    pooled_spread,
    with_most_seeds,
)
from ...pages.published import best_over_grid
from ...pages.verdicts import FAILS, HOLDS, positive
from .config import Kind, Perturbation, RunConfig
from .summary import STRATEGIES, Sweep, sweeps
from .thresholds import BY_TRAINED_WEIGHTS, smallest_survivor
from .zero_crossing import EXPERIMENT, SMALL_PHI

# "Every strategy stays above 97 %": printed for MNIST.
_ABOVE = 97.0
# Where a paper says "hardly" or "little" and prints no number: a point of accuracy is our bound.
_LITTLE = 1.0
_CANNOT_ACT = "every survivor is larger than the threshold, which changes no sign"
_PAPERS_STRATEGIES = tuple(strategy for strategy in STRATEGIES if strategy != "rewind")


def claims(group: Sequence[Result]) -> list[Claim]:
    """Judge the claims that a paper makes for the data set and the network of some runs.

    Args:
        group: results that differ in strategy, perturbation and seed, and in nothing else.
    """
    found = {sweep.kind: sweep for sweep in sweeps(group)}
    runs = Runs(RunConfig.from_json(group[0]["config"]), found)
    if runs.config.experiment == EXPERIMENT:
        return [*_zero_crossing(runs), *_on_cifar(runs, "phi")]
    return [*_on_mnist(runs), *_on_vgg(runs), *_on_cifar(runs, "delta"), *_small_signs(runs)]


def losses(group: Sequence[Result], strategy: str) -> dict[float, Seeds]:
    """Return what flipped signs cost a strategy, by their fraction and by seed."""
    found = {sweep.kind: sweep for sweep in sweeps(group)}
    runs = Runs(RunConfig.from_json(group[0]["config"]), found)
    points = found["epsilon"].points if "epsilon" in found else ()
    by_size = {sum(size for _, size in point): point for point in points if point}
    return {size: lost for size in by_size if (lost := _loss(runs, strategy, size))}


@dataclass(frozen=True)
class Runs:
    """The sweeps of a group of runs.

    Attributes:
        config: settings of one of the runs.
        sweeps: by the kind of their perturbation.
        rows: the accuracies of every place that was asked for: one object for each.
    """

    config: RunConfig
    sweeps: Mapping[str, Sweep]
    rows: dict[tuple[str, Perturbation], Seeds] = field(default_factory=dict)

    def of(self, strategy: str, kind: Kind | None = None, size: float = 0.0) -> Seeds:
        """Return the accuracies at a grid point, by seed; without one those of undamaged signs."""
        return self._row(strategy, () if kind is None else ((kind, size),))

    def _row(self, strategy: str, point: Perturbation) -> Seeds:
        found = (sweep.seeds(strategy, point) for sweep in self.sweeps.values())
        row = next((seeds for seeds in found if seeds), {})
        return self.rows.setdefault((strategy, point), row)

    def smallest(self, strategy: str) -> float:
        """Return the smallest survivor of undamaged runs of several seeds; zero without them."""
        found = (sweep.results(strategy, ()) for sweep in self.sweeps.values())
        zero = next((results for results in found if len(results) > 1), [])
        return smallest_survivor(zero) or 0.0

    def chosen(self, strategy: str, kind: Kind, *, perturbed: bool = False) -> tuple[Seeds, float]:
        """Return the accuracies at the point with the best accuracy on held-out images, and it."""
        sweep = self.sweeps.get(kind)
        point = None if sweep is None else sweep.best(strategy, "val_accuracy", perturbed=perturbed)
        if sweep is None or point is None:
            return {}, 0.0
        return self._row(strategy, point), sweep.value(point)


def _on_mnist(runs: Runs) -> list[Claim]:
    config = runs.config
    if config.dataset != "mnist":
        return []
    others = [strategy for strategy in _PAPERS_STRATEGIES if strategy != "standard"]
    return [
        Claim(
            "Claim",
            "Every strategy stays above 97 % with 90 % of the signs flipped",
            "accuracy at ε = 0.9 − 97 (points)",
            _above(runs, 0.9),
            "above_97",
        ),
        Claim(
            "Control",
            "So it does with random signs (ε = 0.5), which say less of their reference",
            "accuracy at ε = 0.5 − 97 (points)",
            _above(runs, 0.5),
            "above_97_random",
        ),
        Claim(
            "Table 1",
            "`standard` is the best",
            "best `standard` − best of the other, each chosen on held-out images (points)",
            _cases(_best(runs, "epsilon", "standard", other) for other in others),
            "standard",
        ),
    ]


def _on_vgg(runs: Runs) -> list[Claim]:
    if not runs.config.arch.startswith("vgg"):
        return []
    sweep = runs.sweeps.get("epsilon")
    sizes = [] if sweep is None else [sweep.value(point) for point in sweep.points if point]
    # Losses of a strategy share its undamaged runs: what varies by chance is asked of the runs.
    rows = [runs.of(strategy) for strategy in _PAPERS_STRATEGIES]
    rows += [
        runs.of(strategy, "epsilon", size) for strategy in _PAPERS_STRATEGIES for size in sizes
    ]
    return [
        Claim(
            "Claim",
            "`mask1` loses more by flipped signs than the other strategies",
            "loss of `mask1` − loss of the other at the same ε (points)",
            _cases(
                (
                    Pair(
                        f"over {other} at ε = {size:g}",
                        _loss(runs, "mask1", size),
                        _loss(runs, other, size),
                    )
                    for size in sizes
                    for other in ("mask0", "gradual", "standard")
                ),
                _of_two_differences(_spread(rows)),
            ),
            "mask1_vgg",
        )
    ]


def _on_cifar(runs: Runs, kind: Kind) -> list[Claim]:
    """Judge which strategies end higher; the papers print their best over a grid."""
    measure = "best of the first − best of the second, each chosen on held-out images (points)"
    if runs.config.dataset == "cifar10":
        pairs = [("gradual", "mask1"), ("mask0", "mask1")]
        text, key = "Strategies with learned signs end above `mask1`", "learned"
    elif runs.config.dataset != "cifar100":
        return []
    elif runs.config.experiment == EXPERIMENT:
        pairs = [("gradual", other) for other in ("mask0", "mask1", "standard")]
        text, key = "`gradual` is the best", "gradual"
    else:
        pairs = [(a, b) for a in ("gradual", "mask1") for b in ("mask0", "standard")]
        text, key = "`gradual` and `mask1` end above `mask0` and `standard`", "initial"
    source = "Table 2" if key == "learned" else "Table 3"
    cases = _cases(_best(runs, kind, first, second, named=first) for first, second in pairs)
    return [Claim(source, text, measure, cases, key)]


def _small_signs(runs: Runs) -> list[Claim]:
    """Judge that signs of small survivors matter little; the paper prints no number."""
    return [
        Claim(
            "Claim",
            f"Random signs of the smallest half of the survivors cost less than {_LITTLE:g} point",
            f"accuracy at δ = 0.5 − accuracy of undamaged signs + {_LITTLE:g} (points)",
            _cases(_within(runs, strategy, "delta", 0.5) for strategy in _PAPERS_STRATEGIES),
            "delta",
        ),
        Claim(
            "Control",
            "They cost less than random signs of the largest half",
            "accuracy at δ = 0.5 − at δ = 0.5, largest first (points)",
            _cases(
                Pair(
                    strategy,
                    runs.of(strategy, "delta", 0.5),
                    runs.of(strategy, "delta_largest", 0.5),
                )
                for strategy in _PAPERS_STRATEGIES
            ),
            "delta_largest",
        ),
    ]


def _zero_crossing(runs: Runs) -> list[Claim]:
    found = [
        Claim(
            "Claim",
            "Accuracy peaks at a threshold that is not zero",
            "accuracy at the best φ ≠ 0, chosen on held-out images, − at φ = 0 (points)",
            _acting(_best_phi(runs, strategy) for strategy in _PAPERS_STRATEGIES),
            "peak",
        )
    ]
    if runs.config.dataset == "mnist":
        found.append(
            Claim(
                "Claim",
                f"The threshold hardly matters: φ of ±{SMALL_PHI:g} costs less than {_LITTLE:g} "
                "point",
                f"accuracy at φ − accuracy at 0 + {_LITTLE:g} (points)",
                _little(runs),
                "little",
            )
        )
    return found


@dataclass(frozen=True)
class Pair:
    """Two rows of accuracies by seed of which the first must be higher.

    Attributes:
        name: what is compared.
        more: the first row.
        less: the second row.
        paper: the paper's difference; None where it prints none.
        bound: what the claim allows the first row to be lower.
    """

    name: str
    more: Seeds
    less: Seeds
    paper: float | None = None
    bound: float = 0.0

    def compared(self, spread: Spread | None) -> Compared | None:
        """Return the difference with the bound added to it; of one seed without an interval."""
        raised = {seed: value + self.bound for seed, value in self.more.items()}
        several = len(self.more.keys() & self.less.keys()) > 1
        return compare(raised, self.less, spread if several else None)


def _cases(pairs: Iterable[Pair], spread: Spread | None = None) -> tuple[Case, ...]:
    """Judge pairs of rows, by default with the spread that is pooled over all of them."""
    found = list(pairs)
    spread = spread or _spread(row for pair in found for row in (pair.more, pair.less))
    gains = [pair.compared(spread) for pair in found]
    return tuple(
        Case(pair.name, positive(gain, pair.paper), gain, pair.paper)
        for pair, gain in zip(found, gains, strict=True)
    )


def _spread(rows: Iterable[Seeds]) -> Spread | None:
    """Pool the spread of a difference over rows, each once; few seeds of one hide no other."""
    once = {id(row): row for row in rows}
    return pooled_spread([with_most_seeds(once.values())])


def _of_two_differences(spread: Spread | None) -> Spread | None:
    """Return how far two differences of independent runs vary, given how far one does."""
    return None if spread is None else Spread(math.sqrt(2) * spread.std, spread.freedom)


def _acting(pairs: Iterable[Pair]) -> tuple[Case, ...]:
    """Judge pairs of rows; runs that a threshold left as they were decide without a spread."""
    found = [replace(pair, more=pair.less) if pair.more == pair.less else pair for pair in pairs]
    why = "no threshold but ±0.1 changed anything: the best one's runs are those of φ = 0"
    return tuple(
        replace(case, verdict=FAILS, why=why)
        if len(pair.more) > 1 and pair.more is pair.less
        else case
        for pair, case in zip(found, _cases(found), strict=True)
    )


def _little(runs: Runs) -> tuple[Case, ...]:
    """Judge what small thresholds cost; one nearer to zero than every survivor costs nothing.

    Its runs would be those of φ = 0, bit for bit, so that they need not be run.
    """
    proven = {s for s in BY_TRAINED_WEIGHTS if runs.smallest(s) > SMALL_PHI}
    pairs = {
        (strategy, size): _within(runs, strategy, "phi", size)
        for strategy in _PAPERS_STRATEGIES
        for size in (-SMALL_PHI, SMALL_PHI)
    }
    acting = [key for key in pairs if key[0] not in proven]
    judged = dict(zip(acting, _cases(pairs[key] for key in acting), strict=True))
    exact = Compared(_LITTLE, 0, 0.0, 0.0)
    return tuple(
        judged[key]
        if key in judged
        else Case(f"{pair.name} (cannot act)", HOLDS, exact, None, why=_CANNOT_ACT)
        for key, pair in pairs.items()
    )


def _above(runs: Runs, size: float) -> tuple[Case, ...]:
    """Judge that accuracies lie above what the paper prints for all strategies."""
    rows = {strategy: runs.of(strategy, "epsilon", size) for strategy in _PAPERS_STRATEGIES}
    spread = level_spread(rows.values())
    gains = {
        strategy: compare(row, dict.fromkeys(row, _ABOVE), spread) for strategy, row in rows.items()
    }
    return tuple(
        Case(strategy, positive(gain, None), gain, None) for strategy, gain in gains.items()
    )


def _best(runs: Runs, kind: Kind, first: str, second: str, named: str = "") -> Pair:
    """Compare the best of two strategies over the grid, as the papers' tables do."""
    ours, theirs = (runs.chosen(strategy, kind)[0] for strategy in (first, second))
    config = runs.config
    printed = best_over_grid(config.experiment, config.dataset, config.arch, kind)
    paper = printed[first].accuracy - printed[second].accuracy if printed else None
    return Pair(f"{named} over {second}".strip(), ours, theirs, paper)


def _best_phi(runs: Runs, strategy: str) -> Pair:
    ours, size = runs.chosen(strategy, "phi", perturbed=True)
    return Pair(f"{strategy} (φ = {size:g})" if ours else strategy, ours, runs.of(strategy))


def _within(runs: Runs, strategy: str, kind: Kind, size: float) -> Pair:
    """Compare a perturbation with undamaged signs, which it may fall short of by a little."""
    name = f"{strategy}, {size:g}" if kind == "phi" else strategy
    return Pair(name, runs.of(strategy, kind, size), runs.of(strategy), bound=_LITTLE)


def _loss(runs: Runs, strategy: str, size: float) -> Seeds:
    first, second = runs.of(strategy), runs.of(strategy, "epsilon", size)
    return {seed: first[seed] - second[seed] for seed in first.keys() & second.keys()}
