"""Make the weights of a model plain parameters again, without changing what it computes."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from polarity._checks import check_flag, check_shape
from polarity._running import outside_inference_mode
from polarity.attach.forms import make_plain
from polarity.attach.masks import masked_leaves
from polarity.attach.norms import attached_norms, detach_norms
from polarity.optimizers.factor_state import join_state
from polarity.optimizers.given import Optimizers, as_optimizers
from polarity.optimizers.pruned_state import zero_entries, zero_pruned_state
from polarity.optimizers.replaced import (
    Replacement,
    carried_states,
    check_replaceable,
    replace_parameter,
)
from polarity.optimizers.states import check_holds
from polarity.parametrizations.arithmetic import zero_outside_
from polarity.parametrizations.sign_in import SignInMW
from polarity.targets.dense_leaves import on_dense_leaves
from polarity.targets.recurrent import refresh_flat_weights
from polarity.targets.search import Targets, all_targets, attached
from polarity.targets.state_hooks import forget_plain_checkpoints
from polarity.targets.state_keys import inside, leads_inside
from polarity.targets.target import Target
from polarity.targets.torch_prune import warn_of_torch_masks
from polarity.targets.wrappers import refuse_ddp, unwrapped
from polarity.targets.writing import check_writable, write_all

__all__ = ["dense_state_dict", "merge"]


@outside_inference_mode
@on_dense_leaves
def merge(
    model: nn.Module, *, optimizer: Optimizers | None = None, verbose: bool = False
) -> nn.Module:
    """Make everything that polarity attached a plain parameter again, in place.

    Masked weights keep their zeros, Sign-In weights become the product of their factors, norm
    layers under :class:`NormInterp` keep their trained values. The outputs in evaluation mode are
    exactly the same, and the ``state_dict`` has the keys, in the order, that it had before anything
    was attached. Masked and norm parameters stay the same objects; a new parameter replaces the
    factors of a Sign-In weight, and takes the Python attributes that others keep on them
    (``_no_weight_decay``, for instance). A weight with a further parametrization, registered by
    hand, becomes the value that it has. Call this before exporting, deploying or publishing the
    model.

    Args:
        model: a model to which something is attached.
        optimizer: an optimizer of the model, or a list of them. If given, its state at pruned
            entries is zeroed, so that old momentum does not move them once no mask is enforced, and
            a Sign-In weight takes the place of its factors, with the state that :func:`sign_in`
            would split into theirs. An optimizer of Sign-In factors that is not passed raises
            RuntimeError at its next step. Of the state that a ``ZeroRedundancyOptimizer`` keeps,
            each rank's call zeroes that rank's.
        verbose: print the table of what was merged.

    Returns:
        The model.

    Raises:
        ValueError: if nothing is attached to the model; if ``optimizer`` holds none of the weights
            that are merged, or none of the factors of a model with Sign-In weights, or the two
            factors of one in different groups; if its state has another shape than its parameter;
            or if a further parametrization has changed the shape of a weight. Model and optimizer
            are left as they were.
        TypeError: if ``model`` or ``optimizer`` is of another type, or ``model`` has Sign-In
            weights and is wrapped in ``DistributedDataParallel``.

    Warns:
        UserWarning: if ``torch.nn.utils.prune`` holds a mask on another tensor, such as a bias: it
            stays there, with its hook.

    Example:
        >>> from torch import nn
        >>> import polarity as pol
        >>> model = merge(pol.mask_weights(nn.Linear(4, 3)))
        >>> list(model.state_dict())
        ['weight', 'bias']
    """
    check_flag("verbose", verbose)
    optimizers = as_optimizers(optimizer)
    found = attached(model)
    if not found and not attached_norms(model):
        raise ValueError(f"{type(model).__name__} has no masked weights and no interpolated norms")
    products = {n: t for n, t in found.items() if isinstance(t.masking, SignInMW)}
    if products:
        refuse_ddp(model, "merge")
    values = _checked(model, found, products, optimizers)
    warn_of_torch_masks((u for t in all_targets(model) for u in t.uses), (), "merge")
    changes = {name: _product(target) for name, target in products.items()}
    states = {name: carried_states(optimizers, each) for name, each in changes.items()}
    leaves = masked_leaves(target for name, target in found.items() if name not in products)
    write_all(values)
    for target in found.values():
        if target.is_stored and target.masking is not None and target.masking.enforce:
            zero_outside_(target.stored[0], target.masking.mask)
    zero_pruned_state(optimizers, leaves)
    for name, target in found.items():
        if name in changes:
            (weight,) = changes[name].new.values()
            make_plain(target, weight)
            replace_parameter(optimizers, changes[name], states[name])
        else:
            make_plain(target)
        for use in target.owners:
            forget_plain_checkpoints(use.module)
            refresh_flat_weights(use.module)
    norms = detach_norms(model)
    if verbose:
        print(Targets(found))
        for name in norms:
            print(name)
    return model


def _checked(
    model: nn.Module,
    found: Mapping[str, Target],
    products: Mapping[str, Target],
    optimizers: Sequence[torch.optim.Optimizer],
) -> list[tuple[Tensor, Tensor]]:
    """Raise for everything that can be wrong; return what further parametrizations make of weights.

    A masked weight, and a product, need no other values than they have.
    """
    leaves = {name: target.stored for name, target in found.items()}
    norms = [target for target in all_targets(model) if target.interpolation is not None]
    check_holds(optimizers, leaves | {target.name: target.stored for target in norms})
    if products:
        check_replaceable(optimizers, {name: target.stored for name, target in products.items()})
    pairs = []
    for name, target in found.items():
        _ = target.survivors  # raises if the mask holds other values than 0 and 1
        for leaf in target.stored:
            check_writable(leaf, f"what {name!r} is stored as")
        if len(target.chain) > 1 and name not in products:
            weight, leaf = target.weight, target.stored[0]
            check_shape(
                f"the parametrized weight {name!r}", None, weight.shape, leaf.shape, "parameter"
            )
            pairs.append((leaf, weight))
    return pairs


@torch.no_grad()
def _product(target: Target) -> Replacement:
    """Return the product of the factors of a weight, as the parameter that is to replace them."""
    m, v = target.stored
    weight = nn.Parameter(target.weight.clone(), requires_grad=m.requires_grad)
    if m.grad is not None and v.grad is not None:
        weight.grad = join_state({"exp_avg": m.grad}, {"exp_avg": v.grad}, m, v)["exp_avg"]
    return Replacement(
        (m, v),
        {target.name: weight},
        lambda of_m, of_v: (_joined(of_m, of_v, target),),
        f"merge made {target.name!r} one parameter again; call merge(model, optimizer=optimizer), "
        "or build the optimizer after merge",
    )


def _joined(of_m: Mapping[str, Any], of_v: Mapping[str, Any], target: Target) -> dict[str, Any]:
    """Return the state of a product, with zeros outside the mask."""
    joined = join_state(of_m, of_v, *target.stored)
    if target.numeric_mask is not None:
        zero_entries(joined, target.numeric_mask)
    return joined


@outside_inference_mode
def dense_state_dict(model: nn.Module) -> dict[str, Any]:
    """Return the ``state_dict`` that the model would have after :func:`merge`, without merging.

    Effective weights, and trained norm parameters, under plain names; loads into the plain model,
    or into a converted one. Of a model that ``fully_shard`` has divided they are DTensors, divided
    like it, which ``torch.distributed.checkpoint`` saves.

    The names of a tied weight share one tensor. So this is what to give to others that save a
    model: ``model.save_pretrained(folder, state_dict=polarity.dense_state_dict(model))`` writes a
    checkpoint of transformers that ``from_pretrained`` reads, which ``save_pretrained`` alone does
    not: it refuses masked weights that are tied ("shared tensors"). :func:`save` keeps the masks.
    In the Trainer, ``polarity.integrations.transformers.SparseTrainer`` does both.

    Example:
        >>> from torch import nn
        >>> import polarity as pol
        >>> list(dense_state_dict(pol.mask_weights(nn.Linear(4, 3))))
        ['bias', 'weight']
    """
    model = unwrapped(model)
    converted = model.state_dict()
    state: OrderedDict[str, Any] = OrderedDict(converted)
    weights: dict[str, Tensor] = {
        use.name: weight
        for target in attached(model).values()
        for weight in (target.as_given(target.weight.clone()),)
        for use in target.uses
    }
    for name, weight in (weights | attached_norms(model)).items():
        for key in [key for key in state if key.startswith(inside(name))]:
            del state[key]
        state[name] = weight
    # Modules use the versions to read checkpoints of their earlier versions.
    versions = {
        k: v
        for k, v in converted._metadata.items()  # type: ignore[attr-defined]
        if not leads_inside(k)
    }
    state._metadata = versions  # type: ignore[attr-defined]
    return state
