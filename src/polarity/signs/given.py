"""The perturbations that a caller gives: one, several, or none."""

from collections.abc import Sequence
from typing import TypeAlias

from polarity._checks import text_of
from polarity._inputs import check_arguments
from polarity.signs.perturb import Delta, Epsilon, Perturbation, Phi

__all__ = ["Perturb", "sorted_out"]

Perturb: TypeAlias = Perturbation | Phi | Sequence[Perturbation | Phi] | None


def sorted_out(perturb: Perturb) -> tuple[Phi, list[Perturbation]]:
    """Return the centre of polarity, zero if none is given, and the other perturbations.

    Raises:
        ValueError: if two centres are given.
        TypeError: if something is no perturbation.

    Example:
        >>> sorted_out([Epsilon(0.1), Phi(0.2)])
        (Phi(center=0.2), [Epsilon(fraction=0.1)])
    """
    several = isinstance(perturb, Sequence) and not isinstance(perturb, str)
    given = list(perturb) if several else [perturb]  # type: ignore[arg-type]
    centers = [each for each in given if isinstance(each, Phi)]
    if len(centers) > 1:
        raise ValueError(f"perturb holds {len(centers)} Phi ({centers}), expected at most one")
    others = [each for each in given if each is not None and not isinstance(each, Phi)]
    for each in others:
        if isinstance(each, type) or not callable(each):
            raise TypeError(
                f"perturb holds {text_of(each)}, expected an Epsilon, Delta or Phi, or a "
                "function, or several of them: perturb=Epsilon(0.1), for instance"
            )
    for each in others:
        if not isinstance(each, (Epsilon, Delta)):
            check_arguments(
                "perturb",
                each,  # type: ignore[arg-type]
                ("signs", "magnitudes", "generator"),
                remedy="polarity.signs.perturb.Perturbation describes it",
            )
    return centers[0] if centers else Phi(0.0), others  # type: ignore[return-value]
