"""What a pruning call reaches, and the warning that names what it leaves alone."""

from collections.abc import Collection

from torch import nn

from polarity._warnings import warn_caller
from polarity.targets.left_out import NO_MASK, reach_of, why_without_mask
from polarity.targets.reach import Reach
from polarity.targets.search import all_targets
from polarity.targets.selectors import Selector, select
from polarity.targets.target import Target

__all__ = ["reached"]

# Less of a model than this in reach is worth a warning, where the caller selected nothing.
_ENOUGH = 0.9
_NAMED = 3


def reached(
    model: nn.Module,
    found: Collection[str],
    targets: Selector | None,
    exclude: Selector | None,
    *,
    by_name: bool = False,
) -> tuple[Reach, tuple[str, ...]]:
    """Return the reach of a call and its notes, and warn of what a caller may not expect.

    Args:
        model: the model.
        found: the names of the weights that the call prunes.
        targets: what the caller selected.
        exclude: what the caller left out.
        by_name: whether scores or densities named the weights.
    """
    everything = all_targets(model)
    uses = [use for target in everything for use in target.uses]
    excluded = set() if exclude is None else select(uses, exclude, "exclude")

    def why(target: Target) -> str:
        if any(use.name in excluded for use in target.uses):
            return "excluded"
        return why_without_mask(target) if targets is None else "not selected by targets"

    reach = reach_of(everything, found, why)
    rest = [each for each in everything if each.name not in found]
    alone = [each.name for each in rest if targets is None and why(each) == NO_MASK]
    if targets is not None or (by_name and alone):
        return reach, ()
    if alone:
        warn_caller(
            f"{_listed(alone)} can be pruned but {'have' if len(alone) > 1 else 'has'} no mask, "
            "and this call prunes what is masked: call mask_weights(model) first, or pass targets="
        )
        return reach, (f"left alone: {_listed(alone)} (no mask)",)
    if exclude is None and reach.fraction < _ENOUGH:
        left = "; ".join(map(str, reach.left_out))
        warn_caller(
            f"{reach.taken} of {reach.total} matrix entries are in reach of this call "
            f"({reach.fraction:.1%}). The largest of the rest: {left}. Pass targets= to take them, "
            "or exclude= to leave them out without this warning"
        )
    return reach, ()


def _listed(names: Collection[str]) -> str:
    """Return some names as text, and how many more there are."""
    more = len(names) - _NAMED
    *first, last = [*list(names)[:_NAMED], *([f"{more} more"] if more > 0 else [])]
    return f"{', '.join(first)} and {last}" if first else last
