"""STR: attach soft thresholds to a model, and give them to its optimizer."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from polarity._checks import check_finite, check_flag, check_number
from polarity._running import outside_inference_mode
from polarity._warnings import warn_caller
from polarity.attach.masks import attach_masks, before_masking
from polarity.optimizers.given import Optimizers, as_optimizers, described
from polarity.optimizers.states import check_holds
from polarity.parametrizations.soft_threshold import SoftThreshold
from polarity.targets.search import masked_or_prunable
from polarity.targets.selectors import Selector
from polarity.targets.shards import refuse_sharded
from polarity.targets.target import Target, refuse_compact
from polarity.targets.wrappers import refuse_ddp

__all__ = ["chains_of", "check_last", "threshold_weights"]

# Below this value of s float32 has neither a threshold nor a gradient that could move s.
_REACHABLE = -15.0


@outside_inference_mode
def threshold_weights(
    model: nn.Module,
    optimizer: Optimizers | None,
    *,
    decay: float,
    lr: float | None = None,
    s0: float = -8.0,
    steps: float | None = None,
    targets: Selector | None = None,
    exclude: Selector | None = None,
    first_layer: bool = True,
    last_layer: bool = True,
) -> dict[str, nn.Parameter]:
    r"""Put a :class:`~polarity.SoftThreshold` on every prunable weight, and train it (STR).

    Each weight gets a trained number :math:`s` of its own, and the layer computes with
    :math:`\operatorname{sign}(w) \operatorname{relu}(|w| - \sigma(s))`. The density that a run ends
    at follows from ``decay``, cannot be set, and is known when the run is over:
    :func:`find_decay` searches for it. Weights without a mask are masked first, with ones; the
    parameters stay the same objects, and nothing is written. Attach before building a
    learning-rate scheduler, which numbers the optimizer's groups, and before wrapping the model in
    ``DistributedDataParallel``. For a Sign-In model call :func:`polarity.sign_in` first: a product
    comes before its threshold.

    :math:`s` is always trained by SGD, in a group of its own with the momentum of the optimizer.
    From the published :math:`s_0 = -3200` the gradient of :math:`s` is 0 in float32, so that decay
    alone moves it, over a distance that Adam's steps of one learning rate never cover. A model that
    Adam trains gets a second optimizer, for what this call returns::

        adam = torch.optim.Adam(model.parameters(), lr=1e-3)
        s = threshold_weights(model, None, decay=1e-3)
        sgd = torch.optim.SGD(s.values(), lr=0.1, momentum=0.9, weight_decay=1e-3)

    Build ``adam`` before this call, or its groups contain :math:`s` as well. The weight decay of
    the weights acts on :math:`w`, which has no other gradient while it is below the threshold.

    Args:
        model: any module.
        optimizer: the SGD that trains it, or a sequence of optimizers, the first SGD of which takes
            :math:`s`; None to give :math:`s` to an optimizer yourself.
        decay: weight decay :math:`\lambda` of :math:`s`. Published for ResNet-50 on ImageNet at
            density 0.1: 2.25e-5, with ``s0=-3200``.
        lr: learning rate of :math:`s`; by default that of the optimizer's first group.
        s0: initial value of :math:`s`.
        steps: how many steps of this learning rate the run makes, :math:`\sum_t \eta_t / \eta`: all
            of them at a constant rate, half of them under a cosine. With it the call checks that
            decay can bring :math:`s` to where it matters.
        targets: which weights, in the forms of :func:`polarity.find_targets`; by default the masked
            ones, or all prunable ones of a model without masks.
        exclude: which to leave out, in the same forms.
        first_layer: False leaves out the first of these weights in the model's order.
        last_layer: False leaves out the last of them.

    Returns:
        ``{plain name: s}``, the new parameters.

    Raises:
        ValueError: if ``optimizer`` holds no SGD or none of the weights, or a scheduler was built
            over it; if a number is out of range; if there is nothing to attach to; or if a weight
            has a further parametrization or is compact. Model and optimizer are left as they were.
        TypeError: if an argument is of another type, or the model is wrapped in
            ``DistributedDataParallel`` already.

    Warns:
        UserWarning: if ``s0`` is below −15 and the decay cannot bring :math:`s` above it: without
            loss gradients it ends at :math:`s_0 \exp(-\sum_t \eta_t \lambda / (1 - \mu))`, with the
            momentum :math:`\mu`.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> import polarity as pol
        >>> model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        >>> s = threshold_weights(model, sgd, decay=0.01, last_layer=False)
        >>> s["0.weight"]
        Parameter containing:
        tensor([-8.], requires_grad=True)
        >>> sgd.param_groups[-1]["weight_decay"], sgd.param_groups[-1]["params"] == [s["0.weight"]]
        (0.01, True)

    Source: Kusupati et al. (2020), section 3; github.com/RAIVNLab/STR.
    """
    check_number("decay", decay, at_least=0, below=math.inf)
    check_finite("s0", s0)
    check_flag("first_layer", first_layer)
    check_flag("last_layer", last_layer)
    if lr is not None:
        check_number("lr", lr, at_least=0, below=math.inf)
    if steps is not None:
        check_number("steps", steps, at_least=0, below=math.inf)
    optimizers = as_optimizers(optimizer)
    sgd = _sgd_of(optimizers)
    refuse_sharded(model, "threshold_weights")
    found = _to_threshold(model, targets, exclude, first_layer, last_layer)
    refuse_compact(found, "threshold_weights")
    check_holds(optimizers, {name: target.stored for name, target in found.items()})
    refuse_ddp(model, "threshold_weights")
    before_masking(model, found, "threshold_weights")
    forms = {}
    for name, target in found.items():
        leaf = target.stored[0]
        dtype = torch.promote_types(leaf.dtype, torch.float32)
        with leaf.device:  # not the default one
            forms[name] = SoftThreshold(s0, dtype=dtype)
    if sgd is not None:
        group = _group_of(sgd, [form.s for form in forms.values()], decay, lr)
        _warn_if_unreachable(group, sgd, s0, steps)
        sgd.add_param_group(group)
    attach_masks(found)
    for name, target in found.items():
        for chain in chains_of(target):
            chain.append(forms[name].train(target.module.training))
    return {name: form.s for name, form in forms.items()}


def _sgd_of(optimizers: Sequence[torch.optim.Optimizer]) -> torch.optim.SGD | None:
    """Return the optimizer that takes s, after a check that it can; None if none is given."""
    if not optimizers:
        return None
    sgd = next((each for each in optimizers if isinstance(each, torch.optim.SGD)), None)
    if sgd is None:
        raise ValueError(
            f"optimizer={described(optimizers)}, expected SGD: s is moved by weight decay over "
            "distances that steps of other optimizers never cover. Call threshold_weights(model, "
            "None, …) and train the parameters that it returns with torch.optim.SGD(s.values(), "
            "lr=…, weight_decay=…)"
        )
    if any("initial_lr" in group for group in sgd.param_groups):
        raise ValueError(
            "optimizer=SGD is in the hands of a learning-rate scheduler, which would leave the "
            "new group of s out: call threshold_weights before building the scheduler"
        )
    return sgd


def _to_threshold(
    model: nn.Module,
    targets: Selector | None,
    exclude: Selector | None,
    first_layer: bool,
    last_layer: bool,
) -> dict[str, Target]:
    """Return the selected weights, without the first and the last if they stay dense."""
    found = masked_or_prunable(model, targets, exclude)
    names = list(found)[0 if first_layer else 1 :]
    names = names if last_layer else [name for name in names if name != list(found)[-1]]
    if not names:
        raise ValueError(
            f"first_layer={first_layer} and last_layer={last_layer} leave nothing of the "
            f"{len(found)} weights (the first is {next(iter(found))!r}), expected one to threshold"
        )
    for name in names:
        if found[name].threshold is not None:
            raise ValueError(
                f"{name} has a soft threshold already: exclude={name!r} leaves it out, and "
                "extract_soft_mask ends it"
            )
        check_last(name, found[name].chain, 1)
        _ = found[name].survivors  # raises if the mask holds other values than 0 and 1
    return {name: found[name] for name in names}


def check_last(name: str, chain: Sequence[nn.Module], length: int) -> None:
    """Raise if a weight has more parametrizations than we put on it."""
    if len(chain) > length:
        raise ValueError(
            f"{name} is also parametrized by {type(chain[length]).__name__}, expected nothing "
            "after its mask but a threshold: remove it with "
            "torch.nn.utils.parametrize.remove_parametrizations, or exclude the weight"
        )


def _group_of(
    sgd: torch.optim.SGD, params: list[nn.Parameter], decay: float, lr: float | None
) -> dict[str, Any]:
    """Return the group of s: the first group's settings with its own decay and learning rate."""
    first = sgd.param_groups[0]
    group = {key: value for key, value in first.items() if key not in ("params", "param_names")}
    rate = first["lr"] if lr is None else lr
    # A tensor that two groups share would be scheduled twice.
    group["lr"] = rate.clone() if isinstance(rate, Tensor) else rate
    group |= {"params": params, "weight_decay": decay}
    if "param_names" in first:
        group["params"] = [(f"s{place}", each) for place, each in enumerate(params)]
    return group


def _warn_if_unreachable(
    group: Mapping[str, Any], sgd: torch.optim.SGD, s0: float, steps: float | None
) -> None:
    """Warn where decay alone cannot bring s to where a loss gradient can move it."""
    rate, decay = float(group["lr"]), float(group["weight_decay"])
    if s0 > _REACHABLE or (steps is None and rate * decay > 0):
        return
    moved = rate * decay * (steps or 0.0) / (1 - group["momentum"])
    end = s0 * math.exp(-moved)
    if end <= _REACHABLE:
        warn_caller(
            f"decay={decay} brings s from s0={s0} to {end:.5g} at best, expected above "
            f"{_REACHABLE:g}: the sum of lr * decay / (1 - momentum) over the run is {moved:.3g} "
            f"and has to be {math.log(s0 / _REACHABLE):.3g}; raise decay, or start from s0=-8"
        )


def chains_of(target: Target) -> list[Any]:
    """Return the list of parametrizations of every module that holds a weight."""
    return [cast(Any, use.module).parametrizations[use.tensor_name] for use in target.owners]
