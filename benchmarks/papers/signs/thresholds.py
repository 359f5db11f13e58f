"""What a threshold of polarity can act on, and what the best of a grid gains by chance."""

from __future__ import annotations

from collections.abc import Sequence

from ...harness.results import Result
from ...pages.best import best_by_chance
from ...pages.markdown import NONE, markdown
from ...pages.paired import level_spread
from .summary import Sweep
from .zero_crossing import SMALL_PHI

# Their references are trained weights, which are survivors of pruning by magnitude.
BY_TRAINED_WEIGHTS = ("mask0", "standard")


def chance_table(sweep: Sweep) -> str:
    """Tabulate the gain of the best small threshold over zero, and what chance gives.

    The gain is the paper's: of means over seeds, chosen by the test images. If no threshold did
    anything, all would be runs with other seeds, and the best of them would gain this much.
    """
    rows = []
    for strategy in sweep.strategies:
        found = {
            point: sweep.final(strategy, point, "test_accuracy")
            for point in sweep.points
            if abs(sweep.value(point)) <= SMALL_PHI
        }
        known = {point: each for point, each in found.items() if each is not None}
        spread = level_spread(sweep.seeds(strategy, point) for point in known)
        if () not in known or spread is None or len(known) < 2:
            continue
        zero = known[()]
        gain = max(each.mean for each in known.values()) - zero.mean
        chance = best_by_chance(len(known), spread.std / zero.count**0.5)
        rows.append([strategy, f"{gain:.2f}", str(len(known)), str(chance)])
    if not rows:
        return ""
    head = ("strategy", "gain of the best over φ = 0 (points)", "points of the grid")
    return markdown((*head, "by chance"), rows)


def acting_table(sweep: Sweep) -> str:
    """Tabulate the smallest survivors, and how many thresholds below them changed nothing.

    `mask0` and `standard` ask for the sign of trained survivors. All of these are larger than the
    smallest one, so that a threshold nearer to zero changes no sign: such a run must be the
    unperturbed one, bit for bit.
    """
    rows = []
    for strategy in BY_TRAINED_WEIGHTS:
        zero = {_seed(result): result for result in sweep.results(strategy, ())}
        smallest = [each for result in zero.values() for each in _smallest(result)]
        below = [
            result
            for point in sweep.points
            if point and smallest and abs(sweep.value(point)) < min(smallest)
            for result in sweep.results(strategy, point)
            if _seed(result) in zero
        ]
        same = sum(_numbers(result) == _numbers(zero[_seed(result)]) for result in below)
        if smallest:
            equal = f"{same} of {len(below)}" if below else NONE
            rows.append([strategy, f"{min(smallest):.1e}", equal])
    if not rows:
        return ""
    head = ("strategy", "smallest survivor of any layer, round and seed")
    return markdown((*head, "runs with |φ| below it that equal φ = 0 bit for bit"), rows)


def _seed(result: Result) -> int:
    seed: int = result["config"]["seed"]
    return seed


def _smallest(result: Result) -> Sequence[float]:
    return [
        layer["smallest"]
        for record in result["rounds"]
        for layer in record.get("layers", ())
        if layer.get("smallest") is not None
    ]


def _numbers(result: Result) -> list[dict[str, object]]:
    """Return all that a run recorded but the time it took."""
    return [
        {key: value for key, value in record.items() if key != "seconds"}
        for record in result["rounds"]
    ]
