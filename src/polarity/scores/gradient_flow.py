"""GraSP: how much each connection contributes to the norm of the gradient."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from polarity._checks import check_finite, check_number
from polarity._running import (
    drawn_seed,
    outside_inference_mode,
    recording_gradients,
    same_random_state,
    twice_differentiable,
)
from polarity.scores._loss_gradients import (
    Batches,
    LossFunction,
    Mode,
    check_loss,
    check_mode,
    gradients,
    losses,
    scored_copy,
    summed,
)
from polarity.targets.search import masked_or_prunable
from polarity.targets.selectors import Selector
from polarity.targets.shards import refuse_sharded
from polarity.targets.target import check_has_values

__all__ = ["grasp"]


@outside_inference_mode
def grasp(
    model: nn.Module,
    loss_fn: LossFunction,
    batches: Batches,
    *,
    temperature: float = 200.0,
    mode: Mode = "train",
    targets: Selector | None = None,
    exclude: Selector | None = None,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    r"""Score by how much removing an entry would reduce the norm of the gradient.

    With :math:`L = \sum_b L_b` the loss over all batches, computed from outputs divided by the
    temperature, and :math:`g` and :math:`H` its gradient and Hessian by the weights,

    .. math:: s = w \odot H g.

    To first order, a step :math:`\delta` changes the squared norm of the gradient by
    :math:`2\,\delta^\top H g`. Removing entry :math:`i` is the step :math:`\delta = -w_i e_i`, and
    so changes it by :math:`-2 s_i`. The highest scores belong to the entries whose removal would
    reduce the flow of gradient most, and these survive; an entry with a negative score hampers it.
    (The paper scores by :math:`-s` and removes the highest.)

    Like :func:`snip`, it computes on a copy, in training mode by default; both passes over the
    batches draw the same dropout. Pruned entries do not contribute to :math:`g` and score 0.

    Args:
        model: any module, plain or with something attached, whose output is a tensor.
        loss_fn: ``(output / temperature, target) -> scalar tensor``.
        batches: pairs ``(input, target)`` as for :func:`snip`; they are held in memory, because
            they are read twice.
        temperature: positive number that the output is divided by. 200 brings the probabilities of
            a classifier close to uniform.
        mode: ``"train"`` or ``"eval"``, as for :func:`snip`.
        targets: which weights, in the forms of :func:`polarity.find_targets`; by default the
            masked ones, or all prunable ones if none is masked.
        exclude: which weights to leave out, in the same forms.
        generator: seeds dropout. By default dropout follows the random state of torch; among
            several ranks of an initialised ``torch.distributed`` group it follows rank 0's, and all
            ranks must call. With a generator nothing is communicated.

    Returns:
        ``{plain name: float32 (float64 for float64 weights) tensor of the weight's shape}``, of
        either sign.

    Raises:
        ValueError: if ``mode`` is unknown, nothing can be scored, ``temperature`` is not positive,
            ``batches`` is empty or holds anything but pairs, the loss is not a scalar or depends on
            no weight, or :math:`g` or :math:`Hg` is NaN or infinite.
        TypeError: if the model's output is not a tensor.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> layer = nn.Linear(2, 1, bias=False)
        >>> _ = layer.weight.data.copy_(torch.tensor([[1.0, -2.0]]))
        >>> batch = torch.tensor([[1.0, 1.0]]), torch.tensor([[0.0]])
        >>> def half_square(output, target):  # H is all ones, g = (-1, -1)
        ...     return (output - target).square().sum() / 2
        >>> grasp(layer, half_square, [batch], temperature=1)
        {'weight': tensor([[-2.,  4.]])}

    Source: Wang et al. (2020), *Picking winning tickets before training by preserving gradient
    flow*, equations 6 to 8 and algorithm 2.
    """
    check_loss(model, loss_fn, batches)
    refuse_sharded(model, "scores.grasp")
    check_finite("temperature", temperature)
    check_number("temperature", temperature, above=0)
    check_mode(mode)
    found = masked_or_prunable(model, targets, exclude)
    check_has_values(found.values())
    seed = drawn_seed(generator)
    with recording_gradients(), same_random_state(model, seed):
        batches = list(batches)

    def cooled(output: Any, target: Any) -> Tensor:
        if not isinstance(output, Tensor):
            raise TypeError(
                f"the model returns a {type(output).__name__}, expected a tensor to divide by "
                "temperature"
            )
        return loss_fn(output / float(temperature), target)

    with twice_differentiable(model), recording_gradients():
        with same_random_state(model, seed):
            twin, weights = scored_copy(model, found)
            twin.train(mode == "train")
            slopes = (gradients(loss, weights) for loss in losses(twin, cooled, batches))
            gradient = summed(slopes, weights)
        with same_random_state(model, seed):
            flow = {name: gradient[name] * target.live for name, target in found.items()}
            products = summed(_hessian_times(flow, losses(twin, cooled, batches), weights), weights)
    return {name: weights[name].detach() * product for name, product in products.items()}


def _hessian_times(
    flow: Mapping[str, Tensor], batch_losses: Iterator[Tensor], weights: Mapping[str, Tensor]
) -> Iterator[tuple[Tensor, ...]]:
    """Yield, for each batch, its Hessian times ``flow``: the gradient of a directional slope."""
    for loss in batch_losses:
        slopes = gradients(loss, weights, create_graph=True)
        along = sum(
            ((one * other).sum() for one, other in zip(flow.values(), slopes, strict=True)),
            start=loss.new_zeros(()),
        )
        if along.requires_grad:  # a loss that is linear in the weights has no Hessian
            yield gradients(along, weights)
