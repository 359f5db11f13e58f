"""A copy of a model to compute scores on, its losses over batches, and their gradients."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from polarity._checks import check_callable, check_choice, check_entries, check_module
from polarity._inputs import check_batches
from polarity._running import call, map_tensors, recordable, twice_differentiable
from polarity.attach.plain_copy import plain_copy
from polarity.targets.search import all_targets

Batches: TypeAlias = Iterable[tuple[Any, Any]]
LossFunction: TypeAlias = Callable[[Any, Any], Tensor]
Mode: TypeAlias = Literal["train", "eval"]


def check_loss(model: object, loss_fn: object, batches: object) -> None:
    """Raise unless there are a model, a loss function and batches."""
    check_module(model)
    check_callable("loss_fn", loss_fn, "a function (output, target) -> scalar tensor")
    check_batches("batches", batches)


def scored_copy(
    model: nn.Module, names: Iterable[str], dtype: torch.dtype | None = None
) -> tuple[nn.Module, dict[str, Tensor]]:
    """Return a plain copy of a model, and those of its weights that will be scored, by name.

    Only these weights require gradients.

    Args:
        model: any module, plain or with something attached.
        names: plain names of the weights to score.
        dtype: what floating parameters and buffers of the copy are cast to; None leaves them.
    """
    twin = plain_copy(model).to(dtype).requires_grad_(False)
    plain = {target.name: target.stored[0] for target in all_targets(twin)}
    return twin, {name: plain[name].requires_grad_() for name in names}


def check_mode(mode: object) -> None:
    """Raise unless ``mode`` is one of the two that a model can be scored in."""
    check_choice("mode", mode, ("train", "eval"))


def differentiable(model: nn.Module, mode: Mode) -> AbstractContextManager[None]:
    """Keep PyTorch from kernels that have no gradient in a mode: cuDNN's recurrent ones in eval."""
    return twice_differentiable(model) if mode == "eval" else nullcontext()


def losses(model: nn.Module, loss_fn: LossFunction, batches: Batches) -> Iterator[Tensor]:
    """Yield the loss of each batch, on the device of the model's first parameter.

    Raises:
        ValueError: if there is no batch, one is not a pair, or a loss is not a scalar tensor.
    """
    device = next(model.parameters()).device
    empty = True
    for batch in batches:
        empty = False
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            raise ValueError(
                f"batches yields {_describe(batch)}, expected pairs (input, target); several "
                "inputs go into a tuple of their own"
            )
        inputs, target = (
            map_tensors(lambda each: each.to(device), part) for part in recordable(batch)
        )
        loss = loss_fn(call(model, inputs), target)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            raise ValueError(f"loss_fn returned {_describe(loss)}, expected a tensor of one number")
        if not loss.requires_grad:
            raise ValueError("loss_fn returned a loss that does not depend on any scored weight")
        yield loss.reshape(())
    if empty:
        raise ValueError("batches is empty, expected at least one pair (input, target)")


def summed(terms: Iterable[tuple[Tensor, ...]], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Sum gradients, in float32 or better.

    Args:
        terms: one gradient for each of ``weights``, in their order.
        weights: the weights by plain name.

    Raises:
        ValueError: if a sum holds NaN or infinite entries.
    """
    sums = {
        name: torch.zeros_like(weight, dtype=torch.promote_types(weight.dtype, torch.float32))
        for name, weight in weights.items()
    }
    for term in terms:
        for total, each in zip(sums.values(), term, strict=True):
            total.add_(each.detach())
    for name, total in sums.items():
        check_entries(f"the gradient of {name!r}", total)
    return sums


def gradients(
    value: Tensor, weights: Mapping[str, Tensor], *, create_graph: bool = False
) -> tuple[Tensor, ...]:
    """Return the gradient of a scalar by every weight, zeros where it does not depend on it."""
    leaves = tuple(weights.values())
    return torch.autograd.grad(value, leaves, create_graph=create_graph, materialize_grads=True)


def _describe(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    size = f" of length {len(value)}" if isinstance(value, (tuple, list)) else ""
    return f"a {type(value).__name__}{size}"
