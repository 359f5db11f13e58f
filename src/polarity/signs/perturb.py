"""What can happen to a field of signs: Epsilon, Delta and Phi.

A field is one value per survivor, as 1-D tensors: a sign of ±1 and the magnitude it had trained to.
Anything with the signature of :class:`Perturbation` can be given to :func:`polarity.reinit_signs`.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from polarity._bits.random_bits import choose_exactly, fair_coins
from polarity._checks import check_finite, check_fraction
from polarity.selection.top_k import top_of_field

__all__ = ["Delta", "Epsilon", "Perturbation", "Phi"]


class Perturbation(Protocol):
    """Anything that turns the signs of some survivors into others."""

    def __call__(
        self, signs: Tensor, magnitudes: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        """Return new signs (int8, ±1) for 1-D ``signs`` with trained ``magnitudes``."""
        ...


@dataclass(frozen=True)
class Epsilon:
    r"""Flip the signs of a random fraction of the survivors.

    Exactly :math:`\operatorname{round}(\varepsilon n)` of :math:`n` signs flip, drawn without
    replacement.

    Args:
        fraction: :math:`\varepsilon` in [0, 1].

    Raises:
        ValueError: if ``fraction`` is outside [0, 1].

    Example:
        >>> import torch
        >>> draw = torch.Generator().manual_seed(0)
        >>> flipped = Epsilon(0.5)(torch.ones(10, dtype=torch.int8), torch.ones(10), draw)
        >>> int((flipped == -1).sum())
        5

    Source: *Fragility of Polarity*, section 2.2.
    """

    fraction: float

    def __post_init__(self) -> None:
        check_fraction("epsilon", self.fraction)

    def __call__(
        self, signs: Tensor, magnitudes: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return the signs with exactly the fraction of them flipped."""
        n = signs.numel()
        flipped = choose_exactly(n, self.count(n), generator).to(signs.device)
        return torch.where(flipped, -signs, signs)

    def count(self, n: int) -> int:
        """Return how many of ``n`` signs flip."""
        return round(self.fraction * n)


@dataclass(frozen=True)
class Delta:
    r"""Give the survivors of smallest trained magnitude a random sign.

    The :math:`\operatorname{round}(\delta n)` smallest of :math:`n` get a fresh fair coin each, so
    about half of them keep their sign; ties in magnitude go to the lower index.

    Args:
        fraction: :math:`\delta` in [0, 1].

    Raises:
        ValueError: if ``fraction`` is outside [0, 1], or, when applied, if nothing survives.

    Example:
        >>> import torch
        >>> draw = torch.Generator().manual_seed(0)
        >>> magnitudes = torch.tensor([5.0, 0.1, 4.0, 0.2])
        >>> Delta(0.5)(torch.ones(4, dtype=torch.int8), magnitudes, draw)[[0, 2]]
        tensor([1, 1], dtype=torch.int8)

    Source: *Fragility of Polarity*, section 2.2.
    """

    fraction: float

    def __post_init__(self) -> None:
        check_fraction("delta", self.fraction)

    def __call__(
        self, signs: Tensor, magnitudes: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return the signs with those of the smallest magnitudes drawn anew."""
        coins = fair_coins(self.count(signs.numel()), generator)
        smallest = top_of_field(-magnitudes, coins.numel()).nonzero().squeeze(1)
        perturbed = signs.clone()
        perturbed[smallest.to(signs.device)] = coins.to(signs.device, signs.dtype) * 2 - 1
        return perturbed

    def count(self, n: int) -> int:
        """Return how many of ``n`` signs are drawn anew.

        Raises:
            ValueError: if ``n`` is 0.
        """
        if n == 0:
            raise ValueError(f"delta={self.fraction!r} of a layer with 0 survivors")
        return round(self.fraction * n)


@dataclass(frozen=True)
class Phi:
    r"""Measure polarity against a centre :math:`\varphi` instead of zero.

    The polarity of a reference :math:`w` is :math:`+1` if :math:`w \ge \varphi`, else :math:`-1`:
    only references between 0 and :math:`\varphi` change, on one side of zero. (*Beyond the
    Zero-Crossing* calls it a symmetric dead zone; its formula is this one.)

    Args:
        center: :math:`\varphi`, in the units of the weights.

    Raises:
        TypeError: if ``center`` is not a number.
        ValueError: if it is NaN or infinite.

    Example:
        >>> import torch
        >>> Phi(0.1).polarity(torch.tensor([-0.2, 0.0, 0.1, 0.2]))
        tensor([-1, -1,  1,  1], dtype=torch.int8)

    Source: *Fragility of Polarity*, section 2.2; *Beyond the Zero-Crossing*, section 2.2.
    """

    center: float

    def __post_init__(self) -> None:
        check_finite("phi", self.center)

    def polarity(self, reference: Tensor) -> Tensor:
        """Return +1 where ``reference`` is at or above the centre and -1 below, as int8."""
        return (reference >= self.center).to(torch.int8) * 2 - 1
