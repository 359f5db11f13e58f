"""Replace linear layers by sparse ones where that pays."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from polarity._checks import (
    check_callable,
    check_flag,
    check_fraction,
    check_generator,
    check_number,
)
from polarity._inputs import check_inputs
from polarity._progress import Progress, Watch, watching
from polarity._running import call, evaluation, outside_inference_mode, tensors_in
from polarity.attach.norms import attached_norms
from polarity.deploy.calls import recording
from polarity.deploy.decision import choose, dense_reasons, find_candidates
from polarity.deploy.report import CompressReport
from polarity.deploy.sparse_linear import SparseLinear, make_dense, make_sparse
from polarity.deploy.timing import Measure, machine_of, time_in_turns
from polarity.targets.search import all_targets, attached
from polarity.targets.shards import refuse_sharded
from polarity.targets.torch_prune import torch_mask
from polarity.targets.wrappers import unwrapped

__all__ = ["compress"]


@outside_inference_mode
def compress(
    model: nn.Module,
    example_inputs: Any,
    *,
    break_even: float = 0.4,
    margin: float = 1.1,
    tolerance: float | None = None,
    measure: Measure = time_in_turns,
    generator: torch.Generator | None = None,
    verbose: bool = False,
    progress: Progress = False,
) -> CompressReport:
    r"""Replace the linear layers for which a sparse product is faster on this machine, in place.

    The model runs once on the example inputs, in evaluation mode and without gradients, to record
    how each ``nn.Linear`` is called. For each layer that is sparse enough, both products are timed
    in turns, as whole layers, on inputs of the same shapes: the dense one, and

    .. math:: x W^\top + b = (W x^\top)^\top + b

    with :math:`W` in compressed sparse rows with 32-bit indices. Where the sparse product is faster
    by ``margin`` the layer becomes a :class:`SparseLinear`, in the same module object. All other
    layers are unchanged: those that are denser or slower, that are not called or share their
    weight, and those for whose dtype and device PyTorch has no sparse product.

    The decisions hold for this machine, its number of threads, and these shapes. The model computes
    the same up to the order of its sums: every swapped layer is within
    :math:`2(k+1)\,u\sum_i|x_i w_i|` of the exact product on random inputs (k input features, u the
    unit roundoff), and the model's outputs on the example inputs are compared before and after. An
    infinite input times a pruned weight is NaN in a dense layer and ignored in a sparse one.

    A compressed model is for inference: the weights of swapped layers are constants (buffers), so
    an optimizer no longer trains them. ``deepcopy``, ``torch.save``, ``to`` and ``state_dict``
    work; :func:`restore` loads a compressed model, and :func:`decompress` makes it dense again.

    Args:
        model: any module with ``nn.Linear`` layers, after :func:`polarity.merge`.
        example_inputs: typical inputs, of the batch size that matters: a tensor, a tuple or list of
            positional arguments, or a dict of keyword arguments.
        break_even: density in [0, 1] above which a layer stays dense without being measured.
        margin: how many times faster the sparse product must be, at least 1, so that noise in the
            measurement does not make a layer slower.
        tolerance: largest allowed difference of each floating-point output on the example inputs,
            relative to its largest entry; by default the square root of the machine epsilon of its
            dtype, 3.5e-4 in float32.
        measure: ``(dense, sparse) -> (seconds, seconds)``, a replacement for
            :func:`polarity.deploy.time_in_turns`; both arguments are functions without arguments.
        generator: draws the random inputs that the layers are timed on; on the CPU. By default one
            with a fixed seed; the random state of torch is unchanged.
        verbose: print the report.
        progress: True shows a bar over the layers that are timed (needs tqdm); a function wraps
            them as ``tqdm.tqdm`` does.

    Returns:
        The :class:`CompressReport`: for each layer the decision, the reason and the times.

    Raises:
        TypeError: if an argument is of another type, or ``measure`` does not return two numbers.
        ValueError: if something is still attached to the model (call :func:`polarity.merge`), if it
            has no ``nn.Linear``, if a parameter is lazy or an argument out of range, or if the
            outputs differ by more than ``tolerance``. After any error, including one raised by the
            model or by ``measure``, the model is unchanged.

    Example:
        >>> import torch
        >>> from torch import Tensor, nn
        >>> import polarity as pol
        >>> model = nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 10))
        >>> _ = pol.imp_prune(model[0], density=0.05)
        >>> report = pol.deploy.compress(pol.merge(model), torch.randn(8, 256))
        >>> [layer.reason for layer in report][1]
        'density 1 is above break_even=0.4, not measured'
    """
    refuse_sharded(model, "deploy.compress")
    model = unwrapped(model)
    _check(model, break_even, margin, tolerance)
    check_callable("measure", measure, "a function (dense, sparse) -> (seconds, seconds)")
    check_inputs("example_inputs", example_inputs)
    check_flag("verbose", verbose)
    watch = watching(progress)
    check_generator(generator)
    layers = {
        f"{path}.weight".removeprefix("."): module
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear)
    }
    if not layers:
        swapped = any(isinstance(module, SparseLinear) for module in model.modules())
        raise ValueError(
            f"{type(model).__name__} has no nn.Linear that could be swapped"
            + ("; it is compressed already, polarity.deploy.decompress undoes that" * swapped)
        )
    with torch.inference_mode(False):  # the model must remain usable outside that mode
        report = _compress(
            model,
            example_inputs,
            layers,
            float(break_even),
            margin,
            tolerance,
            measure,
            generator,
            watch,
        )
    if verbose:
        print(report)
    return report


def _compress(
    model: nn.Module,
    example_inputs: Any,
    layers: Mapping[str, nn.Linear],
    break_even: float,
    margin: float,
    tolerance: float | None,
    measure: Measure,
    generator: torch.Generator | None,
    watch: Watch,
) -> CompressReport:
    """Record, choose, swap and compare outputs; swap back after an error."""
    with evaluation(model), recording(layers) as calls:
        before = [each.clone() for each in _floating(call(model, example_inputs))]
    draw = torch.Generator().manual_seed(0) if generator is None else generator
    with torch.no_grad():
        candidates, decisions = find_candidates(
            layers, calls, dense_reasons(model, layers, calls), break_even
        )
        chosen = choose(candidates, decisions, margin, measure, draw, watch)
    weights = {name: layers[name]._parameters["weight"] for name in chosen}
    machine = machine_of(layers.values())
    try:
        for name, matrix in chosen.items():
            make_sparse(layers[name], matrix)
        with evaluation(model):
            after = _floating(call(model, example_inputs))
        difference, part = _excess(before, after, tolerance)
        if not part <= 1 and tolerance != math.inf:
            raise ValueError(
                f"the outputs of the compressed model differ by {difference:.3g} of the largest, "
                f"more than tolerance={'sqrt(eps)' if tolerance is None else tolerance}; a larger "
                "tolerance accepts that, tolerance=math.inf a model whose outputs are random"
            )
    except BaseException:
        for name, weight in weights.items():
            layer: nn.Module = layers[name]
            if isinstance(layer, SparseLinear):
                make_dense(layer, weight)
        raise
    return CompressReport(tuple(decisions.values()), machine, difference)


def _check(model: nn.Module, break_even: float, margin: float, tolerance: float | None) -> None:
    check_fraction("break_even", break_even)
    check_number("margin", margin, at_least=1)
    if tolerance is not None:
        check_number("tolerance", tolerance, at_least=0)
    for parameter, held in model.named_parameters():
        if is_lazy(held):
            raise ValueError(f"{parameter} is lazy; run the model once, then prune and compress it")
    masked = [*attached(model), *attached_norms(model)]
    if masked:
        raise ValueError(
            f"{masked[0]} still has a mask, Sign-In factors or an interpolated norm attached; call "
            "polarity.merge(model) first"
        )
    for target in all_targets(model):
        for use in target.uses:
            if torch_mask(use.module, use.tensor_name) is not None:
                raise ValueError(
                    f"{use.name} still has a mask of torch.nn.utils.prune; call its remove(), or "
                    "polarity.mask_weights(model) and polarity.merge(model), first"
                )


def _floating(output: Any) -> list[Tensor]:
    """Return the floating-point tensors of an output, also in tuples, lists and dicts."""
    return [each.detach() for each in tensors_in(output) if each.is_floating_point()]


def _excess(
    before: Sequence[Tensor], after: Sequence[Tensor], tolerance: float | None
) -> tuple[float, float]:
    r"""Return how far outputs are apart, and the largest part of what ``tolerance`` allows.

    The distance of two tensors is :math:`\max|a-b| / \max|a|` over their finite entries, infinite
    where shapes, NaN or infinities differ. By default the square root of a dtype's machine epsilon
    is allowed.
    """
    if len(before) != len(after):
        return math.inf, math.inf
    distance = part = 0.0
    for a, b in zip(before, after, strict=True):
        allowed = torch.finfo(a.dtype).eps ** 0.5 if tolerance is None else tolerance
        apart = _distance(a, b)
        distance = max(distance, apart)
        part = max(part, apart / allowed if allowed else math.inf if apart else 0.0)
    return distance, part


def _distance(a: Tensor, b: Tensor) -> float:
    finite = a.isfinite()
    if a.shape != b.shape or not torch.equal(finite, b.isfinite()):
        return math.inf
    if not torch.equal(a[~finite].nan_to_num(), b[~finite].nan_to_num()):
        return math.inf
    difference = (a[finite].double() - b[finite].double()).abs()
    if not difference.numel() or not bool(difference.any()):
        return 0.0
    scale = float(a[finite].double().abs().max())
    return float(difference.max()) / scale if scale else math.inf
