"""Recompute the running statistics of normalisation layers."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parameter import is_lazy

from polarity._checks import check_callable
from polarity._inputs import check_batches
from polarity._progress import Progress, watching
from polarity._running import call, map_tensors, outside_inference_mode, same_modes
from polarity.targets.wrappers import unwrapped

__all__ = ["Forward", "feed", "recalibrate_batch_norm", "tracked_norms"]

Forward: TypeAlias = Callable[[nn.Module, Any], object]


@outside_inference_mode
def recalibrate_batch_norm(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    forward: Forward | None = None,
    progress: Progress = False,
) -> tuple[str, ...]:
    r"""Recompute the running statistics of every BatchNorm layer, in place.

    They are reset and become the plain average over the batches,

    .. math::
        \mu = \frac1B \sum_{b=1}^{B} \mu_b, \qquad \sigma^2 = \frac1B \sum_{b=1}^{B} \sigma_b^2,

    with :math:`\sigma_b^2` the unbiased variance inside batch :math:`b`, as PyTorch computes it
    with ``momentum=None``. All batches count the same, so they should have one size. While they are
    fed, every layer normalises by the statistics of the batch.

    This covers ``BatchNorm1d/2d/3d``, ``SyncBatchNorm``, and ``InstanceNorm1d/2d/3d`` where they
    track statistics. Only these layers are in training mode meanwhile: dropout is off, and nothing
    random is drawn. Parameters, momenta and training flags are unchanged afterwards.

    Args:
        model: any module.
        batches: what to feed; un-augmented training data. A batch is the model's input, or a tuple
            or list whose first entry is (a data loader's ``(input, target)``). An input is a
            tensor, a dict of keyword arguments or, inside a pair, a tuple of arguments; it is moved
            to the device of the model.
        forward: ``(model, batch) -> anything``, to feed a model with other kinds of batches.
        progress: True shows a bar over the batches (needs tqdm); a function wraps them as
            ``tqdm.tqdm`` does.

    Returns:
        Plain names of the recalibrated layers; if the model has none, nothing is fed.

    Raises:
        ValueError: if ``batches`` is empty, or a layer is lazy. After any error, including one
            raised by the model, the statistics are what they were before.
        TypeError: if an argument is of another type.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.BatchNorm1d(1), nn.Dropout(0.5))
        >>> batches = [torch.tensor([[1.0], [3.0]]), torch.tensor([[5.0], [5.0]])]
        >>> recalibrate_batch_norm(model, batches)
        ('0',)
        >>> model[0].running_mean, model[0].running_var
        (tensor([3.5000]), tensor([1.]))

    Source: the averages of Izmailov et al. (2018), *Averaging Weights Leads to Wider Optima*,
    appendix; used along linear paths since Jordan et al. (2023), *REPAIR*.
    """
    model = unwrapped(model)
    check_batches("batches", batches)
    if forward is not None:
        check_callable("forward", forward, "a function (model, batch)")
    watch = watching(progress)
    layers = tracked_norms(model)
    if not layers:
        return ()
    momenta = {name: layer.momentum for name, layer in layers.items()}
    hooks = []
    with fresh_statistics(model, layers):
        model.eval()
        try:
            for layer in layers.values():
                # Not .train(): parametrizations of the layer stay in evaluation mode.
                layer.training = True
                layer.momentum = None
                if isinstance(layer, nn.modules.instancenorm._InstanceNorm):
                    # InstanceNorm reads momentum=None as "never", and does not count its calls.
                    hooks.append(layer.register_forward_pre_hook(_average_next))
            feed(model, watch(batches), forward)
        finally:
            for name, layer in layers.items():
                layer.momentum = momenta[name]
            for hook in hooks:
                hook.remove()
    return tuple(layers)


def tracked_norms(model: nn.Module) -> dict[str, _NormBase]:
    """Return the layers that keep running statistics, by name.

    Raises:
        ValueError: if one is lazy.
    """
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, _NormBase) and module.running_mean is not None:
            if is_lazy(module.running_mean):
                raise ValueError(f"{name} is lazy: run one batch through the model first")
            found[name] = module
    return found


@contextmanager
def fresh_statistics(model: nn.Module, layers: dict[str, _NormBase]) -> Iterator[None]:
    """Reset the layers' statistics; restore modes at exit, and after an error statistics too."""
    before = [(value, value.clone()) for layer in layers.values() for value in _statistics(layer)]
    with same_modes(model):
        try:
            for layer in layers.values():
                layer.reset_running_stats()
            yield
        except BaseException:
            for value, old in before:
                value.copy_(old)  # buffers stay the objects they are
            raise


@torch.no_grad()
def feed(model: nn.Module, batches: Iterable[Any], forward: Forward | None) -> None:
    """Run every batch through the model in its present mode.

    Raises:
        ValueError: if there is none.
    """
    held = next(iter((*model.parameters(), *model.buffers())), None)
    empty = True
    for batch in batches:
        empty = False
        if forward is not None:
            forward(model, batch)
            continue
        inputs = batch[0] if isinstance(batch, (tuple, list)) else batch
        if held is not None:
            inputs = map_tensors(lambda each: each.to(held.device), inputs)
        call(model, inputs)
    if empty:
        raise ValueError("batches is empty, expected at least one")


def _statistics(layer: _NormBase) -> list[Tensor]:
    held = (layer.running_mean, layer.running_var, layer.num_batches_tracked)
    return [value for value in held if value is not None]


def _average_next(layer: nn.Module, _: object) -> None:
    assert isinstance(layer, _NormBase)
    assert layer.num_batches_tracked is not None
    layer.num_batches_tracked += 1
    layer.momentum = 1 / int(layer.num_batches_tracked)
