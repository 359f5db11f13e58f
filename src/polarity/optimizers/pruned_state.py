"""Zero the state that an optimizer keeps of pruned entries."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from polarity._checks import check_optimizer
from polarity.parametrizations.arithmetic import zero_outside_

__all__ = ["check_holds", "parameters_of", "zero_pruned_state"]


def parameters_of(optimizer: torch.optim.Optimizer) -> set[int]:
    """Return the ids of the parameters that an optimizer trains."""
    return {id(each) for group in optimizer.param_groups for each in group["params"]}


def check_holds(optimizer: torch.optim.Optimizer, leaves: Mapping[str, tuple[Tensor, ...]]) -> None:
    """Raise unless an optimizer trains something of what some weights are stored as."""
    check_optimizer(optimizer)
    held = parameters_of(optimizer)
    if not any(id(leaf) in held for stored in leaves.values() for leaf in stored):
        raise ValueError(
            f"optimizer={type(optimizer).__name__} holds none of the {len(leaves)} weights "
            f"(the first is {next(iter(leaves))!r}), expected the optimizer that trains them: was "
            "it built for another model?"
        )


@torch.no_grad()
def zero_pruned_state(
    optimizer: torch.optim.Optimizer, leaves: Iterable[tuple[Tensor, Tensor]]
) -> None:
    """Zero the optimizer's state (momentum, Adam's moments) outside the masks, in place.

    State of another shape than its parameter (step counts, factored moments) belongs to no single
    entry and is left unchanged.

    Args:
        optimizer: any ``torch.optim`` optimizer.
        leaves: (parameter, bool mask of its shape) pairs; a parameter without state is skipped.

    Example:
        >>> import torch
        >>> w = torch.ones(3, requires_grad=True)
        >>> sgd = torch.optim.SGD([w], lr=0.1, momentum=0.9)
        >>> w.sum().backward(); sgd.step()
        >>> zero_pruned_state(sgd, [(w, torch.tensor([True, False, True]))])
        >>> sgd.state[w]["momentum_buffer"]
        tensor([1., 0., 1.])
    """
    for parameter, mask in leaves:
        for value in optimizer.state.get(parameter, {}).values():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.dim() > 0:
                zero_outside_(value, mask.to(value.device))
