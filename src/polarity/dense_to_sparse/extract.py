"""Make what is above soft thresholds an ordinary mask."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from polarity._running import outside_inference_mode
from polarity.attach.masks import masked_leaves, masked_weights
from polarity.dense_to_sparse.soft_threshold import chains_of, check_last
from polarity.dense_to_sparse.support import report_of
from polarity.dense_to_sparse.threshold_report import ThresholdReport
from polarity.optimizers.given import Optimizers, as_optimizers
from polarity.optimizers.pruned_state import zero_pruned_state
from polarity.optimizers.states import check_holds
from polarity.parametrizations.soft_threshold import SoftThreshold
from polarity.targets.shards import refuse_sharded
from polarity.targets.wrappers import refuse_ddp
from polarity.targets.writing import check_writable, write_all

__all__ = ["extract_soft_mask"]


@outside_inference_mode
@torch.no_grad()
def extract_soft_mask(model: nn.Module, optimizer: Optimizers | None = None) -> ThresholdReport:
    """Make what is above the soft thresholds an ordinary mask, and the shrunk values the weights.

    The model computes what it did, up to the rounding of Sign-In factors, and is masked like any
    other afterwards: it can be trained, pruned, saved, merged, or become a ticket.

    Args:
        model: a model with soft thresholds.
        optimizer: its optimizer, or a sequence of them: :math:`s` is taken out, with its state, and
            the state of pruned entries is zeroed. The group of :math:`s` stays, empty, so that a
            scheduler keeps its numbering.

    Returns:
        The :class:`ThresholdReport` of the moment before.

    Raises:
        ValueError: if no weight has a soft threshold; if a mask holds values other than 0 and 1;
            if a weight has a further parametrization; or if ``optimizer`` holds none of the
            weights. Model and optimizer are left as they were.
        TypeError: if ``model`` or ``optimizer`` is of another type, or the model is wrapped in
            ``DistributedDataParallel``.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> import polarity as pol
        >>> model = nn.Linear(2, 1, bias=False)
        >>> _ = model.weight.data.copy_(torch.tensor([[0.75, -0.25]]))
        >>> _ = pol.dense_to_sparse.threshold_weights(model, None, decay=0.0, s0=0.0)
        >>> _ = extract_soft_mask(model)
        >>> model.weight.detach(), pol.density(model)
        (tensor([[0.2500, 0.0000]]), 0.5)
    """
    optimizers = as_optimizers(optimizer)
    refuse_sharded(model, "extract_soft_mask")
    masked = masked_weights(model)
    found = {name: target for name, target in masked.items() if target.threshold is not None}
    if not found:
        raise ValueError(
            f"model has {len(masked)} masked weights (the first is {next(iter(masked))!r}), "
            "expected one with a soft threshold: call threshold_weights before training"
        )
    refuse_ddp(model, "extract_soft_mask")
    for name, target in found.items():
        check_last(name, target.chain, 2)
    check_holds(optimizers, {name: target.stored for name, target in found.items()})
    supports = {name: target.support for name, target in masked.items()}
    report = report_of(masked, supports)
    pairs: list[tuple[Tensor, Tensor]] = []
    for name, target in found.items():
        masking = target.masking
        assert masking is not None
        for leaf in target.stored:
            check_writable(leaf, f"what {name!r} is stored as")
        new = masking.to_store(target.weight, supports[name])
        values = new if isinstance(new, tuple) else (new,)
        pairs += [(masking.mask, supports[name]), *zip(target.stored, values, strict=True)]
    write_all(pairs)
    gone: set[int] = set()
    for name, target in found.items():
        gone.add(id(cast(SoftThreshold, target.threshold).s))
        for chain in chains_of(target):
            del chain[1]
        assert target.masking is not None
        target.masking.enforce = True
        target.masking.clear(target.stored, report[name].survivors)
    _take_out(optimizers, gone)
    zero_pruned_state(optimizers, masked_leaves(found.values()))
    return report


def _take_out(optimizers: Sequence[torch.optim.Optimizer], gone: set[int]) -> None:
    """Take parameters and their state out of optimizers; groups keep their places."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            leaving = [each for each in group["params"] if id(each) in gone]
            if "param_names" in group:
                named = zip(group["params"], group["param_names"], strict=True)
                group["param_names"] = [name for each, name in named if id(each) not in gone]
            group["params"] = [each for each in group["params"] if id(each) not in gone]
            for each in leaving:
                optimizer.state.pop(each, None)
