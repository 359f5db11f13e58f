"""The survivors of weights while they get new signs: read, perturb, write."""

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from polarity._bits.arrays import gather, survivors_of
from polarity._bits.random import words_at, words_below
from polarity._checks import check_entries, check_type
from polarity.selection.ranks import Ranks
from polarity.signs.deviation import Piece, deviations
from polarity.signs.perturb import Delta, Epsilon, Perturbation, Phi, Pieces
from polarity.signs.report import LayerSigns

__all__ = [
    "Reference",
    "Survivors",
    "at_sigma",
    "find_sigmas",
    "mix_references",
    "perturb_signs",
    "read_survivors",
    "reported",
]

Reference: TypeAlias = Literal["init", "trained"]


@dataclass
class Survivors:
    """The survivors of one weight, or of this rank's piece of it, flat and in row-major order.

    Attributes:
        name: plain name of the weight.
        mask: the flat mask, nonzero for survivors.
        start: how many entries of the weight come before the piece.
        sigma: the magnitude that the survivors get; NaN until :func:`find_sigmas`.
        initial: the initial weight, of which that is the deviation.
        magnitudes: their trained magnitudes.
        init: bool, True where the initial weight is at least zero.
        trained: bool, True where the trained weight is at least zero.
        reference: bool, the same for the weight that the strategy refers to.
        signs: int8, the new signs; perturbations replace them.
    """

    name: str
    mask: Tensor
    start: int
    sigma: float
    initial: Piece
    magnitudes: Tensor
    init: Tensor
    trained: Tensor
    reference: Tensor
    signs: Tensor

    def write(self, out: Tensor, pruned: Tensor | None = None) -> int:
        """Write signs times sigma to the survivors of a weight, in place; return what came back.

        Args:
            out: tensor of the weight's shape, on the mask's device.
            pruned: what the pruned entries become, of the same shape; by default zero.
        """
        if pruned is None:
            out.zero_()
        else:
            out.copy_(pruned)
        flat = out.reshape(-1)  # a copy where the layout is another one
        start = 0
        for chunk, places in survivors_of(self.mask):
            stop = start + places.numel()
            values = self.signs[start:stop].to(flat.dtype).mul_(self.sigma)
            flat[chunk].index_copy_(0, places, values)
            start = stop
        if not out.is_contiguous():
            out.copy_(flat.view(out.shape))
        return 0 if pruned is None else int(((flat != 0) & (self.mask == 0)).count_nonzero())

    def counts(self) -> list[int]:
        """Count the signs: all, positive, as initially, as trained, and not as the reference."""
        positive = self.signs > 0
        matching = (
            positive,
            positive == self.init,
            positive == self.trained,
            positive != self.reference,
        )
        return [positive.numel(), *(int(each.count_nonzero()) for each in matching)]


def reported(
    weights: Sequence[Survivors], revived: Mapping[str, int], ranks: Ranks | None
) -> tuple[LayerSigns, ...]:
    """Return the report of each weight: what all ranks counted.

    Args:
        weights: their survivors, with their new signs.
        revived: how many entries came back, of the weights of which some may have.
        ranks: those of a sharded model.
    """
    counts = np.array([[*each.counts(), revived.get(each.name, 0)] for each in weights])
    if ranks is not None:
        counts = ranks.add(counts.reshape(-1)).reshape(counts.shape)
    rows = []
    for each, numbers in zip(weights, counts.tolist(), strict=True):
        total, *matching, flipped, back = numbers
        positive, as_init, as_trained = (count / total if total else 0.0 for count in matching)
        rows.append(
            LayerSigns(each.name, total, each.sigma, positive, as_init, as_trained, flipped, back)
        )
    return tuple(rows)


def read_survivors(
    name: str,
    start: int,
    trained: Tensor,
    init: Tensor,
    mask: Tensor,
    reference: Reference,
    phi: Phi,
) -> Survivors:
    """Read the survivors of a weight, or of this rank's piece of it, still without sigma.

    Args:
        name: plain name of the weight, for its draws and errors.
        start: how many entries of the weight come before the piece.
        trained: the trained weight.
        init: the initial weight, of its shape, on any device.
        mask: of its shape and on its device, nonzero for survivors.
        reference: which weight a survivor takes its sign from.
        phi: the centre that signs are measured against.

    Raises:
        ValueError: if a survivor or an entry of the initial weight is NaN or infinite.
    """
    trained, init, mask = (each.detach().reshape(-1) for each in (trained, init, mask))
    before, after = gather(mask, init, trained)
    initial = Piece(init)
    if not initial.is_finite:
        check_entries(f"init weight {name!r}", init)
        raise _overflow(name)
    check_entries(f"trained weight {name!r}", after)
    from_init, from_trained = before >= 0, after >= 0
    refers, signs = from_init, phi.polarity(before)
    if reference == "trained":
        refers, signs = from_trained, phi.polarity(after)
    return Survivors(
        name, mask, start, math.nan, initial, after.abs_(), from_init, from_trained, refers, signs
    )


def find_sigmas(weights: Sequence[Survivors], ranks: Ranks | None) -> None:
    """Give the survivors their magnitude: the deviation of the initial weight, of all ranks."""
    for each, sigma in zip(weights, deviations([e.initial for e in weights], ranks), strict=True):
        if math.isnan(sigma):
            raise _overflow(each.name)
        each.sigma = sigma


def _overflow(name: str) -> ValueError:
    return ValueError(
        f"init weight {name!r} holds values whose squares overflow, expected a finite sigma"
    )


def mix_references(weights: Sequence[Survivors], phi: Phi, mix: float, seed: int) -> None:
    """Let each survivor, with probability ``mix``, refer to its trained weight instead."""
    for each in weights:
        words = words_at(seed, {each.name: each.mask}, {each.name: each.start})
        chosen = torch.from_numpy(words_below(words, mix)).to(each.mask.device)
        trained = torch.where(each.trained, each.magnitudes, -each.magnitudes)
        each.reference = torch.where(chosen, each.trained, each.reference)
        each.signs = torch.where(chosen, phi.polarity(trained), each.signs)


def at_sigma(weight: Tensor, phi: Phi, sigma: float) -> Tensor:
    """Return a weight whose values are plus or minus sigma, and zeros where they were zero."""
    return phi.polarity(weight).to(weight.dtype).mul_(sigma).masked_fill_(weight == 0, 0)


def perturb_signs(
    weights: Sequence[Survivors],
    perturbations: Sequence[Perturbation],
    scope: str,
    generator: torch.Generator | None,
    ranks: Ranks | None = None,
) -> None:
    """Replace the signs of survivors by perturbed ones, of each weight or of all together.

    Raises:
        ValueError: if a perturbation returns anything but ±1 for each sign, or as it raises; with
            scope ``"layer"`` the message begins with the weight's name.
        TypeError: if a perturbation does not return a tensor.
    """
    if scope == "global":
        for each in perturbations if weights else ():
            _perturb_together(weights, each, generator, ranks)
        return
    for weight in weights:
        for each in perturbations:
            try:
                _perturb_together([weight], each, generator, ranks)
            except ValueError as error:
                raise ValueError(f"{weight.name}: {error}") from None


def _perturb_together(
    weights: Sequence[Survivors],
    perturbation: Perturbation,
    generator: torch.Generator | None,
    ranks: Ranks | None,
) -> None:
    """Call a perturbation once, for the survivors of all these weights."""
    signs, magnitudes = weights[0].signs, weights[0].magnitudes
    if len(weights) > 1:
        signs = torch.cat([each.signs.to(signs.device) for each in weights])
        dtypes = {each.magnitudes.dtype for each in weights}
        wide = torch.float64 if torch.float64 in dtypes else torch.float32
        magnitudes = torch.cat([each.magnitudes.to(signs.device, wide) for each in weights])
    masks = {each.name: each.mask.bool() for each in weights}
    if ranks is not None:
        assert isinstance(perturbation, (Epsilon, Delta))  # see signed_survivors
        pieces = Pieces(masks, {each.name: each.start for each in weights}, ranks)
        perturbed = perturbation.among(signs, magnitudes, generator, pieces)
    elif _takes_masks(perturbation):
        perturbed = perturbation(signs, magnitudes, generator, masks=masks)  # type: ignore[call-arg]
    else:
        perturbed = perturbation(signs, magnitudes, generator)
    _check_signs(perturbation, perturbed, signs.numel())
    sizes = [each.signs.numel() for each in weights]
    for each, mine in zip(weights, torch.split(perturbed, sizes), strict=True):
        each.signs = mine.to(each.mask.device, torch.int8)


def _takes_masks(perturbation: Perturbation) -> bool:
    """Return whether a perturbation has a parameter ``masks``."""
    try:
        return "masks" in inspect.signature(perturbation).parameters
    except ValueError:  # some callables that are not written in Python have no signature
        return False


def _check_signs(perturbation: Perturbation, signs: Tensor, size: int) -> None:
    """Raise unless a perturbation returned +1 or -1 for each sign."""
    check_type(f"what {perturbation!r} returned", signs, Tensor, "a tensor")
    if signs.shape != (size,):
        raise ValueError(
            f"{perturbation!r} returned signs of shape {tuple(signs.shape)}, expected ({size},)"
        )
    if not bool(((signs == 1) | (signs == -1)).all()):
        raise ValueError(f"{perturbation!r} returned other values, expected +1 and -1 only")
