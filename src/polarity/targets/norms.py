"""Which parameters of a model belong to normalisation layers, and under which names."""

from collections.abc import Iterable
from functools import partial

from torch import nn

from polarity.parametrizations.norm_interp import NormInterp
from polarity.targets.defaults import NORMS, Use
from polarity.targets.search import Targets, all_targets, asked, gather_targets, why_not
from polarity.targets.selectors import Selector, select
from polarity.targets.target import Target
from polarity.targets.wrappers import unwrapped

__all__ = ["find_norms"]


def find_norms(model: nn.Module, targets: Selector | None, exclude: Selector | None) -> Targets:
    """Find the norm parameters to interpolate, including those that already are."""
    everything = all_targets(model)
    uses = [use for target in everything for use in target.uses]
    chosen = {use.name for use in uses if _is_norm(use)}
    if targets is not None:
        chosen = _select(uses, targets, "targets")
    if exclude is not None:
        chosen -= _select(uses, exclude, "exclude")
    return gather_targets(
        everything,
        chosen,
        {use.name for use in uses} - chosen,
        partial(_why_no_norm, named=targets is not None),
        nothing=f"{type(model).__name__} has no normalisation parameters to interpolate"
        + asked(targets, exclude),
        skipped=_without_parameters(model) if targets is None else None,
    )


def _select(uses: list[Use], selector: Selector, role: str) -> set[str]:
    norms = [use for use in uses if _is_norm(use)]
    if isinstance(selector, type) and issubclass(selector, nn.Module):
        below = {use.name for use in norms if any(isinstance(m, selector) for m in use.path)}
        return below or {use.name for use in uses if isinstance(use.module, selector)}
    if isinstance(selector, (str, type, nn.Module)) or not isinstance(selector, Iterable):
        # None stands for the default weights only where it is alone.
        return select(norms, (None,) if selector is None else selector, role)
    return set().union(*(_select(uses, each, role) for each in selector))


def _is_norm(use: Use) -> bool:
    return isinstance(use.module, NORMS) and use.tensor_name in ("weight", "bias")


def _without_parameters(model: nn.Module) -> dict[str, str]:
    """Say why each layer that is a norm by its type or its name has nothing to train."""
    reasons = {}
    for name, module in unwrapped(model).named_modules():
        kind = type(module).__name__
        if isinstance(module, NORMS):
            if getattr(module, "weight", None) is None:
                reasons[name] = "not affine"
        elif "norm" in kind.lower() and not isinstance(module, NormInterp):
            if any(True for _ in module.parameters(recurse=False)):
                reasons[name] = f"of a type that is not PyTorch's: targets={kind} takes it"
            elif not any(True for _ in module.children()):
                reasons[name] = f"a {kind}, which has no parameters"
    return reasons


def _why_no_norm(target: Target, *, named: bool) -> str | None:
    """Say why a selected parameter cannot be interpolated, or None if it can."""
    if target.interpolation is not None:
        return None
    if target.is_sharded:
        raise TypeError(
            f"{target.name} is sharded (DTensor): call interpolate_norms before fully_shard"
        )
    if target.torch_mask is not None:
        raise ValueError(
            f"{target.name} carries a mask of torch.nn.utils.prune; "
            f"exclude={target.name!r} leaves it out"
        )
    return why_not(target, frozen_too=named)
