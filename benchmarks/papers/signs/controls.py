"""The controls of the sign papers in one table: what each costs a strategy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...harness.results import Result
from ...pages.claims import shown
from ...pages.markdown import markdown
from ...pages.paired import Seeds, compare, pooled_spread, spread_to_reference
from .config import Kind
from .summary import STRATEGIES, accuracies

# The controls that are perturbations: name, kind and size.
_PERTURBED: tuple[tuple[str, Kind, float], ...] = (
    ("random signs (ε = 0.5)", "epsilon", 0.5),
    ("all signs negated (ε = 1)", "epsilon", 1.0),
    ("all signs drawn anew (δ = 1)", "delta", 1.0),
    ("signs of the smallest half drawn anew (δ = 0.5)", "delta", 0.5),
    ("signs of the largest half drawn anew (δ = 0.5, largest first)", "delta_largest", 0.5),
)
_RANDOM = "random mask, as many survivors in each layer"
_REWOUND = "original rewinding, magnitudes kept"
_APPLIED = "mask applied after the last training"
_INTRODUCTION = """\
Final test accuracy of a control − that of the strategy with undamaged signs (points), paired by
seed, with its 95 % interval; the spread of a row is pooled over its strategies."""


def controls_table(group: Sequence[Result], random_masks: Sequence[Result] = ()) -> list[str]:
    """Tabulate the controls that were run; nothing where there are none.

    Args:
        group: results of a section.
        random_masks: the same settings with random survivors.
    """
    undamaged = _by_strategy(group, [])
    controls: dict[str, Mapping[str, Seeds]] = {
        name: _by_strategy(group, [[kind, size]]) for name, kind, size in _PERTURBED
    }
    rewound = undamaged.pop("rewind", {})
    controls[_RANDOM] = _by_strategy(random_masks, [])
    controls[_REWOUND] = dict.fromkeys(undamaged, rewound)
    controls[_APPLIED] = {"standard": _masked(group)}
    strategies = [strategy for strategy in STRATEGIES if strategy in undamaged]
    rows = []
    for name, found in controls.items():
        pairs = {s: (found.get(s, {}), undamaged[s]) for s in strategies}
        # One row of runs stands for the rewinding of all strategies.
        spread = (
            spread_to_reference(undamaged.values(), rewound)
            if name == _REWOUND
            else pooled_spread(pairs.values())
        )
        gains = [compare(*pairs[strategy], spread) for strategy in strategies]
        if any(gains):
            rows.append([name, *map(shown, gains)])
    if not rows:
        return []
    return ["### Controls", _INTRODUCTION, markdown(("control", *strategies), rows)]


def _by_strategy(results: Sequence[Result], perturbation: list[list[object]]) -> dict[str, Seeds]:
    """Return final test accuracies at a perturbation, by strategy and seed."""
    found: dict[str, list[Result]] = {}
    for result in results:
        config = result["config"]
        if [list(each) for each in config["perturbation"]] == perturbation:
            found.setdefault(config["strategy"], []).append(result)
    return {strategy: accuracies(mine) for strategy, mine in found.items()}


def _masked(group: Sequence[Result]) -> Seeds:
    """Return the accuracies of `standard` with its mask, which it trains without."""
    return {
        result["config"]["seed"]: masked
        for result in group
        if not result["config"]["perturbation"]
        and (masked := result["final"].get("test_accuracy_masked")) is not None
    }
