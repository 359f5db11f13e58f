"""Zero the state that an optimizer keeps of pruned entries."""

from collections.abc import Iterable

import torch
from torch import Tensor

from polarity.optimizers.states import state_of
from polarity.parametrizations.arithmetic import zero_outside_

__all__ = ["zero_pruned_state"]


@torch.no_grad()
def zero_pruned_state(
    optimizers: Iterable[torch.optim.Optimizer], leaves: Iterable[tuple[Tensor, Tensor]]
) -> None:
    """Zero the state of optimizers (momentum, Adam's moments) outside the masks, in place.

    State of another shape than its parameter (step counts, factored moments) belongs to no single
    entry and is left unchanged; :func:`check_holds` refuses moments of a wrong shape, and those
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
            for value in state.get(parameter, {}).values():
                if isinstance(value, Tensor) and value.shape == parameter.shape and value.dim() > 0:
                    zero_outside_(value, mask.to(value.device))
