"""The small language that selects weights: types, names, globs and predicates."""

import fnmatch
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TypeAlias

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from polarity._checks import text_of
from polarity._inputs import check_arguments
from polarity.targets.defaults import Use, default_names, given_to_predicates, is_weight

__all__ = ["Selector", "select", "settled"]

Predicate: TypeAlias = Callable[[str, Tensor], bool]
OneSelector: TypeAlias = str | type[nn.Module] | Predicate
Selector: TypeAlias = OneSelector | Iterable[OneSelector]


def settled(selector: Selector | None) -> Selector | None:
    """Return a selector that can be read more than once."""
    one = isinstance(selector, (str, type, nn.Module)) or not isinstance(selector, Iterable)
    return selector if one or selector is None else tuple(selector)  # type: ignore[arg-type]


def select(uses: Sequence[Use], selector: Selector | None, role: str) -> set[str]:
    """Return the names of the uses that ``selector`` chooses; None chooses the default weights.

    Args:
        uses: every use of every parameter of the model.
        selector: as :func:`polarity.find_targets` takes it.
        role: the caller's parameter. ``"targets"`` and ``"parameters"`` prefer default weights to
            other parameters; ``"exclude"`` and ``"include"`` take everything that matches.

    Raises:
        ValueError: if a name or glob matches nothing.
        TypeError: if a selector is neither a type, a string nor a predicate.
    """
    if selector is None:
        return default_names(uses)
    one = isinstance(selector, (str, type, nn.Module)) or not isinstance(selector, Iterable)
    several = (selector,) if one else selector
    return set().union(*(_select_one(uses, each, role) for each in several))  # type: ignore[union-attr]


def _select_one(uses: Sequence[Use], selector: object, role: str) -> set[str]:
    if isinstance(selector, str):
        return _select_by_name(uses, selector, role)
    if isinstance(selector, type) and issubclass(selector, nn.Module):
        return _select_by_type(uses, selector, role)
    if callable(selector) and not isinstance(selector, (type, nn.Module)):
        given, remedy = ("name", "parameter"), "lambda name, parameter: parameter.ndim > 1, say"
        check_arguments(role, selector, given, remedy=remedy)
        known = (use for use in uses if not is_lazy(use.leaf))
        return {use.name for use in known if selector(use.name, given_to_predicates(use))}
    raise TypeError(
        f"{role} holds {text_of(selector)}, expected module types, names, globs or predicates "
        "(name, parameter) -> bool"
    )


def _select_by_name(uses: Sequence[Use], pattern: str, role: str) -> set[str]:
    exact = {use.name for use in uses if use.name == pattern}
    below = [use for use in uses if _at_or_below(use.name, pattern)]
    prefers = role in ("targets", "parameters")
    weights = _preferred(uses, below) if prefers else set()
    chosen = exact or weights or {use.name for use in below}
    if not chosen:
        known = ", ".join(use.name for use in uses[:8]) + (", …" if len(uses) > 8 else "")
        raise ValueError(
            f"{role}={pattern!r} matches nothing, expected a name or glob of these parameters: "
            f"{known}"
        )
    return chosen


def _select_by_type(uses: Sequence[Use], kind: type[nn.Module], role: str) -> set[str]:
    below = [use for use in uses if any(isinstance(each, kind) for each in use.path)]
    if role == "exclude":
        return {use.name for use in below}
    weights = _preferred(uses, below)
    own = {use.name for use in below if isinstance(use.module, kind)}
    return weights or {name for name in own if "bias" not in name.rpartition(".")[2]}


def _at_or_below(name: str, pattern: str) -> bool:
    parts = name.split(".")
    ends = range(1, len(parts) + 1)
    return any(fnmatch.fnmatchcase(".".join(parts[:end]), pattern) for end in ends)


def _preferred(uses: Sequence[Use], below: Collection[Use]) -> set[str]:
    """Return the default weights among ``below``, or else those that are tied to an embedding."""
    names = {use.name for use in below}
    return names & default_names(uses) or {use.name for use in below if is_weight(use)}
