"""What the paper says of Figure 9, judged on our masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ....harness.results import Result
from ....pages.claims import Case, Claim
from ....pages.paired import Compared, Seeds, compare, level_spread
from ....pages.verdicts import positive
from .config import NAMES

# "Sparse initial layers (> 90%)", "highly sparse (> 99%) later layers": as densities in percent.
SPARSE_INITIAL, SPARSE_LATER = 10.0, 1.0
# The masks of ours that train badly in the paper's Table 10.
_POOR = ("synflow", "synflow_once", "snip")


def claims(results: Sequence[Result]) -> list[Claim]:
    """Judge the sentences on Figure 9.

    Args:
        results: masks that differ in mask and seed, and in nothing else.
    """
    initial, later = least_densities(results, initial=True), least_densities(results, initial=False)
    main = [least_densities(results, initial=each, projections=False) for each in (True, False)]
    either = "10 − least density of the initial layers, or 1 − that of the later ones: the larger"
    return [
        Claim(
            "Figure 9",
            "The initial layers of RigL's balanced mask are dense",
            "least density of the initial layers − 10 (percent)",
            (_case("balanced", initial, SPARSE_INITIAL),),
        ),
        Claim(
            "Figure 9",
            "Its later layers are never sparser than 99 %",
            "least density of the later layers − 1 (percent)",
            (_case("balanced", later, SPARSE_LATER),),
        ),
        Claim(
            "Figure 9",
            "Masks that train badly have initial layers sparser than 90 % or later layers sparser "
            "than 99 %",
            f"{either} (percent)",
            tuple(_sparse_somewhere(mask, initial, later) for mask in _POOR),
        ),
        Claim(
            "Control",
            "So they have where the projections of shortcuts are left out",
            f"{either} (percent)",
            tuple(_sparse_somewhere(mask, *main) for mask in _POOR),
        ),
    ]


def least_densities(
    results: Sequence[Result], *, initial: bool, projections: bool = True
) -> dict[str, dict[int, float]]:
    """Return the density in percent of the sparsest layer, by mask and seed.

    Args:
        results: masks.
        initial: of the stem and the first stage, or else of all other layers.
        projections: the 1x1 convolutions of shortcuts count too; a network still connects inputs
            and outputs where these have no survivor.
    """
    found: dict[str, dict[int, float]] = {}
    for result in results:
        config = result["config"]
        least = min(
            100 * layer["survivors"] / layer["total"]
            for layer in result["layers"]
            if is_initial(layer["name"]) == initial
            and (projections or "downsample" not in layer["name"])
        )
        found.setdefault(config["mask"], {})[config["seed"]] = least
    return found


def is_initial(layer: str) -> bool:
    """Say whether a layer belongs to the stem or the first stage of a ResNet."""
    return layer.startswith(("conv1.", "layer1."))


def _case(mask: str, least: Mapping[str, Seeds], bound: float) -> Case:
    gain = _above(least.get(mask, {}), bound)
    return Case(NAMES[mask], positive(gain, None), gain, None)


def _sparse_somewhere(mask: str, initial: Mapping[str, Seeds], later: Mapping[str, Seeds]) -> Case:
    gains = {
        "initial": _above(initial.get(mask, {}), SPARSE_INITIAL),
        "later": _above(later.get(mask, {}), SPARSE_LATER),
    }
    known = {where: -gain for where, gain in gains.items() if gain is not None}
    if not known:
        return Case(NAMES[mask], positive(None, None), None, None)
    where = max(known, key=lambda each: known[each].mean)
    name = f"{NAMES[mask]} ({where} layers)"
    return Case(name, positive(known[where], None), known[where], None)


def _above(row: Seeds, bound: float) -> Compared | None:
    return compare(row, dict.fromkeys(row, bound), level_spread([row]))
