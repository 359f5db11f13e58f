"""The survivors of weights while they get new signs: read, perturbed, written."""

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from polarity._bits.arrays import gather, survivors_of
from polarity._bits.random import words_at, words_below
from polarity._checks import all_finite
from polarity.signs.deviation import population_deviation
from polarity.signs.perturb import Perturbation, Phi
from polarity.signs.report import LayerSigns

__all__ = ["Reference", "Survivors", "check_finite", "perturb_signs", "read_survivors"]

Reference: TypeAlias = Literal["init", "trained", "mixed"]


@dataclass
class Survivors:
    """The survivors of one weight, as tensors of one dimension in row-major order.

    Attributes:
        name: plain name of the weight.
        mask: the flat mask, nonzero for survivors.
        sigma: the magnitude that the survivors get.
        magnitudes: their trained magnitudes.
        init: bool, whether the initial weight is at least zero.
        trained: bool, whether the trained weight is at least zero.
        reference: bool, the same of the weight that the strategy refers to.
        signs: int8, the new signs; perturbations replace them.
    """

    name: str
    mask: Tensor
    sigma: float
    magnitudes: Tensor
    init: Tensor
    trained: Tensor
    reference: Tensor
    signs: Tensor

    def report(self, revived: int = 0) -> LayerSigns:
        """Count the signs."""
        positive, total = self.signs > 0, self.signs.numel()

        def share(true: Tensor) -> float:
            return int(true.count_nonzero()) / total if total else 0.0

        return LayerSigns(
            name=self.name,
            survivors=total,
            sigma=self.sigma,
            positive=share(positive),
            agree_init=share(positive == self.init),
            agree_trained=share(positive == self.trained),
            flipped=int((positive != self.reference).count_nonzero()),
            revived=revived,
        )

    def write(self, out: Tensor, *, keep_pruned: bool) -> None:
        """Write signs times sigma to the survivors of a weight, in place.

        Args:
            out: tensor of the weight's shape, on its device.
            keep_pruned: leave the pruned entries of ``out`` as they are; else they become zero.
        """
        flat = out.view(-1) if out.is_contiguous() else out.reshape(-1)
        start = 0
        for chunk, places in survivors_of(self.mask):
            here, signs = flat[chunk], self.signs[start : start + places.numel()]
            if not keep_pruned:
                here.zero_()
            here.index_copy_(0, places, signs.to(here.dtype).mul_(self.sigma))
            start += places.numel()
        if not out.is_contiguous():
            out.copy_(flat.view(out.shape))


def read_survivors(
    name: str,
    trained: Tensor,
    init: Tensor,
    mask: Tensor,
    reference: Reference,
    *,
    phi: Phi,
    mix: float,
    seed: int,
) -> Survivors:
    """Read the survivors of a weight, and sigma of its initial tensor.

    Args:
        name: plain name of the weight, for its draws and errors.
        trained: the trained weight.
        init: the initial weight, of its shape, on any device.
        mask: of its shape and on its device, nonzero for survivors.
        reference: which weight a survivor takes its sign from.
        phi: says which sign that is.
        mix: for ``"mixed"``, the probability that a survivor refers to the trained weight.
        seed: of the draws of ``"mixed"``.

    Raises:
        ValueError: if a survivor or an entry of the initial weight is NaN or infinite.
    """
    trained, init, mask = (each.detach().reshape(-1) for each in (trained, init, mask))
    before, after = gather(mask, init, trained)
    sigma = population_deviation(init)
    if math.isnan(sigma):
        check_finite("init", name, init)
        raise ValueError(f"the squares of init weight {name!r} overflow: sigma is not a number")
    check_finite("trained", name, after)
    from_init, from_trained = before >= 0, after >= 0
    refers, signs = from_init, phi.polarity(before)
    if reference == "trained":
        refers, signs = from_trained, phi.polarity(after)
    elif reference == "mixed":
        words = words_at(seed, {name: mask})
        chosen = torch.from_numpy(words_below(words, mix)).to(mask.device)
        refers = torch.where(chosen, from_trained, refers)
        signs = torch.where(chosen, phi.polarity(after), signs)
    return Survivors(name, mask, sigma, after.abs_(), from_init, from_trained, refers, signs)


def perturb_signs(
    weights: Sequence[Survivors],
    perturbations: Sequence[Perturbation],
    scope: str,
    generator: torch.Generator | None,
) -> None:
    """Replace the signs of survivors by perturbed ones, of each weight or of all together.

    Raises:
        ValueError: what a perturbation raises, with the weight's name before it where the scope is
            ``"layer"``; or if it returns anything but ±1 for each sign.
        TypeError: if a perturbation returns no tensor.
    """
    if scope == "global":
        for each in perturbations if weights else ():
            _perturb_together(weights, each, generator)
        return
    for weight in weights:
        for each in perturbations:
            try:
                _perturb_together([weight], each, generator)
            except ValueError as error:
                raise ValueError(f"{weight.name}: {error}") from None


def _perturb_together(
    weights: Sequence[Survivors], perturbation: Perturbation, generator: torch.Generator | None
) -> None:
    """Call a perturbation once, for the survivors of all these weights."""
    signs, magnitudes = weights[0].signs, weights[0].magnitudes
    if len(weights) > 1:
        signs = torch.cat([each.signs.to(signs.device) for each in weights])
        dtypes = {each.magnitudes.dtype for each in weights}
        wide = torch.float64 if torch.float64 in dtypes else torch.float32
        magnitudes = torch.cat([each.magnitudes.to(signs.device, wide) for each in weights])
    given: dict[str, Any] = {}
    if _takes_masks(perturbation):
        given["masks"] = {each.name: each.mask.bool() for each in weights}
    perturbed = perturbation(signs, magnitudes, generator, **given)
    _check_signs(perturbation, perturbed, signs.numel())
    sizes = [each.signs.numel() for each in weights]
    for each, mine in zip(weights, torch.split(perturbed, sizes), strict=True):
        each.signs = mine.to(each.mask.device, torch.int8)


def _takes_masks(perturbation: Perturbation) -> bool:
    try:
        return "masks" in inspect.signature(perturbation).parameters
    except ValueError:  # some callables that are not written in Python have no signature
        return False


def _check_signs(perturbation: Perturbation, signs: Tensor, size: int) -> None:
    """Raise unless a perturbation returned +1 or -1 for each sign."""
    if not isinstance(signs, Tensor):
        raise TypeError(f"{perturbation!r} returned a {type(signs).__name__}, expected a tensor")
    if signs.shape != (size,):
        raise ValueError(
            f"{perturbation!r} returned signs of shape {tuple(signs.shape)}, expected ({size},)"
        )
    if not bool(((signs == 1) | (signs == -1)).all()):
        raise ValueError(f"{perturbation!r} returned signs other than +1 and -1")


def check_finite(role: str, name: str, values: Tensor) -> None:
    """Raise ValueError if an entry is NaN or infinite."""
    if not all_finite(values):
        bad = int((~values.isfinite()).count_nonzero())
        raise ValueError(f"{role} weight {name!r} holds {bad} NaN or infinite entries")
