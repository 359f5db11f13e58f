"""Convert a model to Sign-In: every masked weight becomes a product of two trained factors."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from polarity._checks import check_entries, check_flag, check_names
from polarity._running import outside_inference_mode
from polarity._warnings import warn_caller
from polarity.attach.forms import attach_form, make_plain
from polarity.attach.masks import before_masking
from polarity.optimizers.factor_state import foreign_state, split_state
from polarity.optimizers.given import Optimizers, as_optimizers
from polarity.optimizers.replaced import (
    Replacement,
    States,
    carried_states,
    check_replaceable,
    replace_parameter,
)
from polarity.parametrizations.arithmetic import zero_outside_
from polarity.parametrizations.masked import MaskedWeight
from polarity.parametrizations.sign_in import (
    SignInMW,
    balanced_factors,
    check_factors,
    checked_beta,
)
from polarity.targets.dense_leaves import on_dense_leaves
from polarity.targets.search import Targets, attached, find_targets
from polarity.targets.selectors import Selector
from polarity.targets.state_keys import factor_keys
from polarity.targets.stored import parametrizations_of
from polarity.targets.target import Target, check_has_values
from polarity.targets.wrappers import refuse_ddp
from polarity.targets.writing import write_all

__all__ = ["sign_in"]


@outside_inference_mode
@on_dense_leaves
def sign_in(
    model: nn.Module,
    *,
    beta: float | Mapping[str, float] = 1.0,
    targets: Selector | None = None,
    exclude: Selector | None = None,
    optimizer: Optimizers | None = None,
    verbose: bool = False,
) -> nn.Module:
    r"""Train the weights of a model as mask ⊙ m ⊙ v, in place: one line in an existing script.

    Every selected weight becomes a :class:`SignInMW`: the product of two factors with
    :math:`m^2 - v^2 = \beta` under the weight's mask (all ones if there was none). The outputs of
    the model are unchanged, up to rounding. A weight that is in this form already is rescaled to
    the new ``beta``.

    The factors are new parameters. Call this before you build an optimizer, or pass the optimizer:
    the factors then take the weight's place in it, with its group, learning rate and options. The
    optimizer's averages of gradients are carried over by the chain rule, averages of squares by its
    square, step counts as they are; state of any other kind starts afresh, with a warning. An
    optimizer that is not passed raises RuntimeError at its next step. Python attributes that others
    keep on a weight (``_no_weight_decay``, for instance) pass to both of its factors.

    Call it before wrapping the model in ``DistributedDataParallel``, before ``fully_shard`` and
    before ``torch.compile``.
    :func:`rescale` restores the inner scaling during training, :func:`merge` ends it.

    Args:
        model: any module, plain or masked, trained or not.
        beta: the inner scaling, a positive number, or one for each weight, ``{plain name: beta}``.
        targets: which weights, see :func:`find_targets`; by default those that carry a mask, or all
            that can be pruned where none does.
        exclude: which weights to leave out, in the same forms.
        optimizer: an existing optimizer of the weights, or a list of them, to train the factors
            instead. (Muon orthogonalises its updates as of matrices: give the factors to it only if
            this is what you mean.)
        verbose: print the table of what was converted and what was skipped, and why.

    Returns:
        The model.

    Raises:
        ValueError: if ``beta`` is not positive and finite, or names other weights than those
            selected; if factors of a weight with this ``beta`` are out of the range of its dtype;
            if there is nothing to convert; if a weight is NaN or infinite or has another
            parametrization in addition to its mask; if ``optimizer`` holds none of the weights, if
            its state has another shape than its parameter, or if it has divided its parameters
            among ranks (``ZeroRedundancyOptimizer``) or keeps one state of them all (``LBFGS``):
            build it afterwards. The model and the optimizer are left as they were.
        TypeError: if an argument is of another type, or the model is wrapped in
            ``DistributedDataParallel`` or divided by ``fully_shard`` already.

    Warns:
        UserWarning: if the optimizer's state has an entry of another kind, or as
            :func:`mask_weights`.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> import polarity as pol
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> sgd = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> _ = pol.sign_in(model, optimizer=sgd)
        >>> model[0].parametrizations.weight[0]
        SignInMW((3, 4), density=1, beta=1)
        >>> model(torch.ones(1, 4)).sum().backward(); sgd.step()
        >>> list(pol.merge(model, optimizer=sgd).state_dict())
        ['0.weight', '0.bias', '2.weight', '2.bias']

    Source: *Sign-In to the Lottery*, section 4, Algorithm 1 and appendix I.
    """
    check_flag("verbose", verbose)
    masked = attached(model) if targets is None else {}
    chosen = tuple(masked) if targets is None and masked else targets
    found = find_targets(model, chosen, exclude)
    betas = _betas(beta, found)
    optimizers = as_optimizers(optimizer)
    _check(found, betas, optimizers)
    products = {n: t for n, t in found.items() if isinstance(t.masking, SignInMW)}
    if len(products) < len(found):
        refuse_ddp(model, "sign_in")
        before_masking(model, found, "sign_in")
    plans = [
        _planned(name, target, betas[name], optimizers)
        for name, target in found.items()
        if name not in products
    ]
    _write_products(products, betas)
    for target, form, change, states in plans:
        make_plain(target)
        attach_form(target, form, stored=tuple(change.new.values()))
        replace_parameter(optimizers, change, states)
    if verbose:
        print(found)
    return model


@torch.no_grad()
def _write_products(products: Mapping[str, Target], betas: Mapping[str, Tensor]) -> None:
    """Give weights that are products already the factors of another inner scaling."""
    pairs = []
    for name, target in products.items():
        form = target.masking
        assert isinstance(form, SignInMW)
        factors = balanced_factors(target.weight, betas[name])
        if form.enforce:
            zero_outside_(factors[0], form.mask)
        pairs += [(form.beta, betas[name]), *zip(target.stored, factors, strict=True)]
    write_all(pairs)


@torch.no_grad()
def _planned(
    name: str, target: Target, beta: Tensor, optimizers: Sequence[torch.optim.Optimizer]
) -> tuple[Target, SignInMW, Replacement, list[States]]:
    """Return the form and the factors of one weight, and their state, without changing anything."""
    old, masking = target.stored[0], target.masking
    enforce = masking is None or masking.enforce
    form = SignInMW(target.mask.to(old.dtype), float(beta), enforce=enforce)
    factors = form.right_inverse(target.weight)
    m, v = (nn.Parameter(each, requires_grad=old.requires_grad) for each in factors)
    if old.grad is not None:
        m.grad, v.grad = old.grad * v, old.grad * m
    change = Replacement(
        (old,),
        dict(zip(factor_keys(name), (m, v), strict=True)),
        lambda state: split_state(state, m, v),
        f"sign_in made {name!r} a product of two; call sign_in(model, optimizer=optimizer), or "
        "build the optimizer after sign_in",
    )
    return target, form, change, carried_states(optimizers, change)


def _betas(beta: float | Mapping[str, float], found: Targets) -> dict[str, Tensor]:
    """Return the checked inner scaling of each weight."""
    if not isinstance(beta, Mapping):
        return dict.fromkeys(found, checked_beta(beta))
    check_names("beta", beta, found, what="selected")
    return {name: checked_beta(value, f"beta[{name!r}]") for name, value in beta.items()}


def _check(
    found: Targets, betas: Mapping[str, Tensor], optimizers: Sequence[torch.optim.Optimizer]
) -> None:
    """Raise for everything that can be wrong, before anything is changed."""
    check_has_values(found.values())
    for name, target in found.items():
        weight = target.weight
        check_entries(f"weight {name!r}", weight)
        check_factors(name, betas[name], weight)
        _ = target.survivors  # raises if the mask holds other values than 0 and 1
        for use in target.owners:
            for each in parametrizations_of(use.module, use.tensor_name):
                if not isinstance(each, MaskedWeight):
                    raise ValueError(
                        f"{name} is also parametrized by {type(each).__name__}, expected a mask at "
                        f"most, because a product must come first: exclude={name!r} leaves it out"
                    )
    plain = {n: t.stored for n, t in found.items() if not isinstance(t.masking, SignInMW)}
    if not plain:
        return
    check_replaceable(optimizers, plain)
    for optimizer in optimizers:
        foreign = {
            key
            for (leaf,) in plain.values()
            for key in foreign_state(optimizer.state.get(leaf, {}), leaf.shape)
        }
        if not foreign:
            continue
        warn_caller(
            f"{type(optimizer).__name__} remembers {', '.join(sorted(foreign))}, which has no form "
            "for a product: its state of the converted weights starts afresh",
        )
