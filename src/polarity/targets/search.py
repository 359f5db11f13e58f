"""Find the weights of a model that can be pruned, under the names of the plain model."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from polarity._shards import is_sharded
from polarity.targets.defaults import Use, too_narrow
from polarity.targets.found import Targets
from polarity.targets.left_out import JIT, frozen, matrix_size, narrow, reach_of, why_no_default
from polarity.targets.selectors import Selector, select
from polarity.targets.shards import SHARDED, follow_shards
from polarity.targets.state_hooks import original_order
from polarity.targets.state_keys import TORCH_MASK, TORCH_STORED, leads_inside
from polarity.targets.stored import stored_leaves
from polarity.targets.target import Target
from polarity.targets.torch_prune import refuse_uneven_masks, torch_mask
from polarity.targets.wrappers import unwrapped

__all__ = [
    "Targets",
    "all_targets",
    "asked",
    "attached",
    "find_targets",
    "gather_targets",
    "masked_or_prunable",
    "plain_buffers",
    "why_not",
]

# An error lists no more reasons than this.
_LISTED = 8


def attached(model: nn.Module) -> dict[str, Target]:
    """Return the weights of a model that carry a mask, by plain name; refuse float8 ones."""
    masked = {target.name: target for target in all_targets(model) if target.masking is not None}
    for name, target in masked.items():
        if too_narrow(target.stored[0]):
            raise TypeError(f"{name} is {narrow(target)}")
    return masked


def masked_or_prunable(
    model: nn.Module, targets: Selector | None = None, exclude: Selector | None = None
) -> dict[str, Target]:
    """Return the selected weights; by default the masked ones, or all prunable ones if none is.

    Raises:
        ValueError: as :func:`polarity.find_targets`.
    """
    masked = attached(model)
    if targets is None and masked:
        if exclude is None:
            return masked
        targets = tuple(masked)
    return dict(find_targets(model, targets, exclude))


def find_targets(
    model: nn.Module,
    targets: Selector | None = None,
    exclude: Selector | None = None,
) -> Targets:
    """Find the prunable weights of any module, by the names they have when nothing is attached.

    By default these are the parameter named ``weight``, of two or more dimensions, of every module
    that is neither a norm nor an embedding (``Linear``, ``Conv*``, ``Bilinear``, transformers'
    ``Conv1D``, your own layers), the projections of ``MultiheadAttention`` (``in_proj_weight`` or
    ``q/k/v_proj_weight``, and its ``out_proj``), and the input and recurrent weights of ``RNN``,
    ``LSTM``, ``GRU`` and their cells. A norm is one of PyTorch's, or a class with "norm" in its
    name. Biases, norms, embeddings, weights that are tied to an embedding, and frozen weights
    (``requires_grad=False``) are taken only if ``targets`` selects them; once masked, tied and
    frozen weights remain targets.

    A tied weight is one target with several owners. It is an error to select one of its users and
    exclude another. Every floating-point parameter of two or more dimensions that is no target is
    listed in ``.skipped`` with the reason, and so are lazy weights and weights of other dtypes that
    were asked for. ``.reach`` says how many entries of the model's matrices the targets are.

    Args:
        model: any module, before or after something was attached, or a wrapper of one
            (``torch.compile``, ``DataParallel``, ``DistributedDataParallel``, ``AveragedModel``).
        targets: what to take instead of the default: a module type or module name (the weights of
            and below such modules), a parameter name, a glob over parameter names, a predicate
            ``(name, parameter) -> bool``, or several of these. Types and globs select default
            weights; where they match none, they select other parameters. Frozen weights are taken
            if they are selected.
        exclude: what to leave out, in the same forms; a module type, name or glob excludes all
            below it.

    Returns:
        The :class:`~polarity.targets.search.Targets`; ``print`` shows them as a table.

    Raises:
        ValueError: if nothing is left to prune; if a name or glob matches nothing; if one user of a
            tied weight is selected and another excluded; or if a selected weight is computed by a
            hook or by a parametrization of another kind.
        TypeError: if a selector is of another type, or a selected weight is sharded or, with
            ``targets``, of a float8 dtype.

    Example:
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
        >>> list(find_targets(model))
        ['0.weight', '2.weight']
        >>> list(find_targets(model, exclude="2"))
        ['0.weight']
        >>> list(find_targets(model, nn.Linear))
        ['2.weight']
        >>> print(find_targets(model, nn.Linear))
        weight      shape                  used by
        ------------------------------------------
        2.weight      2x4                   Linear
        0.weight  skipped  not selected by targets
        in reach: 8 of 44 matrix entries
    """
    parameters = all_targets(model)
    everything = parameters + _hooked(model)
    uses = [use for target in everything for use in target.uses]
    selected = select(uses, targets, "targets")
    excluded = select(uses, exclude, "exclude") if exclude is not None else set()

    result = gather_targets(
        everything,
        selected,
        excluded,
        partial(_why_not_pruned, named=targets is not None),
        nothing=f"{type(model).__name__} has no prunable weights{asked(targets, exclude)}",
        left={} if targets is not None else _left(parameters, selected, excluded),
    )
    reasons = _left(parameters, selected, excluded, targets) | result.skipped
    in_order = {each.name: reasons[each.name] for each in parameters if each.name in reasons}
    reach = reach_of(parameters, result.found, lambda each: in_order[each.name])
    return Targets(result.found, in_order, reach)


def _left(
    everything: Iterable[Target],
    selected: Collection[str],
    excluded: Collection[str],
    targets: Selector | None = None,
) -> dict[str, str]:
    """Say of every matrix that is not selected, or is excluded, why."""
    reasons = {}
    for target in everything:
        if matrix_size(target) is None:
            continue
        names = {use.name for use in target.uses}
        if names & set(excluded):
            reasons[target.name] = "excluded"
        elif not names & set(selected):
            why = None if targets is not None else why_no_default(target)
            reasons[target.name] = why or "not selected by targets"
    return reasons


def gather_targets(
    everything: Iterable[Target],
    selected: Collection[str],
    excluded: Collection[str],
    why_not: Callable[[Target], str | None],
    *,
    nothing: str,
    skipped: Mapping[str, str] | None = None,
    left: Mapping[str, str] | None = None,
) -> Targets:
    """Sort selected weights into found and skipped; a tied one must be taken with all its users.

    Args:
        everything: the weights to choose among.
        selected: names to take.
        excluded: names to leave out.
        why_not: returns why a weight is skipped, or None.
        nothing: what the error says where nothing is found.
        skipped: what was skipped before, and why.
        left: what else that error lists, and why.
    """
    result = Targets({}, dict(skipped or {}))
    for target in everything:
        names = [use.name for use in target.uses]
        kept = [name for name in names if name in selected and name not in excluded]
        left_out = [name for name in names if name in excluded]
        if kept and left_out:
            raise ValueError(
                f"{kept[0]!r} is tied to {left_out[0]!r}, which is left out: one tensor cannot be "
                "taken for one user alone; select or exclude both"
            )
        if kept:
            reason = why_not(target)
            if reason is None:
                result.found[target.name] = target
            else:
                result.skipped[target.name] = reason
    if not result.found:
        whys = [f"; {name} is {why}" for name, why in {**result.skipped, **(left or {})}.items()]
        more = "; …" if len(whys) > _LISTED else ""
        raise ValueError("".join([nothing, *whys[:_LISTED], more]))
    return result


def asked(targets: Selector | None, exclude: Selector | None) -> str:
    """Return what a caller asked for, for an error."""
    selected = f" for targets={targets!r}" if targets is not None else ""
    return selected + (f" with exclude={exclude!r}" if exclude is not None else "")


def all_targets(model: nn.Module) -> list[Target]:
    """Return every parameter of every module as a target, tied ones together, in model order."""
    follow_shards(unwrapped(model))
    uses: dict[int, list[Use]] = {}
    for path, module, ancestors in _modules(model):
        for tensor_name in _tensor_names(module):
            leaf = stored_leaves(module, tensor_name)[0]
            name = f"{path}.{tensor_name}" if path else tensor_name
            uses.setdefault(id(leaf), []).append(Use(name, module, tensor_name, leaf, ancestors))
    return [Target(tuple(each)) for each in uses.values()]


def plain_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Return every buffer by its plain name, without masks and buffers of parametrizations."""
    buffers = {}
    for path, module, _ in _modules(model):
        for name, value in module._buffers.items():
            is_torch_mask = torch_mask(module, name.removesuffix(TORCH_MASK)) is value
            if value is not None and not is_torch_mask:
                buffers[f"{path}.{name}" if path else name] = value
    return buffers


def _modules(model: nn.Module) -> Iterator[tuple[str, nn.Module, tuple[nn.Module, ...]]]:
    """Yield every module but parametrizations: its name, itself, and the modules that hold it."""
    modules = dict(unwrapped(model).named_modules(remove_duplicate=False))
    for path, module in modules.items():
        parts = path.split(".") if path else []
        if not leads_inside(path):
            prefixes = [".".join(parts[:end]) for end in range(len(parts) + 1)]
            yield path, module, tuple(modules[prefix] for prefix in prefixes)


def _tensor_names(module: nn.Module) -> list[str]:
    """Return the plain names of a module's own parameters, attached or not, in their order."""
    order = {name: place for place, name in enumerate(original_order(module))}
    return sorted(_held_names(module), key=lambda name: order.get(name, len(order)))


def _held_names(module: nn.Module) -> Iterator[str]:
    for name, parameter in module._parameters.items():
        if parameter is None:
            continue
        plain = name.removesuffix(TORCH_STORED)
        yield name if torch_mask(module, plain) is None else plain
    if parametrize.is_parametrized(module):
        yield from cast(nn.ModuleDict, module.parametrizations)


def _hooked(model: nn.Module) -> list[Target]:
    """Return the weights that a forward hook computes, found by the parameters that it reads."""
    targets = []
    for path, module, ancestors in _modules(model):
        held = dict(module._parameters.items())  # what a ScriptModule has cannot be iterated
        normed = [name[:-2] for name in held if name.endswith("_g") and f"{name[:-2]}_v" in held]
        scaled = [name[:-5] for name in _held_names(module) if name.endswith(TORCH_STORED)]
        for name in normed + scaled:
            if isinstance(value := getattr(module, name, None), Tensor):
                plain = f"{path}.{name}" if path else name
                targets.append(Target((Use(plain, module, name, value, ancestors),)))
    return targets


def _why_not_pruned(target: Target, *, named: bool) -> str | None:
    """Say why a selected weight cannot be pruned, or None if it can."""
    if target.tensor_name not in _held_names(target.module):
        raise ValueError(
            f"{target.name} is computed by a hook (weight_norm, spectral_norm, …) and not a "
            f"parameter; exclude={target.name!r} leaves it out"
        )
    if target.masking is None:
        refuse_uneven_masks(target.owners)
    if too_narrow(target.stored[0]):
        if named:
            raise TypeError(
                f"{target.name} is {narrow(target)}, or exclude={target.name!r} leaves it out"
            )
        return narrow(target)
    return None if target.masking is not None else why_not(target, frozen_too=named)


def why_not(target: Target, *, frozen_too: bool = False) -> str | None:
    """Say why nothing can be attached to a parameter, or None if it can."""
    stored = target.stored[0]
    if is_lazy(stored):
        return "lazy: run one batch through the model first"
    if not stored.is_floating_point():
        return f"of dtype {stored.dtype}, not floating point"
    if isinstance(target.module, torch.jit.ScriptModule):
        return JIT
    if stored.is_inference():
        return "made under torch.inference_mode(), so it can never be trained"
    if is_sharded(stored):
        raise TypeError(f"{target.name} is {SHARDED}")
    if target.chain:
        raise ValueError(
            f"{target.name} is already parametrized by {type(target.chain[0]).__name__}; "
            f"exclude={target.name!r} leaves it out"
        )
    return None if stored.requires_grad or frozen_too else frozen(target)
