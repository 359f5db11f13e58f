"""Perturb the signs of survivors: Epsilon, Delta and Phi.

A perturbation takes tensors of one dimension with a value for each survivor: its sign, ±1, and its
trained magnitude. Any function with the signature of :class:`Perturbation` can be passed to
:func:`polarity.reinit_signs`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from polarity._bits.random import Words, coins, seed_from, undrawn_on_error, words_at, words_in
from polarity._checks import (
    check_finite,
    check_floating,
    check_fraction,
    check_generator,
    check_integer,
    check_mapping,
    check_shape,
    check_ties,
    check_type,
)
from polarity.selection.ranks import Ranks
from polarity.selection.ties import Ties, keys_of
from polarity.selection.top_k import largest_of

__all__ = ["Delta", "Epsilon", "Perturbation", "Phi", "Pieces"]


@dataclass(frozen=True)
class Pieces:
    """The weights that survivors belong to, or this rank's pieces of them.

    Attributes:
        masks: their bool masks in the order of the survivors, by plain name; None if not given.
        starts: how many entries of each weight come before its piece; None where they are whole.
        ranks: those that hold the other pieces.
    """

    masks: Mapping[str, Tensor] | None
    starts: Mapping[str, int] | None = None
    ranks: Ranks | None = None

    def sizes(self) -> list[int]:
        """Return the number of survivors of each weight here."""
        return [int(mask.count_nonzero()) for mask in (self.masks or {}).values()]

    def count(self, signs: Tensor) -> int:
        """Return the number of signs, of the ranks together."""
        return signs.numel() if self.ranks is None else int(self.ranks.add([signs.numel()])[0])

    def largest(self, values: Tensor, count: int, words: Words | None = None) -> Tensor:
        """Return which values are among the ``count`` largest, of the ranks together."""
        sizes = () if self.ranks is None else self.sizes()
        return largest_of(values, count, words, sizes=sizes, ranks=self.ranks)


class Perturbation(Protocol):
    """A function that returns new signs for the survivors of a weight.

    If it has a keyword parameter ``masks``, as :class:`Epsilon` and :class:`Delta` do,
    :func:`polarity.reinit_signs` passes the bool masks of the weights that the survivors belong to,
    ``{plain name: mask}``, in the order of the survivors.

    A function of yours that draws without the generator has to draw the same on every rank.
    """

    def __call__(
        self, signs: Tensor, magnitudes: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        """Return new signs (int8, ±1) for 1-D ``signs`` with trained ``magnitudes``."""
        ...


@dataclass(frozen=True)
class Epsilon:
    r"""Flip the signs of a random fraction of the survivors.

    Exactly :math:`\operatorname{round}(\varepsilon n)` of :math:`n` signs flip, drawn without
    replacement: those with the highest random 30-bit keys. Ties: the lower index flips.

    Args:
        fraction: :math:`\varepsilon` in [0, 1].

    Raises:
        ValueError: if ``fraction`` is outside [0, 1].
        TypeError: if ``fraction`` is not a number.

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
        self,
        signs: Tensor,
        magnitudes: Tensor,
        generator: torch.Generator | None = None,
        *,
        masks: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Return the signs with exactly the fraction of them flipped.

        Args:
            signs: int8 tensor of ±1, one for each survivor.
            magnitudes: not used.
            generator: source of the seed; by default the global one of the CPU, whose seed is then
                rank 0's in an initialised group of several ranks: all of them must call.
            masks: the bool masks of the weights that the survivors belong to, in order, by plain
                name. A draw depends only on the seed, the name and the flat position in the weight.
                Without masks the signs are taken as those of one weight with an empty name and no
                pruned entries.

        Returns:
            A new tensor like ``signs``.

        Raises:
            ValueError: if the number of survivors in the masks is not the number of signs.
        """
        _check_signs(signs, masks)
        return self.among(signs, magnitudes, generator, Pieces(masks))

    def among(
        self,
        signs: Tensor,
        magnitudes: Tensor,
        generator: torch.Generator | None,
        pieces: "Pieces",
    ) -> Tensor:
        """Return the same of signs of which other ranks may hold more."""
        words = _draw_words(signs, pieces, generator)
        flipped = pieces.largest(keys_of(words), self.count(pieces.count(signs)))
        return torch.where(flipped.to(signs.device), -signs, signs)

    def count(self, n: int) -> int:
        """Return how many of ``n`` signs flip."""
        check_integer("n", n, at_least=0)
        return round(float(self.fraction) * n)


@dataclass(frozen=True)
class Delta:
    r"""Give the survivors of smallest trained magnitude a random sign.

    Each of the :math:`\operatorname{round}(\delta n)` smallest of :math:`n` takes its sign from a
    fair coin, so about half of them keep theirs.

    Args:
        fraction: :math:`\delta` in [0, 1].
        ties: which of equal magnitudes count as smaller: those of lower ``"index"``, or
            ``"random"`` ones, for which a second seed is drawn. Magnitudes that have not been
            trained since :func:`polarity.reinit_signs` are all equal.

    Raises:
        ValueError: if ``fraction`` is outside [0, 1], if ``ties`` is another word, or, when called,
            if there are no survivors.
        TypeError: if ``fraction`` is not a number.

    Example:
        >>> import torch
        >>> draw = torch.Generator().manual_seed(0)
        >>> magnitudes = torch.tensor([5.0, 0.1, 4.0, 0.2])
        >>> Delta(0.5)(torch.ones(4, dtype=torch.int8), magnitudes, draw)[[0, 2]]
        tensor([1, 1], dtype=torch.int8)

    Source: *Fragility of Polarity*, section 2.2.
    """

    fraction: float
    ties: Ties = "index"

    def __post_init__(self) -> None:
        check_fraction("delta", self.fraction)
        check_ties(self.ties)

    def __call__(
        self,
        signs: Tensor,
        magnitudes: Tensor,
        generator: torch.Generator | None = None,
        *,
        masks: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Return the signs with those of the smallest magnitudes drawn anew.

        Args:
            signs: int8 tensor of ±1, one for each survivor.
            magnitudes: their trained magnitudes, in any floating dtype.
            generator: as for :class:`Epsilon`.
            masks: as for :class:`Epsilon`.

        Returns:
            A new tensor like ``signs``.

        Raises:
            ValueError: if there are no signs, if ``magnitudes`` has another shape, or the number of
                survivors in the masks is another.
        """
        _check_signs(signs, masks)
        check_floating("magnitudes", magnitudes)
        check_shape("magnitudes", None, magnitudes.shape, signs.shape, "tensor signs")
        return self.among(signs, magnitudes, generator, Pieces(masks))

    def among(
        self,
        signs: Tensor,
        magnitudes: Tensor,
        generator: torch.Generator | None,
        pieces: "Pieces",
    ) -> Tensor:
        """Return the same of signs of which other ranks may hold more."""
        count = self.count(pieces.count(signs))
        with undrawn_on_error(generator):
            tossed = torch.from_numpy(coins(_draw_words(signs, pieces, generator))).to(signs.device)
            # The words of the coins would decide which coins are chosen: these are others.
            words = _draw_words(signs, pieces, generator) if self.ties == "random" else None
            smallest = pieces.largest(-magnitudes, count, words).to(signs.device)
        return torch.where(smallest, tossed.to(signs.dtype).mul_(2).sub_(1), signs)

    def count(self, n: int) -> int:
        """Return how many of ``n`` signs are drawn anew.

        Raises:
            ValueError: if ``n`` is 0.
        """
        check_integer("n", n, at_least=0)
        if n == 0:
            raise ValueError(
                f"delta={self.fraction!r} of a layer with 0 survivors, expected at least 1"
            )
        return round(float(self.fraction) * n)


@dataclass(frozen=True)
class Phi:
    r"""Measure polarity against a centre :math:`\varphi` instead of zero.

    The polarity of a reference :math:`w` is :math:`+1` if :math:`w \ge \varphi`, else :math:`-1`.
    This changes only references between 0 and :math:`\varphi`, on one side of zero. (*Beyond the
    Zero-Crossing* calls this a symmetric dead zone, with the same formula.)

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
        check_type("reference", reference, Tensor, "a tensor")
        return (reference >= self.center).to(torch.int8) * 2 - 1


def _check_signs(signs: object, masks: object) -> None:
    """Raise unless signs are a tensor of one dimension, and masks bool tensors by name."""
    check_type("signs", signs, Tensor, "a tensor of one dimension: int8, -1 and +1")
    check_shape("signs", None, signs.shape, (signs.numel(),), "survivors'")  # type: ignore[attr-defined]
    if masks is None:
        return
    check_mapping("masks", masks, "{name: bool mask}")
    for name, mask in masks.items():  # type: ignore[attr-defined]
        check_type(f"masks[{name!r}]", mask, Tensor, "a bool tensor")
        if mask.dtype != torch.bool:
            raise TypeError(f"masks[{name!r}] has dtype {mask.dtype}, expected torch.bool")


def _draw_words(signs: Tensor, pieces: "Pieces", generator: torch.Generator | None) -> Words:
    """Draw a seed, and return its word for each survivor; everything is checked before it."""
    check_generator(generator)
    count, masks = signs.numel(), pieces.masks
    if masks is None:
        return words_in(seed_from(generator), "", 0, count)
    survivors = sum(pieces.sizes())
    if survivors != count:
        raise ValueError(
            f"masks have {survivors} survivors, expected the number of signs, {count}: pass the "
            "masks of the weights that the signs were taken from"
        )
    return words_at(seed_from(generator), masks, pieces.starts)
