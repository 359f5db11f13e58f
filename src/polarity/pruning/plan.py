"""How many entries stay, and which of equal ones: the caller's request as one checked value."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from polarity._checks import check_fraction, check_names, check_scope, check_ties, check_type
from polarity.selection.ties import Ties
from polarity.targets.target import Target

__all__ = ["HowMany", "Scope"]

Scope: TypeAlias = Literal["global", "layer"]


@dataclass(frozen=True)
class HowMany:
    """A fraction of the survivors to prune, or a density to reach: exactly one of the three.

    Attributes:
        amount: fraction of the survivors to prune, in [0, 1].
        density: fraction of all entries that are live afterwards, in [0, 1].
        densities: the same for each weight, by plain name.
        scope: ``"global"`` counts all weights together, ``"layer"`` each by itself.
        ties: ``"index"`` or ``"random"``, which of equal entries stay.
    """

    amount: float | None = None
    density: float | None = None
    densities: Mapping[str, float] | None = None
    scope: Scope = "global"
    ties: Ties = "index"

    def __post_init__(self) -> None:
        given = {"amount": self.amount, "density": self.density, "densities": self.densities}
        if sum(value is not None for value in given.values()) != 1:
            listed = ", ".join(f"{name}={value!r}" for name, value in given.items())
            raise ValueError(f"give exactly one of amount, density and densities, got {listed}")
        check_scope(self.scope)
        check_ties(self.ties)
        if self.amount is not None:
            check_fraction("amount", self.amount)
        if self.density is not None:
            check_fraction("density", self.density)
        if self.densities is None:
            return
        check_type("densities", self.densities, Mapping, "{name: density}")
        for name, value in self.densities.items():
            check_fraction(f"densities[{name!r}]", value)

    def keep(
        self, found: Mapping[str, Target], survivors: Mapping[str, int]
    ) -> int | dict[str, int]:
        """Return how many entries stay, of all weights together or of each.

        Args:
            found: the weights.
            survivors: how many entries of each are live by its mask.

        Raises:
            ValueError: if a density exceeds the present one, if ``amount`` meets a mask that is
                not enforced, or if ``densities`` names other weights than ``found``.
        """
        if self.densities is not None:
            check_names("densities", self.densities, found, what="masked")
        sizes = {name: target.shape.numel() for name, target in found.items()}
        live = {
            name: survivors[name] if self._only_survivors(target) else sizes[name]
            for name, target in found.items()
        }
        if self.densities is None and self.scope == "global":
            whole = "the model"
            return self._keep(sum(live.values()), sum(sizes.values()), self.density, whole)
        wanted = dict.fromkeys(found, self.density) if self.densities is None else self.densities
        return {name: self._keep(live[name], sizes[name], wanted[name], name) for name in found}

    def _only_survivors(self, target: Target) -> bool:
        """Return whether only survivors can be kept; without an enforced mask all entries can."""
        if target.masking is None or target.masking.enforce:
            return True
        if self.amount is not None:
            raise ValueError(
                f"amount={self.amount!r} is a fraction of the survivors, but the mask of "
                f"{target.name!r} is not enforced (strategy 'standard'), so every entry is live: "
                "give density="
            )
        return False

    def _keep(self, live: int, total: int, density: float | None, what: str) -> int:
        """Return how many entries of ``what`` are live afterwards."""
        if self.amount is not None:
            return live - round(float(self.amount) * live)
        assert density is not None
        keep = round(float(density) * total)
        if keep > live:
            raise ValueError(
                f"density={density!r} would keep {keep} of {total} entries of {what}, expected at "
                f"most the {live} live ones (density {live / total:.6g})"
            )
        return keep
