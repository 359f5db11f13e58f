"""The small language that selects weights: types, names, globs and predicates."""

import fnmatch
import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeAlias

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from polarity._checks import text_of

__all__ = ["Selector", "Use", "select"]

Predicate: TypeAlias = Callable[[str, Tensor], bool]
OneSelector: TypeAlias = str | type[nn.Module] | Predicate
Selector: TypeAlias = OneSelector | Iterable[OneSelector]

_ONE_WEIGHT = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
_RECURRENT = re.compile(r"weight_(ih|hh|hr)(_l\d+(_reverse)?)?")
_ATTENTION = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")


class Use(NamedTuple):
    """One place where a model uses a parameter.

    Attributes:
        name: plain dotted name, as if nothing were attached.
        module: the module that holds it.
        tensor_name: its name there.
        leaf: the (first) tensor an optimizer trains for it.
        path: the modules that hold it, from the model to ``module``.
    """

    name: str
    module: nn.Module
    tensor_name: str
    leaf: Tensor
    path: tuple[nn.Module, ...]


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
        return {use.name for use in uses if _is_default(use)}
    one = isinstance(selector, (str, type, nn.Module)) or not isinstance(selector, Iterable)
    several = (selector,) if one else selector
    return set().union(*(_select_one(uses, each, role) for each in several))  # type: ignore[union-attr]


def _select_one(uses: Sequence[Use], selector: object, role: str) -> set[str]:
    if isinstance(selector, str):
        return _select_by_name(uses, selector, role)
    if isinstance(selector, type) and issubclass(selector, nn.Module):
        return _select_by_type(uses, selector, role)
    if callable(selector) and not isinstance(selector, (type, nn.Module)):
        return {use.name for use in uses if not is_lazy(use.leaf) and selector(use.name, use.leaf)}
    raise TypeError(
        f"{role} holds {text_of(selector)}, expected module types, names, globs or predicates "
        "(name, parameter) -> bool"
    )


def _select_by_name(uses: Sequence[Use], pattern: str, role: str) -> set[str]:
    exact = {use.name for use in uses if use.name == pattern}
    below = [use for use in uses if _at_or_below(use.name, pattern)]
    weights = (
        {use.name for use in below if _is_default(use)}
        if role in ("targets", "parameters")
        else set()
    )
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
    weights = {use.name for use in below if _is_default(use)}
    own = {use.name for use in below if isinstance(use.module, kind)}
    return weights or {name for name in own if "bias" not in name.rpartition(".")[2]}


def _at_or_below(name: str, pattern: str) -> bool:
    parts = name.split(".")
    ends = range(1, len(parts) + 1)
    return any(fnmatch.fnmatchcase(".".join(parts[:end]), pattern) for end in ends)


def _is_default(use: Use) -> bool:
    if isinstance(use.module, _ONE_WEIGHT):
        return use.tensor_name == "weight"
    if isinstance(use.module, nn.MultiheadAttention):
        return use.tensor_name in _ATTENTION
    if isinstance(use.module, (nn.RNNBase, nn.RNNCellBase)):
        return _RECURRENT.fullmatch(use.tensor_name) is not None
    return False
