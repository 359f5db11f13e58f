"""Which normalisation parameters of a model can be interpolated, and under which names."""

from collections.abc import Iterable
from typing import cast

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from polarity.parametrizations.norm_interp import NormInterp
from polarity.targets.search import Targets, all_targets
from polarity.targets.selectors import Selector, Use, select
from polarity.targets.target import Target
from polarity.targets.torch_prune import torch_mask

__all__ = ["find_norms", "norm_interp"]

# The base of batch and instance normalisation of every dimension, synchronised or not.
_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def find_norms(model: nn.Module, targets: Selector | None, exclude: Selector | None) -> Targets:
    """Return the parameters to interpolate, those that are already among them."""
    everything = all_targets(model)
    uses = [use for target in everything for use in target.uses]
    norms = [use for use in uses if _is_norm(use)]
    chosen = {use.name for use in norms} if targets is None else _select(uses, targets, "targets")
    if exclude is not None:
        chosen -= _select(uses, exclude, "exclude")
    found: dict[str, Target] = {}
    skipped = _without_parameters(model) if targets is None else {}
    for target in everything:
        names = [use.name for use in target.uses if use.name in chosen]
        if not names:
            continue
        if len(names) < len(target.uses):
            rest = next(use.name for use in target.uses if use.name not in chosen)
            raise ValueError(
                f"{names[0]!r} is tied to {rest!r}, which is not selected: one tensor cannot be "
                "interpolated for one user alone"
            )
        reason = _why_not(target)
        if reason is None:
            found[target.name] = target
        else:
            skipped[target.name] = reason
    if not found:
        raise ValueError(
            f"{type(model).__name__} has no normalisation parameters to interpolate"
            + (f" for targets={targets!r}" if targets is not None else "")
            + (f" with exclude={exclude!r}" if exclude is not None else "")
            + "".join(f"; {name} is {why}" for name, why in skipped.items())
        )
    return Targets(found, skipped)


def _select(uses: list[Use], selector: Selector, role: str) -> set[str]:
    norms = [use for use in uses if _is_norm(use)]
    if isinstance(selector, type) and issubclass(selector, nn.Module):
        below = {use.name for use in norms if any(isinstance(m, selector) for m in use.path)}
        return below or {use.name for use in uses if isinstance(use.module, selector)}
    if isinstance(selector, (str, type, nn.Module)) or not isinstance(selector, Iterable):
        return select(norms, selector, role)
    return set().union(*(_select(uses, each, role) for each in selector))


def _is_norm(use: Use) -> bool:
    return isinstance(use.module, _NORMS) and use.tensor_name in ("weight", "bias")


def norm_interp(use: Use) -> NormInterp | None:
    """Return the NormInterp of a parameter, or None while it has none."""
    if not parametrize.is_parametrized(use.module, use.tensor_name):
        return None
    first = cast(nn.ModuleDict, use.module.parametrizations)[use.tensor_name][0]  # type: ignore[index]
    return first if isinstance(first, NormInterp) else None


def _without_parameters(model: nn.Module) -> dict[str, str]:
    """Say of every layer that is a norm by its type or its name why it has nothing to train."""
    reasons = {}
    for name, module in model.named_modules():
        kind = type(module).__name__
        if isinstance(module, _NORMS):
            if getattr(module, "weight", None) is None:
                reasons[name] = "not affine"
        elif "norm" in kind.lower() and not isinstance(module, NormInterp):
            if any(True for _ in module.parameters(recurse=False)):
                reasons[name] = f"of a type that is not PyTorch's: targets={kind} takes it"
            elif not any(True for _ in module.children()):
                reasons[name] = f"a {kind}, which has no parameters"
    return reasons


def _why_not(target: Target) -> str | None:
    """Say why a selected parameter cannot be interpolated, or None if it can."""
    use, stored = target.uses[0], target.stored[0]
    if norm_interp(use) is not None:
        return None
    if is_lazy(stored):
        return "lazy: run one batch through the model first"
    if hasattr(stored, "placements"):
        raise TypeError(f"{target.name} is sharded (DTensor); interpolate norms before sharding")
    if parametrize.is_parametrized(use.module, use.tensor_name):
        kind = "another parametrization, or a mask"
    elif torch_mask(use.module, use.tensor_name) is not None:
        kind = "a mask of torch.nn.utils.prune"
    else:
        return None if stored.requires_grad else "frozen (requires_grad=False)"
    raise ValueError(f"{target.name} carries {kind}; exclude={target.name!r} leaves it out")
