"""Zero the state that an optimizer keeps of pruned entries."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from polarity._shards import piece_of
from polarity.optimizers.states import entries_of, state_of
from polarity.parametrizations.arithmetic import zero_outside_

__all__ = ["zero_entries", "zero_pruned_state"]


@torch.no_grad()
def zero_pruned_state(
    optimizers: Iterable[torch.optim.Optimizer], leaves: Iterable[tuple[Tensor, Tensor]]
) -> None:
    """Zero the state of optimizers (momentum, Adam's moments) outside the masks, in place.

    State of another shape than its parameter (step counts, factored moments) belongs to no single
    entry and is left unchanged; ``check_holds`` refuses moments of a wrong shape, and those
    that cannot be zeroed, beforehand. A ``ZeroRedundancyOptimizer`` has each parameter's state on
    one rank: what other ranks keep is zeroed by their own call.

    Args:
        optimizers: any ``torch.optim`` optimizers.
        leaves: (parameter, mask of its shape: zeros and ones of any dtype) pairs; a parameter
            without state is skipped.

    Example:
        >>> import torch
        >>> w = torch.ones(3, requires_grad=True)
        >>> sgd = torch.optim.SGD([w], lr=0.1, momentum=0.9)
        >>> w.sum().backward(); sgd.step()
        >>> zero_pruned_state([sgd], [(w, torch.tensor([True, False, True]))])
        >>> sgd.state[w]["momentum_buffer"]
        tensor([1., 0., 1.])
    """
    remembered = [state_of(each) for each in optimizers]
    for parameter, mask in leaves:
        for state in remembered:
            zero_entries(state.get(parameter, {}), mask)


def zero_entries(state: Mapping[str, Any], mask: Tensor) -> None:
    """Zero the state of one parameter outside a mask of its shape, in place."""
    # Of a sharded parameter some optimizers keep the state of this rank's piece, as plain tensors.
    for shape in {mask.shape, piece_of(mask).shape}:
        for _, value in entries_of(state, shape):
            zero_outside_(value, mask.to(value.device))
