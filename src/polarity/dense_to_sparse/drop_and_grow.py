"""The rule of SET and RigL on tensors: drop small entries of a weight, and grow others."""

import torch
from torch import Tensor

from polarity._bits.arrays import count_true
from polarity._bits.random import undrawn_on_error
from polarity._checks import check_floating, check_integer, check_shape, check_ties, check_type
from polarity._running import outside_inference_mode
from polarity.parametrizations.arithmetic import as_mask
from polarity.selection.chosen import Chosen, Entries
from polarity.selection.ties import Draw, Ties, draw_for

__all__ = ["drop_and_grow", "exchanged"]


@outside_inference_mode
def drop_and_grow(
    weight: Tensor,
    mask: Tensor,
    growth: Tensor,
    n: int,
    *,
    ties: Ties = "index",
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Drop the ``n`` smallest survivors of a weight, and grow as many of the highest ``growth``.

    Grown are the ``n`` entries of highest score among all that are outside the mask after the drop.
    An entry that was just dropped is one of them, so it may come straight back.

    Args:
        weight: floating tensor, ranked by magnitude inside the mask.
        mask: bool tensor, or zeros and ones, of the same shape: the survivors.
        growth: scores of the same shape, the highest grow.
        n: how many entries are exchanged, at most the number of survivors.
        ties: of equal magnitudes those of lower ``"index"`` survive, and of equal scores they grow;
            or ``"random"`` ones.
        generator: source of the seed of ``ties="random"``, by default the global one of the CPU.

    Returns:
        The new mask, a bool tensor with as many ones as ``mask``.

    Raises:
        ValueError: if shapes differ; if a value that is ranked is NaN or infinite; if ``n`` is
            negative or exceeds the survivors; if ``mask`` holds other values than zeros and ones;
            or if ``ties`` is another word. The generator is left as it was.
        TypeError: if an argument is of another type.

    Example:
        >>> import torch
        >>> weight = torch.tensor([0.5, -0.1, 0.3, 0.0, 0.0])
        >>> mask = torch.tensor([True, True, True, False, False])
        >>> growth = torch.tensor([9.0, 0.2, 9.0, 0.1, 0.4])
        >>> drop_and_grow(weight, mask, growth, 1)  # the second is dropped, the fifth grows
        tensor([ True, False,  True, False,  True])
        >>> drop_and_grow(weight, mask, growth * torch.tensor([1, 5, 1, 1, 1]), 1)
        tensor([ True,  True,  True, False, False])

    Source: Mocanu et al. (2018), *Scalable training of artificial neural networks with adaptive
    sparse connectivity*; Evci et al. (2020), *Rigging the lottery*, Algorithm 1.
    """
    check_floating("weight", weight)
    check_type("mask", mask, Tensor, "a tensor")
    check_floating("growth", growth)
    for parameter, value in (("mask", mask), ("growth", growth)):
        check_shape(parameter, None, value.shape, weight.shape, "weight")
    check_integer("n", n, at_least=0)
    live = as_mask(mask)
    if n > (survivors := count_true(live)):
        raise ValueError(f"n={n}, expected at most the {survivors} survivors")
    check_ties(ties)
    with undrawn_on_error(generator):
        draw = draw_for(ties, generator)
        return exchanged("weight", weight, live, growth, n, draw)


def exchanged(
    name: str, weight: Tensor, mask: Tensor, growth: Tensor, n: int, draw: Draw | None
) -> Tensor:
    """Return the mask without its ``n`` smallest entries and with as many of highest growth."""
    drop, grow, keep = f"{name}: drop", f"{name}: grow", count_true(mask) - n
    survivors = {drop: Entries.of(weight.detach(), mask.to(weight.device))}
    kept = Chosen(survivors, keep, signed=False, finite="score", draw=draw).new_mask(drop)
    others = {grow: Entries.of(growth.detach(), ~kept)}
    grown = Chosen(others, n, signed=True, finite="score", draw=draw).new_mask(grow)
    return grown.logical_or_(kept)
