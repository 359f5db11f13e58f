"""What soft thresholds leave of a model: masks, density, a table, and the weights before them."""

from collections.abc import Mapping

from torch import Tensor, nn

from polarity._running import outside_inference_mode
from polarity.attach.masks import masked_weights
from polarity.dense_to_sparse.threshold_report import LayerThreshold, ThresholdReport
from polarity.targets.shards import refuse_sharded
from polarity.targets.target import Target

__all__ = ["report_of", "soft_density", "soft_mask", "threshold_report", "weights_before_threshold"]


@outside_inference_mode
def soft_mask(model: nn.Module) -> dict[str, Tensor]:
    """Return which entries of each masked weight are live and above its soft threshold.

    :func:`polarity.masks` gives the masks before the threshold. Without a threshold both are the
    same.

    Returns:
        ``{plain name: bool tensor}``.

    Raises:
        ValueError: if the model carries no mask.
        TypeError: if ``model`` is not a module.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> import polarity as pol
        >>> model = nn.Linear(2, 1, bias=False)
        >>> _ = model.weight.data.copy_(torch.tensor([[0.6, -0.4]]))
        >>> _ = pol.dense_to_sparse.threshold_weights(model, None, decay=0.0, s0=0.0)
        >>> soft_mask(model)
        {'weight': tensor([[ True, False]])}
    """
    refuse_sharded(model, "soft_mask")
    return {name: target.support for name, target in masked_weights(model).items()}


def soft_density(model: nn.Module) -> float:
    """Return the fraction of entries above the soft threshold, over all masked weights together.

    Weights without a threshold count by their masks. :func:`polarity.density` is that of the masks
    before the threshold, 1 unless something was pruned.

    Raises:
        ValueError: if the model carries no mask.
        TypeError: if ``model`` is not a module.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> import polarity as pol
        >>> model = nn.Linear(2, 1, bias=False)
        >>> _ = model.weight.data.copy_(torch.tensor([[0.6, -0.4]]))
        >>> _ = pol.dense_to_sparse.threshold_weights(model, None, decay=0.0, s0=0.0)
        >>> soft_density(model), pol.density(model)
        (0.5, 1.0)
    """
    refuse_sharded(model, "soft_density")
    return threshold_report(model).density


def threshold_report(model: nn.Module) -> ThresholdReport:
    """Return the threshold and the density of every masked weight; ``print`` shows a table.

    Raises:
        ValueError: if the model carries no mask.
        TypeError: if ``model`` is not a module.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> import polarity as pol
        >>> model = nn.Linear(2, 1, bias=False)
        >>> _ = model.weight.data.copy_(torch.tensor([[0.6, -0.4]]))
        >>> _ = pol.dense_to_sparse.threshold_weights(model, None, decay=0.0, s0=0.0)
        >>> print(threshold_report(model))
        weight  shape  s  threshold  live  density
        ------------------------------------------
        weight    1x2  0        0.5     1   0.5000
        total       2                   1   0.5000
    """
    refuse_sharded(model, "threshold_report")
    found = masked_weights(model)
    return report_of(found, {name: target.support for name, target in found.items()})


@outside_inference_mode
def weights_before_threshold(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of the masked weights as they are before the soft threshold shrinks them.

    These have a sign and a magnitude below the threshold too, where the effective weight is 0:
    capture them during an STR run for :func:`polarity.start_from_signs` and
    :func:`polarity.start_from_magnitudes`. :class:`polarity.SignTracker` reads signs from them.

    Returns:
        ``{plain name: tensor}``, with zeros outside the mask.

    Raises:
        ValueError: if the model carries no mask.
        TypeError: if ``model`` is not a module.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> import polarity as pol
        >>> model = nn.Linear(2, 1, bias=False)
        >>> _ = model.weight.data.copy_(torch.tensor([[0.75, -0.25]]))
        >>> _ = pol.dense_to_sparse.threshold_weights(model, None, decay=0.0, s0=0.0)
        >>> model.weight.detach(), weights_before_threshold(model)["weight"]
        (tensor([[0.2500, -0.0000]]), tensor([[ 0.7500, -0.2500]]))
    """
    refuse_sharded(model, "weights_before_threshold")
    return {n: target.before_threshold.clone() for n, target in masked_weights(model).items()}


def report_of(found: Mapping[str, Target], supports: Mapping[str, Tensor]) -> ThresholdReport:
    """Return the report of masked weights with these supports."""
    rows = []
    for name, target in found.items():
        s = None if target.threshold is None else float(target.threshold.s.detach())
        live = int(supports[name].count_nonzero())
        rows.append(LayerThreshold(name, tuple(target.shape), s, live))
    return ThresholdReport(tuple(rows))
