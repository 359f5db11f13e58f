"""The largest eigenvalue of the Hessian of the loss."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from inspect import signature
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from polarity._checks import (
    check_callable,
    check_choice,
    check_dtype,
    check_generator,
    check_integer,
    check_module,
    check_number,
)
from polarity._inputs import check_batches
from polarity._progress import Progress, counting, watching
from polarity._running import (
    arguments,
    map_tensors,
    outside_inference_mode,
    recordable,
    recording_gradients,
    same_random_state,
    tensors_in,
    twice_differentiable,
)
from polarity.analysis.batch_norm import tracked_norms
from polarity.attach.plain_copy import plain_copy
from polarity.targets.search import all_targets
from polarity.targets.selectors import Selector, select
from polarity.targets.shards import refuse_sharded

__all__ = ["sharpness"]

Loss = Callable[[Any, Any], Tensor]


@outside_inference_mode
def sharpness(
    model: nn.Module,
    loss_fn: Loss,
    batches: Iterable[tuple[Any, Any]],
    *,
    parameters: Selector | None = None,
    bn: Literal["keep", "batch"] = "keep",
    dtype: torch.dtype | None = None,
    tolerance: float = 1e-4,
    max_iterations: int = 1000,
    generator: torch.Generator | None = None,
    progress: Progress = False,
) -> float:
    r"""Return the largest eigenvalue of the Hessian of the mean loss, a measure of sharpness.

    .. math::
        \lambda_{\max}\bigl(\nabla^2_w L(w)\bigr), \qquad
        L(w) = \frac{1}{N} \sum_b n_b\, \ell(f_w(x_b), y_b),

    with :math:`n_b` samples in batch :math:`b` and :math:`N` in all, so that it does not matter how
    the data is split into batches.

    The Hessian is taken with respect to the **effective weights that survive**: of a masked weight
    the entries under its (enforced) mask and above its soft threshold, of a Sign-In weight the
    product :math:`m \odot v` and not its factors, of an interpolated norm its trained value.
    Networks with the same function and the same mask therefore have the same sharpness, which a
    comparison of Sign-In with plain training requires; the paper does not say which variables it
    took. What others attached, such as
    ``weight_norm``, is part of the network: its own parameters are the variables.

    The largest eigenvalue is the largest signed value, not the largest magnitude. Lanczos iteration
    on Hessian-vector products finds it, so nothing of the size of the Hessian is stored. The model
    is unchanged, and no random state except ``generator`` advances.

    Args:
        model: any module, with or without anything attached.
        loss_fn: ``loss_fn(output, target)``, the **mean** loss of a batch, 0-dim: an ``nn.Module``
            such as ``nn.CrossEntropyLoss()``, or any function, twice differentiable.
        batches: ``(input, target)`` pairs, read once and kept in memory; un-augmented data. An
            input is a tensor, or a tuple or dict of the model's arguments.
        parameters: which parameters to differentiate in, in the forms of ``targets`` of
            :func:`find_targets`. By default all that require gradients;
            ``parameters=list(masks(model))`` takes only the masked weights. Of a masked weight
            always only the survivors.
        bn: the network is in evaluation mode, without dropout. With ``"keep"``, batch normalisation
            uses its running statistics; with ``"batch"`` those of the batch, as in training, which
            makes the result depend on the batch size.
        dtype: dtype of the arithmetic, by default that of the parameters, at least float32;
            floating inputs and targets are converted too.
        tolerance: relative accuracy of the eigenvalue at which the iteration stops. Rounding limits
            it to about 1e-5 in float32.
        max_iterations: largest number of restarts of the iteration.
        generator: draws the start vector; by default one with a fixed seed. It changes the result
            by no more than ``tolerance``.
        progress: True counts the products with the Hessian, whose number is not known beforehand
            (needs tqdm); a function wraps an endless count of them as ``tqdm.tqdm`` does.

    Returns:
        The eigenvalue.

    Raises:
        ImportError: if scipy is missing (``pip install "torch-polarity[analysis]"``).
        ValueError: if there is no batch, no parameter, or the loss is not a mean; if ``bn``,
            ``tolerance`` or ``max_iterations`` is out of range.
        TypeError: if an argument is of another type.
        RuntimeError: if the iteration does not converge, or the loss or the Hessian is not finite.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Linear(2, 1, bias=False)
        >>> x = torch.tensor([[3.0, 0.0], [0.0, 1.0]])  # the Hessian is diag(9, 1)
        >>> value = sharpness(model, nn.MSELoss(), [(x, torch.zeros(2, 1))])
        >>> round(value, 3)
        9.0

    Source: *Sign-In to the Lottery*, section 3 and Figure 5(b).
    """
    check_module(model)
    refuse_sharded(model, "sharpness")
    check_batches("batches", batches)
    check_dtype("dtype", dtype)
    check_choice("bn", bn, ("keep", "batch"))
    check_number("tolerance", tolerance, above=0, below=1)
    check_integer("max_iterations", max_iterations, at_least=1)
    check_generator(generator)
    watch = watching(progress)
    linalg = _scipy_linalg()
    _check_mean(loss_fn)
    with recording_gradients(), same_random_state(model):
        network = _AtSurvivors(model, parameters, dtype)
        if bn == "batch":
            for layer in tracked_norms(network.plain).values():
                layer.track_running_stats = False
                layer.running_mean = layer.running_var = None
        data = [_as_pair(batch, network) for batch in batches]
    if not data:
        raise ValueError("batches is empty, expected at least one (input, target)")

    size = sum(value.numel() for value in network.values)
    generator = generator or torch.Generator().manual_seed(0)

    def times_hessian(vector: Any) -> Any:
        count_one()
        along = torch.from_numpy(vector.reshape(-1)).to(network.values[0])
        return _times_hessian(network, loss_fn, data, along).double().cpu().numpy()

    with counting(watch) as count_one:
        drawn = torch.randn(size, generator=generator, device=generator.device)
        start = drawn.double().cpu().numpy()
        operator = linalg.LinearOperator((size, size), matvec=times_hessian, dtype=start.dtype)
        with recording_gradients(), same_random_state(model), twice_differentiable(model):
            return _largest_eigenvalue(linalg, operator, start, tolerance, max_iterations)


def _largest_eigenvalue(
    linalg: ModuleType, operator: Any, start: Any, tolerance: float, max_iterations: int
) -> float:
    """Return the largest signed eigenvalue of a symmetric operator by Lanczos iteration."""
    probe = operator.matvec(start)
    if not math.isfinite(float(probe @ probe)):
        raise RuntimeError("the Hessian is not finite: do weights or loss hold NaN or inf?")
    if len(start) == 1 or not probe.any():  # no work for Lanczos iteration
        return float(probe[0] / start[0])
    # Newer scipy draws more vectors where the Hessian has few eigenvalues.
    seeded = {"rng": 0} if "rng" in signature(linalg.eigsh).parameters else {}
    try:
        values = linalg.eigsh(
            operator,
            k=1,
            which="LA",
            v0=start,
            tol=tolerance,
            maxiter=max_iterations,
            return_eigenvectors=False,
            **seeded,
        )
    except linalg.ArpackNoConvergence as error:
        raise RuntimeError(
            f"no eigenvalue to tolerance={tolerance!r} within max_iterations={max_iterations}; "
            "allow more of either, or compute in dtype=torch.float64"
        ) from error
    return float(values[0])


@dataclass(frozen=True)
class _Variable:
    """A parameter that is differentiated in: whole, or at the flat ``places`` of its survivors."""

    name: str
    shape: torch.Size
    places: Tensor | None

    def values(self, parameter: Tensor) -> Tensor:
        """Return the entries of a parameter that are differentiated in."""
        whole = parameter.detach().clone(memory_format=torch.contiguous_format)
        return whole if self.places is None else whole.flatten()[self.places]

    def parameter(self, values: Tensor) -> Tensor:
        """Return the parameter with these entries, and zeros elsewhere."""
        if self.places is None:
            return values
        zeros = torch.zeros(self.shape.numel(), dtype=values.dtype, device=values.device)
        return zeros.index_copy(0, self.places, values).view(self.shape)


class _AtSurvivors(nn.Module):
    """A plain copy of a model as a function of its survivors and its other parameters."""

    def __init__(
        self, model: nn.Module, parameters: Selector | None, dtype: torch.dtype | None
    ) -> None:
        super().__init__()
        pruned = [each for each in all_targets(model) if each.enforced_mask is not None]
        masks = {t.name: t.live if t.threshold is None else t.support for t in pruned}
        plain = plain_copy(model).eval()
        chosen = _chosen_names(model, plain, parameters)
        stored = [each.stored for each in all_targets(plain) if each.name in chosen]
        double = any(leaf.dtype == torch.float64 for leaves in stored for leaf in leaves)
        self.dtype = dtype or (torch.float64 if double else torch.float32)
        # In a list, so that its parameters are not parameters of this module.
        self._hidden = [plain.to(self.dtype)]
        names = {id(parameter): name for name, parameter in plain.named_parameters()}
        self._variables: list[_Variable] = []
        self.values = nn.ParameterList()
        for target in all_targets(plain):
            if target.name not in chosen:
                continue
            places = None
            if target.name in masks:
                places = masks[target.name].flatten().nonzero().squeeze(1)
            for leaf in target.stored:  # several under another's parametrization: weight_norm, …
                variable = _Variable(names[id(leaf)], leaf.shape, places)
                self._variables.append(variable)
                self.values.append(nn.Parameter(variable.values(leaf)))

    @property
    def plain(self) -> nn.Module:
        """The plain copy of the model."""
        return self._hidden[0]

    def forward(self, inputs: Any) -> Any:
        """Run the plain copy at the values held here."""
        pairs = zip(self._variables, self.values, strict=True)
        parameters = {variable.name: variable.parameter(values) for variable, values in pairs}
        return functional_call(self.plain, parameters, *arguments(inputs))


def _chosen_names(model: nn.Module, plain: nn.Module, parameters: Selector | None) -> set[str]:
    """Return the plain names of the selected parameters that require gradients."""
    chosen = {
        target.name
        for target in all_targets(model)
        if any(leaf.requires_grad for leaf in target.stored)
    }
    if parameters is not None:
        uses = [use for target in all_targets(plain) for use in target.uses]
        chosen &= select(uses, parameters, "parameters")
    if not chosen:
        raise ValueError(
            f"{type(model).__name__} has no parameter that requires gradients"
            + (f" for parameters={parameters!r}" if parameters is not None else "")
        )
    return chosen


def _times_hessian(
    network: _AtSurvivors, loss_fn: Loss, data: list[tuple[Any, Any]], vector: Tensor
) -> Tensor:
    """Return the Hessian of the mean loss times a vector, by differentiating the gradient along it.

    Reverse mode twice, not forward over reverse as in ``torch.func`` and curvlinops 3.0: the latter
    omits part of the second derivative of LayerNorm and of BatchNorm with batch statistics (torch
    2.15), and has none of GroupNorm.
    """
    values = list(network.values)
    parts = vector.split_with_sizes([value.numel() for value in values])
    sizes = [_samples(inputs) for inputs, _ in data]
    total = torch.zeros_like(vector)
    for (inputs, target), size in zip(data, sizes, strict=True):
        loss = loss_fn(network(inputs), target)
        if not isinstance(loss, Tensor) or loss.dim() != 0:
            raise ValueError("loss_fn must return a 0-dim tensor, the mean loss of the batch")
        grads = torch.autograd.grad(
            loss, values, create_graph=True, allow_unused=True, materialize_grads=True
        )
        pairs = zip(grads, parts, strict=True)
        slope = torch.stack([(grad.flatten() * part).sum() for grad, part in pairs]).sum()
        if not slope.requires_grad:  # the loss is linear
            continue
        products = torch.autograd.grad(slope, values, allow_unused=True, materialize_grads=True)
        flat = torch.cat([product.flatten() for product in products])
        total.add_(flat, alpha=size / sum(sizes))
    return total


def _samples(inputs: Any) -> int:
    """Return the number of samples in a batch: the length of its first tensor."""
    return next((len(each) for each in tensors_in(inputs)), 1)


def _check_mean(loss_fn: Loss) -> None:
    check_callable("loss_fn", loss_fn, "a function (output, target) -> mean loss")
    reduction = getattr(loss_fn, "reduction", "mean")
    if reduction != "mean":
        raise ValueError(f"loss_fn has reduction={reduction!r}, expected 'mean'")


def _as_pair(batch: Any, network: _AtSurvivors) -> tuple[Any, Any]:
    """Return a batch on the network's device, its floating-point tensors in the network's dtype."""
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        raise TypeError(f"batches yields a {type(batch).__name__}, expected pairs (input, target)")
    device = network.values[0].device

    def moved(each: Tensor) -> Tensor:
        return each.to(device, network.dtype if each.is_floating_point() else None)

    batch = recordable(batch)
    return map_tensors(moved, batch[0]), map_tensors(moved, batch[1])


def _scipy_linalg() -> ModuleType:
    try:
        return import_module("scipy.sparse.linalg")
    except ImportError as error:
        raise ImportError(
            f'sharpness needs scipy ({error}): pip install "torch-polarity[analysis]"'
        ) from error
