"""Write new values into tensors of a model: all of them, or none."""

from collections.abc import Iterable

import torch
from torch import Tensor

from polarity._checks import check_shape
from polarity._shards import piece_of
from polarity.parametrizations.arithmetic import is_expanded

__all__ = ["check_writable", "write_all"]


@torch.no_grad()
def write_all(pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Copy new values into existing tensors by one call, after everything that can fail.

    Shapes, devices and whether each tensor can be written are checked for all pairs before the
    first one is written. The copy converts dtypes, so that no converted tensors are kept. A tensor
    that stands in two pairs gets the later value.

    Args:
        pairs: (tensor, new values) of equal shapes; the values are on any device, of any dtype, and
            are not themselves among the tensors to write.

    Raises:
        ValueError: if shapes differ, if a tensor was made in inference mode, or if several of its
            entries are one place in memory; nothing is written.

    Example:
        >>> a, b = torch.zeros(2), torch.zeros(1, dtype=torch.int64)
        >>> write_all([(a, torch.ones(2, dtype=torch.float64)), (b, torch.tensor([3]))])
        >>> a, b
        (tensor([1., 1.]), tensor([3]))
    """
    tensors: list[Tensor] = []
    values: list[Tensor] = []
    for tensor, value in ((piece_of(tensor), piece_of(value)) for tensor, value in pairs):
        check_shape("values", None, value.shape, tensor.shape, "tensor")
        check_writable(tensor)
        value = value.detach().to(tensor.device)
        tensors.append(tensor)
        # Torch converts bytes to numbers several times as fast as bools.
        values.append(value.view(torch.uint8) if value.dtype == torch.bool else value)
    if tensors:
        torch._foreach_copy_(tensors, values)


def check_writable(tensor: Tensor, name: str = "a tensor") -> None:
    """Raise if PyTorch would refuse to write to a tensor in place."""
    shape = tuple(tensor.shape)
    if tensor.is_inference() and not torch.is_inference_mode_enabled():
        raise ValueError(
            f"{name} of shape {shape} was made under torch.inference_mode, expected one that can "
            "be written outside of it: build or load the model without that mode"
        )
    if is_expanded(tensor):
        raise ValueError(
            f"{name} of shape {shape} was made by expand, so that several entries are one place "
            "in memory, expected one with an own place for each: clone it"
        )
