"""The signs that the survivors of one layer are to get: perturbed, counted and written."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from polarity._bits.arrays import Array, array_of, bytes_of, parts_of, places_of
from polarity._bits.bits import Bits
from polarity.selection.chosen import Entries
from polarity.signs.report import LayerSigns

__all__ = ["SignField", "values_of"]


@dataclass(frozen=True)
class SignField:
    """New signs of one layer, a few bits per entry, before anything is written.

    Of the signs it says which living entries are +.

    Attributes:
        entries: the trained weight, and the mask as its living entries.
        mask: the same mask of one dimension, row-major, as all that is said of the signs.
        living: the same mask again.
        new: the new signs; what is done to them is done in place.
        init: the signs of the initial weight.
        trained: those of the trained weight.
        reference: those of the weight that the strategy refers to.
        survivors: how many entries live.
        sigma: the magnitude they get.
    """

    entries: Entries
    mask: Tensor
    living: Bits
    new: Bits
    init: Bits
    trained: Bits
    reference: Bits
    survivors: int
    sigma: float

    def turn(self, turned: Bits) -> None:
        """Turn the signs of those entries, all of which live, for which a bit is set."""
        data = self.new.data
        data ^= turned.to(self.mask.device).data

    def draw(self, drawn: Bits, coins: Bits) -> None:
        """Take the signs of those entries, all of which live, that are ``drawn`` from ``coins``."""
        data, device = self.new.data, self.mask.device
        data ^= (data ^ coins.to(device).data) & drawn.to(device).data

    def set(self, positive: Tensor) -> None:
        """Set the signs of all survivors, in order, by a bool tensor."""
        start = 0
        for part, places in self._survivors():
            signs = self.new.get(part)
            signs[places] = array_of(positive[start : start + len(places)].to(self.mask.device))
            start += len(places)
            self.new.put(part, signs)

    def positive(self) -> Tensor:
        """Return which survivors get a +, in order, as a new bool tensor."""
        signs = [torch.as_tensor(self.new.get(part)[at]) for part, at in self._survivors()]
        return torch.cat(signs) if signs else self.mask[:0]

    def magnitudes(self) -> Tensor:
        """Return the trained magnitudes of the survivors, in order."""
        values = values_of(self.entries)
        taken = [
            values[part][torch.as_tensor(places_of(array_of(self.mask[part])))].abs()
            for part in parts_of(self.mask.numel(), self.mask.device)
        ]
        return torch.cat(taken) if taken else values[:0]

    def report(self, name: str, revived: int = 0) -> LayerSigns:
        """Count the signs."""
        total = self.survivors

        def differing(other: Bits) -> int:
            return Bits(other.size, self.new.data ^ other.data).count()

        return LayerSigns(
            name=name,
            survivors=total,
            sigma=self.sigma,
            positive=self.new.count() / total if total else 0.0,
            agree_init=(total - differing(self.init)) / total if total else 0.0,
            agree_trained=(total - differing(self.trained)) / total if total else 0.0,
            flipped=differing(self.reference),
            revived=revived,
        )

    def write(self, out: Tensor, *, keep_pruned: bool) -> None:
        """Write signs times sigma to the survivors, in place.

        Args:
            out: tensor of the weight's shape and device.
            keep_pruned: whether the pruned entries of ``out`` stay as they are, or become zero.
        """
        flat = out.view(-1) if out.is_contiguous() else out.reshape(-1)
        mask = bytes_of(array_of(self.mask))
        array = array_of(flat) if flat.dtype == torch.float32 and not keep_pruned else None
        sigma = np.float32(self.sigma)
        for part in parts_of(flat.numel(), flat.device):
            signs = bytes_of(self.new.get(part))
            signs += signs
            signs -= mask[part]  # 1, 0 where pruned, or 255, which is -1
            if isinstance(array, np.ndarray):
                # A conversion and a product in turn would each go through the memory of `out`.
                np.multiply(signs.view(np.int8), sigma, out=array[part], dtype=np.float32)
                continue
            here, integers = flat[part], torch.as_tensor(signs).view(torch.int8)
            if keep_pruned:
                new = integers.to(here.dtype).mul_(self.sigma)
                here.copy_(torch.where(self.mask[part], new, here))
            else:
                here.copy_(integers).mul_(self.sigma)
        torch.autograd.graph.increment_version(flat)
        if not out.is_contiguous():
            out.copy_(flat.view(out.shape))

    def _survivors(self) -> Iterator[tuple[slice, Array]]:
        """Yield the parts, and where in them the survivors are."""
        for part in parts_of(self.mask.numel(), self.mask.device):
            yield part, places_of(array_of(self.mask[part]))


def values_of(entries: Entries) -> Tensor:
    """Return the entries in one dimension, row-major."""
    values = entries.values if isinstance(entries.values, Tensor) else entries.values()
    return values.detach().reshape(-1)
