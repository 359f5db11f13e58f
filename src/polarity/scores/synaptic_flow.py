"""SynFlow: iterative pruning at initialisation, without data."""

import warnings
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from polarity._bits.random import undrawn_on_error
from polarity._checks import all_finite, check_dtype, check_fraction, check_integer, check_ties
from polarity._inputs import check_inputs
from polarity._progress import Progress, watching
from polarity._running import (
    call,
    map_tensors,
    outside_inference_mode,
    recording_gradients,
    same_random_state,
    tensors_in,
    twice_differentiable,
)
from polarity.scores._loss_gradients import gradients, scored_copy
from polarity.selection.ties import Draw, Ties, draw_for, in_drawn_order
from polarity.selection.top_k import choose_top
from polarity.targets.search import masked_or_prunable
from polarity.targets.selectors import Selector
from polarity.targets.shards import refuse_sharded
from polarity.targets.target import check_has_values

__all__ = ["synflow"]

_SHOWN = 30  # names that a warning lists


@outside_inference_mode
def synflow(
    model: nn.Module,
    example_inputs: Any,
    *,
    density: float,
    steps: int = 100,
    dtype: torch.dtype | None = torch.float64,
    targets: Selector | None = None,
    exclude: Selector | None = None,
    ties: Ties = "index",
    generator: torch.Generator | None = None,
    progress: Progress = False,
) -> dict[str, Tensor]:
    r"""Score by the step at which iterative synaptic flow pruning would remove an entry.

    With :math:`R` the sum of the outputs for an input of ones, every parameter and buffer replaced
    by its absolute value, step :math:`k = 1, \dots, K` scores the remaining entries by their
    synaptic saliency and keeps the highest, over the whole model:

    .. math:: \Big|w \odot \frac{\partial R}{\partial w}\Big|, \qquad
        \operatorname{round}\!\big(d^{\,k/K} N\big) \text{ entries.}

    The score of an entry is its position in the order of removal divided by :math:`N`: entries
    removed at an earlier step come first, within a step those of lower saliency (see ``ties``), and
    survivors last, by their last saliency. Therefore ``prune(model, scores, density=density)``
    gives exactly the mask of the algorithm, and density :math:`d^{k/K}` that of its step :math:`k`.

    It is computed on a copy in evaluation mode. The model, its gradients and modes, and the random
    state of torch are unchanged, except for the seed of ``ties="random"``. The weights are the
    effective ones; entries that are already pruned score 0, and steps whose count exceeds the live
    entries prune nothing.

    Nothing flows through a branch with a gain of zero: a zero-initialised weight of batch
    normalisation (``zero_init_residual=True`` of torchvision's ResNets), a LayerScale of 0, a
    zero-initialised layer. All weights of the branch have a saliency of zero and are pruned first.
    A warning names them, and the gains.

    Where tokens attend to each other, an input of ones makes all of them equal, and the softmax
    passes no gradient to queries and keys: their saliencies are rounding errors of zero, they are
    pruned first, and their order among themselves depends on the device.

    As in the authors' code, biases and running means contribute to :math:`R`; the guarantee that no
    layer is pruned completely holds where they are zero, as they are at most initialisations.

    Args:
        model: any module, plain or with something attached.
        example_inputs: a tensor of the shape of an input (one example is enough), or a tuple, list
            or dict of arguments. Floating-point tensors are replaced by ones; others, such as
            token indices and padding masks, are passed to the model as they are.
        density: fraction of all entries that live afterwards, in (0, 1].
        steps: :math:`K`, at least 1.
        dtype: dtype that the copy computes in. The saliencies of deep networks exceed the range of
            float32; None keeps the model's own dtype.
        targets: which weights, in the forms of :func:`polarity.find_targets`; by default the
            masked ones, or all prunable ones if none is masked.
        exclude: which weights to leave out, in the same forms.
        ties: which of equal saliencies are removed first: those of higher ``"index"``, or
            ``"random"`` ones.
        generator: source of the seed of ``ties="random"``, by default the global one of the CPU. By
            default all ranks of an initialised ``torch.distributed`` group must call: they draw
            from rank 0's seed.
        progress: True shows a bar over the steps (needs tqdm); a function wraps them as
            ``tqdm.tqdm`` does.

    Returns:
        ``{plain name: float64 tensor of the weight's shape}``, in [0, 1].

    Raises:
        ValueError: if nothing can be scored, ``density``, ``steps`` or ``dtype`` is out of range,
            ``ties`` is another word, the density exceeds the present one, or saliencies are NaN or
            infinite (too small a dtype) or all zero.
        TypeError: if an argument is of another type.

    Warns:
        UserWarning: if no live entry of a weight has any saliency at the first step, naming the
            weights, and the gains of zero that stop the flow through them.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> import polarity as pol
        >>> model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
        >>> scores = synflow(model, torch.ones(1, 8), density=0.1)
        >>> pol.prune(model, scores, density=0.1).survivors
        19

    Source: Tanaka et al. (2020), *Pruning neural networks without any data by iteratively
    conserving synaptic flow*, algorithm 1.
    """
    check_fraction("density", density, zero=False)
    check_integer("steps", steps, at_least=1)
    check_dtype("dtype", dtype)
    density = float(density)
    check_ties(ties)
    watch = watching(progress)
    refuse_sharded(model, "scores.synflow")
    found = masked_or_prunable(model, targets, exclude)
    check_inputs("example_inputs", example_inputs)
    check_has_values(found.values())
    total = sum(target.shape.numel() for target in found.values())
    live = {name: target.live for name, target in found.items()}
    left = sum(int(mask.count_nonzero()) for mask in live.values())
    if round(density * total) > left:
        raise ValueError(
            f"density={density!r} would keep {round(density * total)} of {total} entries, "
            f"expected at most the {left} live ones (density {left / total:.6g})"
        )
    removed = total - left
    with undrawn_on_error(generator):
        draw = draw_for(ties, generator)
        with same_random_state(model), recording_gradients(), twice_differentiable(model):
            twin, weights = scored_copy(model, found, dtype)
            twin.eval()
            places = {
                name: torch.zeros(target.shape, dtype=torch.float64, device=live[name].device)
                for name, target in found.items()
            }
            with torch.no_grad():
                for each in (*twin.parameters(), *twin.buffers()):
                    if each.is_floating_point():
                        each.abs_()
            inputs = _ones(example_inputs, next(iter(weights.values())))
            for step in watch(range(1, steps + 1)):
                saliency = _checked_saliency(twin, inputs, weights, live)
                if step == 1:
                    _warn_of_closed_branches(twin, inputs, weights, live, saliency)
                keep = min(left, round(density ** (step / steps) * total))
                chosen = choose_top(saliency, keep, live, draw)
                kept = {name: chosen.new_mask(name) for name in saliency}
                gone = {name: live[name] & ~mask for name, mask in kept.items()}
                removed = _place(places, gone, saliency, removed, draw)
                live, left = kept, total - removed
                with torch.no_grad():
                    for name, weight in weights.items():
                        weight.masked_fill_(~live[name], 0)
            _place(places, live, saliency, removed, draw)
            return {name: place / total for name, place in places.items()}


def _saliency(twin: nn.Module, inputs: Any, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the saliency of every entry at the present weights."""
    outputs = [each for each in tensors_in(call(twin, inputs)) if each.is_floating_point()]
    flow = sum(each.sum() for each in outputs)
    if not isinstance(flow, Tensor) or not flow.requires_grad:
        raise ValueError("the model's outputs do not depend on any scored weight")
    slopes = dict(zip(weights, gradients(flow, weights), strict=True))
    return {name: (weight.detach() * slopes[name]).abs_() for name, weight in weights.items()}


def _checked_saliency(
    twin: nn.Module, inputs: Any, weights: Mapping[str, Tensor], live: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the saliency of every entry, and raise if it is not finite or zero everywhere."""
    saliency = _saliency(twin, inputs, weights)
    for name, each in saliency.items():
        if not all_finite(each):
            raise ValueError(
                f"the saliencies of {name!r} exceed the range of {each.dtype}: pass a wider dtype, "
                "or rescale the weights"
            )
    if len(closed := _closed(saliency, live)) == len(saliency):
        _, gains = _opened(twin, inputs, weights, live, closed)
        raise ValueError(
            "every saliency is zero: no scored weight changes the sum of the outputs within the "
            f"range of {next(iter(weights.values())).dtype}{_because(gains)}"
        )
    return saliency


def _warn_of_closed_branches(
    twin: nn.Module,
    inputs: Any,
    weights: Mapping[str, Tensor],
    live: Mapping[str, Tensor],
    saliency: Mapping[str, Tensor],
) -> None:
    """Warn of weights that a gain of zero leaves without any saliency."""
    closed = [name for name in _closed(saliency, live) if live[name].any()]
    opened, gains = _opened(twin, inputs, weights, live, closed) if closed else ([], [])
    if gains:
        warnings.warn(
            f"synflow scores all of {_listed(opened)} as zero, so they are pruned first and "
            f"whole{_because(gains)}",
            stacklevel=4,
        )


def _closed(saliency: Mapping[str, Tensor], live: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the weights of which no live entry has any saliency."""
    return [name for name, each in saliency.items() if not each[live[name]].any()]


def _opened(
    twin: nn.Module,
    inputs: Any,
    weights: Mapping[str, Tensor],
    live: Mapping[str, Tensor],
    closed: Collection[str],
) -> tuple[list[str], list[str]]:
    """Return which closed weights open when no parameter is all zero, and which parameters matter.

    One of these matters if its zeros alone close a weight again. A bias therefore does not.
    """
    zeros = {name: each.detach() for name, each in twin.named_parameters() if not each.any()}
    for each in zeros.values():
        each.fill_(1)

    def still_closed() -> set[str]:
        return set(closed) & set(_closed(_saliency(twin, inputs, weights), live))

    opened = [name for name in closed if name not in (shut := still_closed())]
    gains = []
    for name, each in zeros.items() if opened else ():
        each.zero_()
        if still_closed() - shut:
            gains.append(name)
        each.fill_(1)
    for each in zeros.values():
        each.zero_()
    return opened, gains


def _because(gains: Collection[str]) -> str:
    """Say which gains stop the flow and what to do, or nothing if there are none."""
    if not gains:
        return ""
    return (
        f": nothing flows where {_listed(gains)} {'is' if len(gains) == 1 else 'are'} zero "
        "everywhere. Score a copy of the model in which they are not (torch.nn.init.ones_ for a "
        "gain, an ordinary initialisation for a layer), or leave closed weights out with exclude="
    )


def _listed(names: Collection[str]) -> str:
    """Quote the first names, and count the others."""
    shown = ", ".join(map(repr, list(names)[:_SHOWN]))
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


def _place(
    places: Mapping[str, Tensor],
    ending: Mapping[str, Tensor],
    saliency: Mapping[str, Tensor],
    taken: int,
    draw: Draw | None,
) -> int:
    """Give the entries under ``ending`` the next positions, the lowest saliency first.

    Ties: what selection would drop first comes first. Returns how many positions are taken
    afterwards.
    """
    device = next(iter(places.values())).device
    values = [saliency[name][where].to(device) for name, where in ending.items()]
    flat = torch.cat(values)
    first = torch.arange(len(flat), device="cpu") if draw is None else in_drawn_order(draw(ending))
    first = first.to(device)
    best_first = first[flat[first].argsort(descending=True, stable=True)]
    last = taken + best_first.numel()
    order = torch.empty(best_first.shape, dtype=torch.float64, device=device)
    order[best_first] = torch.arange(last, taken, -1, dtype=torch.float64, device=device)
    parts = torch.split(order, [each.numel() for each in values])
    for (name, where), part in zip(ending.items(), parts, strict=True):
        places[name][where] = part.to(where.device)
    return last


def _ones(example_inputs: Any, like: Tensor) -> Any:
    def as_ones(value: Tensor) -> Tensor:
        if not value.is_floating_point():
            return value.to(like.device)
        return torch.ones(value.shape, dtype=like.dtype, device=like.device)

    return map_tensors(as_ones, example_inputs)
