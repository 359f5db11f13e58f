"""SNIP: how much the loss depends on the presence of a connection."""

import torch
from torch import Tensor, nn

from polarity._running import (
    drawn_seed,
    outside_inference_mode,
    recording_gradients,
    same_random_state,
)
from polarity.scores._loss_gradients import (
    Batches,
    LossFunction,
    Mode,
    check_loss,
    check_mode,
    differentiable,
    gradients,
    losses,
    scored_copy,
    summed,
)
from polarity.targets.search import masked_or_prunable
from polarity.targets.selectors import Selector
from polarity.targets.shards import refuse_sharded
from polarity.targets.target import check_has_values

__all__ = ["snip"]


@outside_inference_mode
def snip(
    model: nn.Module,
    loss_fn: LossFunction,
    batches: Batches,
    *,
    mode: Mode = "train",
    targets: Selector | None = None,
    exclude: Selector | None = None,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    r"""Score by connection sensitivity: how the loss responds to a gate on each entry.

    With a gate :math:`c` on every weight, :math:`w = c \odot w_0`, and the losses :math:`L_b` of
    the batches, the score is the gradient with respect to the gates where all are open, normalised
    to sum to 1 over the model:

    .. math:: s_i = \frac{|g_i|}{\sum_j |g_j|}, \qquad
        g = \sum_b \frac{\partial L_b}{\partial c}\Big|_{c=1}
          = w \odot \sum_b \frac{\partial L_b}{\partial w}.

    It is computed on a copy. In training mode, the default, batch normalisation uses the statistics
    of each batch and dropout is active; in evaluation mode batch normalisation uses its running
    statistics (at initialisation zeros and ones) and dropout is off. Networks with such layers get
    different scores in the two modes. The widely used code of Tanaka et al. scores in evaluation
    mode unless it is told otherwise (``--prune-train-mode``).

    The model, its gradients and modes, and the random state of torch are unchanged. The weights are
    the effective ones, so pruned entries score 0, and a Sign-In weight scores like a plain one.

    The scores depend on the batches: ranks that are to have the same masks need the same batches.

    Args:
        model: any module, plain or with something attached.
        loss_fn: ``(output, target) -> scalar tensor``.
        batches: pairs ``(input, target)``, moved to the model's device and read once; an input
            that is a tuple or a dict is passed to the model as its arguments.
        mode: ``"train"`` or ``"eval"``, the mode of every module of the copy.
        targets: which weights, in the forms of :func:`polarity.find_targets`; by default the
            masked ones, or all prunable ones if none is masked.
        exclude: which weights to leave out, in the same forms.
        generator: seeds dropout. By default dropout follows the random state of torch; among
            several ranks of an initialised ``torch.distributed`` group it follows rank 0's, and all
            ranks must call. With a generator nothing is communicated.

    Returns:
        ``{plain name: float32 (float64 for float64 weights) tensor of the weight's shape}``.

    Raises:
        ValueError: if ``mode`` is unknown, nothing can be scored, ``batches`` is empty or holds
            anything but pairs, the loss is not a scalar or depends on no weight, or a gradient is
            NaN, infinite, or zero everywhere.
        TypeError: if an argument is of another type.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> layer = nn.Linear(2, 1, bias=False)
        >>> _ = layer.weight.data.copy_(torch.tensor([[1.0, -2.0]]))
        >>> batch = torch.tensor([[3.0, 0.5]]), torch.tensor([[0.0]])
        >>> snip(layer, nn.functional.mse_loss, [batch])  # w x = 3 and -1, so 3 : 1
        {'weight': tensor([[0.7500, 0.2500]])}

    Source: Lee et al. (2019), *SNIP: Single-shot network pruning based on connection sensitivity*,
    equations 4 and 5.
    """
    check_loss(model, loss_fn, batches)
    refuse_sharded(model, "scores.snip")
    check_mode(mode)
    found = masked_or_prunable(model, targets, exclude)
    check_has_values(found.values())
    with (
        same_random_state(model, drawn_seed(generator)),
        recording_gradients(),
        differentiable(model, mode),
    ):
        twin, weights = scored_copy(model, found)
        twin.train(mode == "train")
        terms = (gradients(loss, weights) for loss in losses(twin, loss_fn, batches))
        slopes = summed(terms, weights)
    with torch.no_grad():
        scores = {name: (weights[name] * slope).abs() for name, slope in slopes.items()}
        total = sum(score.sum(dtype=torch.float64).item() for score in scores.values())
        if not 0 < total < float("inf"):
            raise ValueError(
                f"the scores sum to {total}, expected a positive finite number: the gradient of "
                "loss_fn is zero at every scored weight, or too large for their dtype"
            )
        return {name: score / total for name, score in scores.items()}
