"""New random values for a whole model under the masks that it has."""

from collections.abc import Callable

import torch
from torch import nn

from polarity._bits.random import seed_from, undrawn_on_error
from polarity._checks import check_callable
from polarity._running import outside_inference_mode, same_random_state
from polarity._warnings import warn_caller
from polarity.attach.resetting import RESETS, as_plain, write_fresh
from polarity.targets.dense_leaves import on_dense_leaves
from polarity.targets.search import masked_or_prunable
from polarity.targets.wrappers import unwrapped

__all__ = ["reinitialize"]


@outside_inference_mode
@on_dense_leaves
def reinitialize(
    model: nn.Module,
    *,
    init: Callable[[nn.Module], object] | None = None,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """Give a model new random values under the masks that it has, in place.

    This is the control experiment of the lottery-ticket hypothesis: the same mask on other weights.
    Every module draws as it does when it is built, by its ``reset_parameters`` (``nn.Linear``,
    convolutions, norms, embeddings, recurrent networks) or ``_reset_parameters`` (attention), inner
    modules first. The values are written through masks and Sign-In factors, all at once: pruned
    entries stay zero, masks stay as they are, norms become plain ones and zeros (a
    :class:`NormInterp` keeps its initial values), running statistics start anew.

    The values are drawn on the CPU, so one seed gives the same model on every device. Optimizer
    state is not touched: build a new optimizer afterwards.

    ``nn.init`` functions are no alternative: ``nn.init.normal_(layer.weight)`` writes into a
    computed copy of a masked weight and changes nothing.

    Args:
        model: any module, masked or plain.
        init: called as ``init(module)`` for every module instead of its own method, as by
            ``model.apply(init)``; it sees plain parameters. For models of ``transformers``, pass
            ``model._init_weights``.
        generator: source of the seed; by default the global one of the CPU. The global random
            state is otherwise left as it was. By default all ranks of an initialised
            ``torch.distributed`` group must call: they draw from rank 0's seed.

    Returns:
        The model.

    Raises:
        ValueError: if no module draws anything, a new value has another shape than the old one, or
            a parameter has no values yet (lazy, or on the meta device), or a module is compiled by
            ``torch.jit``. The model is left as it was, also where ``init`` raises.
        TypeError: if an argument is of another type.

    Warns:
        UserWarning: names the prunable weights that nothing wrote to; they keep their values.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> import polarity as pol
        >>> model = nn.Sequential(nn.Linear(10, 10), nn.ReLU(), nn.Linear(10, 5))
        >>> _ = pol.imp_prune(model, density=0.5)
        >>> masks, before = pol.masks(model), model[0].weight.detach()
        >>> _ = pol.reinitialize(model, generator=torch.Generator().manual_seed(1))
        >>> torch.equal(model[0].weight != 0, masks["0.weight"])
        True
        >>> bool((model[0].weight[masks["0.weight"]] == before[masks["0.weight"]]).any())
        False

    Source: Frankle & Carbin (2019), section 2, "random reinitialization".
    """
    inner = unwrapped(model)
    if init is not None:
        check_callable("init", init)
    with undrawn_on_error(generator):
        seed = seed_from(generator)
        with same_random_state(inner, seed), as_plain(inner, "cpu") as fresh:
            inner.apply(_reset if init is None else init)  # type: ignore[arg-type]
        if not fresh.weights and not fresh.buffers:
            how = "no module has reset_parameters" if init is None else f"init={init!r} set nothing"
            raise ValueError(
                f"{type(inner).__name__} was not reinitialised, because {how}: pass init=, a "
                "function that draws the parameters of a module"
            )
        left = [name for name in _prunable(inner) if name in fresh.untouched]
        write_fresh(fresh)
    if left:
        warn_caller(
            f"nothing wrote to {', '.join(map(repr, left))}, expected a reset_parameters method of "
            "the module that holds it: the old values stay; pass init= to draw them",
        )
    return model


def _reset(module: nn.Module) -> None:
    """Call the method by which a module draws its own parameters, if it has one."""
    for name in RESETS:
        if callable(method := getattr(module, name, None)):
            method()
            return


def _prunable(model: nn.Module) -> list[str]:
    try:
        return list(masked_or_prunable(model))
    except ValueError:  # there is none, or a hook computes one
        return []
