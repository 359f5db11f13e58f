"""The largest eigenvalue of the Hessian of the loss."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from polarity.analysis.batch_norm import tracked_norms
from polarity.analysis.plain_copy import plain_copy
from polarity.selectors import Selector, select
from polarity.targets import all_targets, attached

__all__ = ["sharpness"]

Loss = Callable[[Any, Tensor], Tensor]


def sharpness(
    model: nn.Module,
    loss_fn: Loss,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    parameters: Selector | None = None,
    bn: Literal["keep", "batch"] = "keep",
    dtype: torch.dtype | None = None,
    tolerance: float = 1e-4,
    max_iterations: int = 1000,
    generator: torch.Generator | None = None,
) -> float:
    r"""Return the largest eigenvalue of the Hessian of the mean loss, a measure of sharpness.

    .. math::
        \lambda_{\max}\bigl(\nabla^2_w L(w)\bigr), \qquad
        L(w) = \frac{1}{N} \sum_b n_b\, \ell(f_w(x_b), y_b),

    with :math:`n_b` samples in batch :math:`b` and :math:`N` in all, so that it does not matter how
    the data is cut into batches.

    The Hessian is taken in the **effective weights that survive**: of a masked weight the entries
    under its (enforced) mask, of a Sign-In weight the product :math:`m \odot v` and not its
    factors, of an interpolated norm its trained value. Networks that compute the same function
    with the same mask thus have the same sharpness, whatever they are made of, which comparing
    Sign-In with plain training presumes; the paper does not say which variables it took.

    The largest eigenvalue is that of the largest signed value, not the largest magnitude, found by
    Lanczos iteration on Hessian-vector products: nothing of the size of the Hessian is ever made.
    The model is left exactly as it is, and no random state but ``generator`` is touched.

    Args:
        model: any module, with or without anything attached; called with one tensor.
        loss_fn: ``loss_fn(output, target)``, the **mean** loss of a batch, 0-dim: an ``nn.Module``
            such as ``nn.CrossEntropyLoss()``, or any function, twice differentiable.
        batches: ``(input, target)`` pairs, read once and kept in memory; un-augmented data.
        parameters: in which parameters to differentiate, as :func:`find_targets` takes
            ``targets``. By default in all that require gradients; ``parameters=list(masks(model))``
            takes the masked weights alone. Of a masked weight always the survivors.
        bn: the network is in evaluation mode, dropout off. ``"keep"`` lets batch normalisation use
            its running statistics; ``"batch"`` lets it use those of the batch, as in training,
            without recording them, and makes the result depend on the batch size.
        dtype: dtype of the arithmetic, by default that of the parameters, at least float32;
            floating inputs and targets are converted too.
        tolerance: relative accuracy of the eigenvalue that the iteration stops at. Rounding limits
            what can be asked for: about 1e-5 in float32.
        max_iterations: restarts of the iteration before it gives up.
        generator: draws the start vector; by default one with a fixed seed. The result depends on
            it by no more than ``tolerance``.

    Returns:
        The eigenvalue.

    Raises:
        ImportError: if curvlinops or scipy is missing (``pip install polarity[analysis]``).
        ValueError: if there is no batch, no parameter, or the loss is not a mean; if a value of
            ``bn`` or ``tolerance`` is out of range.
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
    if bn not in ("keep", "batch"):
        raise ValueError(f"bn={bn!r}, expected 'keep' or 'batch'")
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance={tolerance!r}, expected a number between 0 and 1")
    linalg, curvlinops = _libraries()
    loss = _mean_loss(loss_fn)
    network = _AtSurvivors(model, parameters, dtype)
    if bn == "batch":
        for layer in tracked_norms(network.plain).values():
            layer.track_running_stats = False
            layer.running_mean = layer.running_var = None
    data = [_as_pair(batch, network.dtype) for batch in batches]
    if not data:
        raise ValueError("batches is empty, expected at least one (input, target)")

    leaves = dict(network.named_parameters())
    size = sum(leaf.numel() for leaf in leaves.values())
    generator = generator or torch.Generator().manual_seed(0)
    draw = {"generator": generator, "device": generator.device, "dtype": torch.float32}
    start = torch.randn(size, **draw).double().cpu().numpy()  # type: ignore[call-overload]
    with _twice_differentiable(network.plain):
        options = {"check_deterministic": False, "num_data": sum(len(x) for x, _ in data)}
        try:
            hessian = curvlinops.HessianLinearOperator(
                network, loss, list(leaves.values()), data, **options
            )
        except TypeError:  # after 3.0 curvlinops takes parameters by name
            hessian = curvlinops.HessianLinearOperator(network, loss, leaves, data, **options)
        # Before 3.0 it is a scipy operator already.
        operator = hessian.to_scipy() if hasattr(hessian, "to_scipy") else hessian
        probe = operator @ start
        if not math.isfinite(float(probe @ probe)):
            raise RuntimeError(
                "the Hessian is not finite: do the weights or the loss hold NaN or inf?"
            )
        if size == 1:
            return float(probe[0] / start[0])
        try:
            values = linalg.eigsh(
                operator,
                k=1,
                which="LA",
                v0=start,
                tol=tolerance,
                maxiter=max_iterations,
                return_eigenvectors=False,
            )
        except linalg.ArpackNoConvergence as error:
            raise RuntimeError(
                f"no eigenvalue to tolerance={tolerance!r} within max_iterations={max_iterations}; "
                "allow more of either, or compute in dtype=torch.float64"
            ) from error
    return float(values[0])


class _AtSurvivors(nn.Module):
    """A network as a function of what is differentiated in: survivors, and whole other tensors."""

    def __init__(
        self, model: nn.Module, parameters: Selector | None, dtype: torch.dtype | None
    ) -> None:
        super().__init__()
        masks = {
            name: target.mask
            for name, target in attached(model).items()
            if target.masking is not None and target.masking.enforce
        }
        plain = plain_copy(model).eval()
        trainable = _trainable(model)
        uses = [use for target in all_targets(plain) for use in target.uses]
        try:
            chosen = trainable if parameters is None else select(uses, parameters, "targets")
        except (TypeError, ValueError) as error:
            raise type(error)(str(error).replace("targets", "parameters", 1)) from None
        targets = [each for each in all_targets(plain) if each.name in chosen & trainable]
        if not targets:
            raise ValueError(
                f"{type(model).__name__} has no parameter that requires gradients"
                + (f" for parameters={parameters!r}" if parameters is not None else "")
            )
        held = {each.stored[0].dtype for each in targets}
        widest = torch.float64 if torch.float64 in held else torch.float32
        self.dtype = dtype or widest
        # Hidden from registration: only what is differentiated in is a parameter of this module.
        self._hidden = [plain.to(self.dtype)]
        self._names: list[str] = []
        self._shapes: list[torch.Size] = []
        self._places: list[Tensor | None] = []
        self.values = nn.ParameterList()
        for target in all_targets(plain):
            if target.name not in {each.name for each in targets}:
                continue
            weight = target.stored[0].detach().clone(memory_format=torch.contiguous_format)
            places = None
            if target.name in masks:
                places = masks[target.name].flatten().nonzero().squeeze(1)
                weight = weight.flatten()[places]
            self._names.append(target.name)
            self._shapes.append(target.shape)
            self._places.append(places)
            self.values.append(nn.Parameter(weight))

    @property
    def plain(self) -> nn.Module:
        """The plain copy of the model."""
        return self._hidden[0]

    def forward(self, inputs: Tensor) -> Any:
        """Run the plain network at the values held here."""
        full = {}
        entries = zip(self._names, self._shapes, self._places, self.values, strict=True)
        for name, shape, places, value in entries:
            full[name] = value
            if places is not None:
                zeros = torch.zeros(shape.numel(), dtype=value.dtype, device=value.device)
                full[name] = zeros.index_copy(0, places, value).view(shape)
        return functional_call(self.plain, full, (inputs,))


class _Loss(nn.Module):
    """Any mean loss in the form that curvlinops asks for."""

    reduction = "mean"

    def __init__(self, loss_fn: Loss) -> None:
        super().__init__()
        self._loss_fn = [loss_fn]

    def forward(self, output: Any, target: Tensor) -> Tensor:
        loss = self._loss_fn[0](output, target)
        if not isinstance(loss, Tensor) or loss.dim() != 0:
            raise ValueError(
                f"loss_fn gave {type(loss).__name__}, expected a 0-dim tensor, the mean"
            )
        return loss


def _mean_loss(loss_fn: Loss) -> _Loss:
    if not callable(loss_fn):
        raise TypeError(f"loss_fn must be callable, got {type(loss_fn).__name__}")
    reduction = getattr(loss_fn, "reduction", "mean")
    if reduction != "mean":
        raise ValueError(f"loss_fn has reduction={reduction!r}, expected 'mean'")
    return _Loss(loss_fn)


def _trainable(model: nn.Module) -> set[str]:
    return {
        target.name
        for target in all_targets(model)
        if any(leaf.requires_grad for leaf in target.stored)
    }


def _as_pair(batch: Any, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        raise TypeError(f"batches must hold (input, target) pairs, got {type(batch).__name__}")
    one, other = (
        each.to(dtype) if isinstance(each, Tensor) and each.is_floating_point() else each
        for each in batch
    )
    return one, other


@contextmanager
def _twice_differentiable(network: nn.Module) -> Iterator[None]:
    """Keep PyTorch from fused kernels that have no second or no forward-mode derivative."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with ExitStack() as stack:
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            if any(isinstance(each, nn.RNNBase) for each in network.modules()):
                for backend in (torch.backends.cudnn, torch.backends.mkldnn):
                    stack.enter_context(backend.flags(enabled=False))
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)


def _libraries() -> tuple[ModuleType, ModuleType]:
    try:
        linalg = import_module("scipy.sparse.linalg")
        return linalg, import_module("curvlinops")
    except ImportError as error:
        raise ImportError(
            f"sharpness needs curvlinops and scipy ({error}): pip install polarity[analysis]"
        ) from error
