"""Store the weights of a pruned model as their survivors, with the state of their optimizers."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from polarity._bits.random import undrawn_on_error
from polarity._checks import (
    check_callable,
    check_flag,
    check_fraction,
    check_generator,
    check_number,
)
from polarity._inputs import check_inputs
from polarity._progress import Progress, watching
from polarity._running import outside_inference_mode
from polarity.attach.masks import masked_weights
from polarity.deploy.timing import Measure, machine_of, time_in_turns
from polarity.optimizers.dimensions import check_takes_vectors, warn_of_fresh_state
from polarity.optimizers.given import Optimizers, as_optimizers
from polarity.optimizers.replaced import check_replaceable
from polarity.survivors.decision import by_density, by_measurement
from polarity.survivors.report import CompactReport, WeightDecision
from polarity.targets.dense_leaves import gather_leaves, resizing
from polarity.targets.search import find_targets
from polarity.targets.selectors import Selector
from polarity.targets.shards import refuse_sharded
from polarity.targets.target import Target, check_has_values
from polarity.targets.wrappers import refuse_ddp

__all__ = ["compact"]

# No layer was seen to gain at a higher density.
MEASURED = 0.4

_WHY = (
    "compact stored its survivors alone; call compact(model, optimizer=optimizer), or build the "
    "optimizer after compact"
)


@outside_inference_mode
def compact(
    model: nn.Module,
    example_inputs: Any = None,
    *,
    optimizer: Optimizers | None = None,
    targets: Selector | None = None,
    exclude: Selector | None = None,
    margin: float = 1.1,
    break_even: float | None = None,
    measure: Measure = time_in_turns,
    generator: torch.Generator | None = None,
    verbose: bool = False,
    progress: Progress = False,
) -> CompactReport:
    r"""Store and train only the survivors of masked weights, where that makes a step faster.

    A compact weight is the vector :math:`s` of its survivors (for Sign-In the two vectors m and v),
    in the same parameter. Its layer computes, with :math:`W` zero outside the mask,

    .. math::
        y = x W^\top + b, \quad \partial_x L = (\partial_y L)\, W, \quad
        \partial_s L = \big((\partial_y L)^\top x\big)_{\text{mask}}

    as three sparse products, and the optimizer updates the survivors alone. The values, and those
    of every later step, are the masked model's up to the order of sums. Masks, rewinding, signs,
    tickets and checkpoints work as on a masked model, and pruning it further shortens the vectors;
    in a ``state_dict`` the weight is dense, with zeros. :func:`expand` and :func:`merge` end it.

    **Which layers.** With ``example_inputs`` the model runs once, in evaluation mode, to record how
    each linear layer is called. Forward and backward of each layer are timed in turns, masked and
    compact, as whole layers on inputs of the same shapes, and those that gain by ``margin`` become
    compact. The others stay masked: layers that are slower, denser than ``break_even`` or not
    called, tied weights, and all that is no ``nn.Linear``. Without ``example_inputs`` nothing is
    measured, and density and size decide. The decisions hold for this machine, its number of
    threads, and these shapes; a second call decides again. Among several ranks the measurement of
    rank 0 decides, and every rank has to call.

    Weights that ``targets`` selects are compacted in any case. Those without a gain are made dense
    where they are used: right, with less state in the optimizer, and slower than masked.

    A compact parameter has one dimension: form groups by ``p.ndim`` (no weight decay for vectors)
    before this call. A mask that is written to from outside, as a buffer, is not seen.

    Args:
        model: any module with masks, or a wrapper of one. Call this before wrapping it in
            ``DistributedDataParallel`` and before ``torch.compile``; while compiling, tracing or
            exporting, forward computes with the dense weight.
        example_inputs: typical inputs, of the batch size that matters: a tensor, a tuple or list of
            positional arguments, or a dict of keyword arguments. If you train under autocast, make
            the call under it.
        optimizer: the optimizer that trains the weights, or a list of them. What it remembers of
            each entry follows; that of pruned entries is dropped. An optimizer that is not passed
            raises RuntimeError at its next step if it has state of a weight.
        targets: which masked weights, see :func:`find_targets`; they are compacted in any case. By
            default every masked weight for which it pays.
        exclude: which weights to leave as they are, in the same forms.
        margin: how many times faster a layer must be, at least 1, so that noise in the measurement
            does not make one slower.
        break_even: density in [0, 1] above which a layer stays masked without being measured. By
            default 0.4 with ``example_inputs``. Without them every layer of at most this density
            becomes compact; by default those of at most 0.1 and at least 65,536 entries.
        measure: ``(masked, compact) -> (seconds, seconds)``, a replacement for
            :func:`polarity.deploy.time_in_turns`; both arguments are functions without arguments.
        generator: draws the random inputs that the layers are timed on. By default one with a fixed
            seed; the random state of torch is unchanged.
        verbose: print the report.
        progress: True shows a bar over the weights that are timed (needs tqdm); a function wraps
            them as ``tqdm.tqdm`` does.

    Returns:
        The :class:`CompactReport`: for each weight the decision, the reason and the times.
        ``.grad`` of compact weights is None.

    Raises:
        ValueError: if the model has no masks, or a selected weight none; if a mask is not enforced
            (strategy ``standard``, a dense phase), is enforced in the step
            (:func:`enforce_in_step`), or has another parametrization behind it
            (:class:`SoftThreshold`); if the model is on the meta device; if ``optimizer`` holds
            none of the weights, has state of another shape than its parameter, takes matrices alone
            (``Muon``), has divided its parameters among ranks (``ZeroRedundancyOptimizer``) or
            keeps one state of them all (``LBFGS``); or if an argument is out of range. After any
            error, including one raised by the model or by ``measure``, the model, the optimizer and
            the generator are as they were.
        TypeError: if an argument is of another type, ``measure`` does not return two numbers, or
            the model is wrapped in ``DistributedDataParallel``.

    Warns:
        UserWarning: if the optimizer's state has no form for a vector (Adafactor's factored
            moments): its state of these weights starts afresh.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> import polarity as pol
        >>> model = nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 10))
        >>> adam = torch.optim.Adam(model.parameters())
        >>> _ = pol.imp_prune(model, density=0.05, scope="layer")
        >>> report = pol.compact(model, optimizer=adam)
        >>> report.compact, report["2.weight"].reason
        (('0.weight',), 'too small to gain (fewer than 65536 entries), not measured')
        >>> model(torch.ones(8, 256)).sum().backward(); adam.step()
        >>> [tuple(parameter.shape) for parameter in model.parameters()]
        [(512,), (6554,), (10,), (10, 512)]
        >>> measured = pol.compact(model, torch.randn(64, 256), optimizer=adam)
        >>> list(pol.merge(model, optimizer=adam).state_dict())
        ['0.weight', '0.bias', '2.weight', '2.bias']
    """
    check_flag("verbose", verbose)
    watch = watching(progress)
    check_number("margin", margin, at_least=1)
    if break_even is not None:
        check_fraction("break_even", break_even)
        break_even = float(break_even)
    check_callable("measure", measure, "a function (masked, compact) -> (seconds, seconds)")
    check_generator(generator)
    if example_inputs is not None:
        check_inputs("example_inputs", example_inputs)
    optimizers = as_optimizers(optimizer)
    refuse_sharded(model, "compact")
    masked = masked_weights(model)
    refuse_ddp(model, "compact")
    found = masked
    if targets is not None or exclude is not None:
        chosen = tuple(masked) if targets is None else targets
        found = dict(find_targets(model, chosen, exclude))
    _check(found, optimizers)
    with undrawn_on_error(generator):
        if example_inputs is None:
            decisions = by_density(found, break_even)
            machine = ""
        else:
            draw = torch.Generator().manual_seed(0) if generator is None else generator
            limit = MEASURED if break_even is None else break_even
            decisions = by_measurement(
                model, example_inputs, found, limit, margin, measure, draw, watch
            )
            machine = machine_of(target.module for target in found.values())
        decisions = {
            name: replace(each, compact=each.swapped or targets is not None)
            for name, each in decisions.items()
        }
        _store(found, decisions, optimizers)
    report = CompactReport(tuple(decisions.values()), machine)
    if verbose:
        print(report)
    return report


def _store(
    found: Mapping[str, Target],
    decisions: Mapping[str, WeightDecision],
    optimizers: Sequence[torch.optim.Optimizer],
) -> None:
    """Store weights as was decided, and let their optimizers follow."""
    was = {n for n, target in found.items() if target.masking and target.masking.places}
    multiplies = {name: each.swapped for name, each in decisions.items() if each.compact}
    changed = {n: target for n, target in found.items() if n in was or n in multiplies}
    resized = {n: target for n, target in changed.items() if (n in was) != (n in multiplies)}
    leaves = [leaf for target in resized.values() for leaf in target.stored]
    check_takes_vectors(optimizers, {id(leaf) for n in multiplies for leaf in found[n].stored})
    warn_of_fresh_state(optimizers, leaves, "a weight stored in other dimensions")
    with resizing(changed.values(), _WHY):
        gather_leaves(changed, multiplies, optimizers)
    for target in changed.values():
        for leaf in target.stored:
            leaf.grad = None


def _check(found: Mapping[str, Target], optimizers: Sequence[torch.optim.Optimizer]) -> None:
    """Raise for everything that a compact weight cannot be."""
    check_has_values(found.values())
    for name, target in found.items():
        masking = target.masking
        if masking is None:
            raise ValueError(
                f"{name!r} carries no mask, expected a masked weight: prune it first, or leave it "
                f"out with exclude={name!r}"
            )
        if not masking.enforce:
            raise ValueError(
                f"the mask of {name!r} is remembered, not enforced (strategy standard, a dense "
                "phase), expected an enforced mask: load_masks(model, masks(model)) enforces it, "
                f"exclude={name!r} leaves it out"
            )
        others = [type(each).__name__ for each in target.chain if each is not masking]
        if others:
            raise ValueError(
                f"{name!r} is also parametrized by {others[0]}, which is computed on the dense "
                f"weight, expected a mask alone: exclude={name!r} leaves it out"
            )
        if masking.in_step is not None:
            raise ValueError(
                f"the mask of {name!r} is enforced in the optimizer's step, expected it in "
                "forward: call remove() on what enforce_in_step returned"
            )
        _ = target.survivors  # raises if the mask holds other values than 0 and 1
    check_replaceable(optimizers, {name: target.stored for name, target in found.items()})
