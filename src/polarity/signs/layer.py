"""The survivors of weights while they get new signs: read, perturb, write."""

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from polarity._bits.arrays import gather, survivors_of
from polarity._bits.random import words_at, words_below
from polarity._checks import check_entries, check_type
from polarity.signs.deviation import population_deviation
from polarity.signs.perturb import Perturbation, Phi
from polarity.signs.report import LayerSigns

__all__ = [
    "Reference",
    "Survivors",
    "at_sigma",
    "mix_references",
    "perturb_signs",
    "read_survivors",
]

Reference: TypeAlias = Literal["init", "trained"]


@dataclass
class Survivors:
    """The survivors of one weight, as tensors of one dimension in row-major order.

    Attributes:
        name: plain name of the weight.
        mask: the flat mask, nonzero for survivors.
        sigma: the magnitude that the survivors get.
        magnitudes: their trained magnitudes.
        init: bool, True where the initial weight is at least zero.
        trained: bool, True where the trained weight is at least zero.
        reference: bool, the same for the weight that the strategy refers to.
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

    def write(self, out: Tensor, pruned: Tensor | None = None) -> LayerSigns:
        """Write signs times sigma to the survivors of a weight, in place, and count the signs.

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
        revived = 0 if pruned is None else int(((flat != 0) & (self.mask == 0)).count_nonzero())
        return self._report(revived)

    def _report(self, revived: int) -> LayerSigns:
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


def read_survivors(
    name: str,
    trained: Tensor,
    init: Tensor,
    mask: Tensor,
    reference: Reference,
    phi: Phi,
) -> Survivors:
    """Read the survivors of a weight, and compute sigma from its initial tensor.

    Args:
        name: plain name of the weight, for its draws and errors.
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
    sigma = population_deviation(init)
    if math.isnan(sigma):
        check_entries(f"init weight {name!r}", init)
        raise ValueError(
            f"init weight {name!r} holds values whose squares overflow, expected a finite sigma"
        )
    check_entries(f"trained weight {name!r}", after)
    from_init, from_trained = before >= 0, after >= 0
    refers, signs = from_init, phi.polarity(before)
    if reference == "trained":
        refers, signs = from_trained, phi.polarity(after)
    return Survivors(name, mask, sigma, after.abs_(), from_init, from_trained, refers, signs)


def mix_references(weights: Sequence[Survivors], phi: Phi, mix: float, seed: int) -> None:
    """Let each survivor, with probability ``mix``, refer to its trained weight instead."""
    for each in weights:
        words = words_at(seed, {each.name: each.mask})
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
) -> None:
    """Replace the signs of survivors by perturbed ones, of each weight or of all together.

    Raises:
        ValueError: if a perturbation returns anything but ±1 for each sign, or as it raises; with
            scope ``"layer"`` the message begins with the weight's name.
        TypeError: if a perturbation does not return a tensor.
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
