"""The signs that the survivors of one layer are to get: read, perturbed, counted and written."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from polarity.arrays import (
    Array,
    array_of,
    bytes_of,
    count_true,
    parts_of,
    places_of,
    wide_array_of,
)
from polarity.deviation import Deviation
from polarity.random_bits import bernoulli
from polarity.selecting import Entries
from polarity.selection import all_finite
from polarity.sign_report import LayerSigns

__all__ = ["Reference", "SignField", "read_signs"]

Reference: TypeAlias = Literal["init", "trained", "mixed"]

# What a code says of a survivor: whether its new sign is +, and whether that differs from the sign
# of its initial weight, of its trained one, and of the one that the strategy refers to. So a sign
# is turned by turning all bits. The code of a pruned entry is 0.
_POSITIVE, _OFF_INIT, _OFF_TRAINED, _OFF_REFERENCE = 1, 2, 4, 8
_TURN = 15


@dataclass(frozen=True)
class SignField:
    """New signs of one layer, a byte per entry, before anything is written.

    Attributes:
        entries: the trained weight, and the mask as its living entries.
        mask: the same mask of one dimension, row-major, as all that is said of the signs.
        codes: uint8, what is known of each entry, see above.
        survivors: how many entries live.
        sigma: the magnitude they get.
    """

    entries: Entries
    mask: Tensor
    codes: Tensor
    survivors: int
    sigma: float

    def turn(self, turned: Tensor) -> None:
        """Turn the signs of those survivors, in order, for which a bool tensor is True."""
        start = 0
        for codes, places in self._survivors():
            mine = self._here(turned[start : start + len(places)])
            start += len(places)
            codes[places[places_of(mine)]] ^= _TURN

    def set(self, positive: Tensor) -> None:
        """Set the signs of all survivors, in order, by a bool tensor."""
        start = 0
        for codes, places in self._survivors():
            mine = self._here(positive[start : start + len(places)])
            start += len(places)
            _set(codes, places, mine)

    def set_some(self, part: slice, some: Array, positive: Tensor) -> int:
        """Set the signs of those survivors of a part for which ``some`` is True.

        In order, by the first entries of the bool tensor ``positive``. Returns how many it took.
        """
        places = places_of(some)
        _set(array_of(self.codes[part]), places, self._here(positive[: len(places)]))
        return len(places)

    def positive(self) -> Tensor:
        """Return which survivors get a +, in order, as a new bool tensor."""
        signs = [torch.as_tensor(codes[places] & 1) for codes, places in self._survivors()]
        return torch.cat(signs).bool() if signs else self.mask[:0]

    def magnitudes(self) -> Tensor:
        """Return the trained magnitudes of the survivors, in order."""
        values = _flat_values(self.entries)
        taken = [
            values[part][torch.as_tensor(places_of(array_of(self.mask[part])))].abs()
            for part in parts_of(self.mask.numel(), self.mask.device)
        ]
        return torch.cat(taken) if taken else values[:0]

    def report(self, name: str, revived: int = 0) -> LayerSigns:
        """Count the signs."""
        counts = dict.fromkeys((_POSITIVE, _OFF_INIT, _OFF_TRAINED, _OFF_REFERENCE), 0)
        codes = array_of(self.codes)
        for part in parts_of(self.codes.numel(), self.codes.device):
            for bit in counts:
                counts[bit] += count_true(codes[part] & bit)
        positive, off_init, off_trained, off_reference = (int(each) for each in counts.values())
        total = self.survivors
        return LayerSigns(
            name=name,
            survivors=total,
            sigma=self.sigma,
            positive=positive / total if total else 0.0,
            agree_init=(total - off_init) / total if total else 0.0,
            agree_trained=(total - off_trained) / total if total else 0.0,
            flipped=off_reference,
            revived=revived,
        )

    def write(self, out: Tensor, *, keep_pruned: bool) -> None:
        """Write signs times sigma to the survivors, in place.

        Args:
            out: tensor of the weight's shape and device.
            keep_pruned: whether the pruned entries of ``out`` stay as they are, or become zero.
        """
        flat = out.view(-1) if out.is_contiguous() else out.reshape(-1)
        codes, mask = array_of(self.codes), bytes_of(array_of(self.mask))
        for part in parts_of(flat.numel(), flat.device):
            signs = codes[part] & 1
            signs *= 2
            signs -= mask[part]  # 1, 0 where pruned, or 255, which is -1
            here = flat[part]
            signs_here = torch.as_tensor(signs).view(torch.int8)
            if keep_pruned:
                new = signs_here.to(here.dtype).mul_(self.sigma)
                here.copy_(torch.where(self.mask[part], new, here))
            else:
                here.copy_(signs_here).mul_(self.sigma)
        if not out.is_contiguous():
            out.copy_(flat.view(out.shape))

    def _survivors(self) -> Iterator[tuple[Array, Array]]:
        """Yield the parts of the codes, and where in them the survivors are."""
        codes, mask = array_of(self.codes), array_of(self.mask)
        for part in parts_of(self.mask.numel(), self.mask.device):
            yield codes[part], places_of(mask[part])

    def _here(self, tensor: Tensor) -> Array:
        return array_of(tensor.to(self.mask.device))


def _set(codes: Array, places: Array, positive: Array) -> None:
    """Make the signs at these places of the codes + where a bool array is True, else -."""
    old = codes[places]
    turned = (old & 1) ^ bytes_of(positive)
    turned *= _TURN
    codes[places] = old ^ turned


def read_signs(
    name: str,
    entries: Entries,
    mask: Tensor,
    init: Tensor,
    reference: Reference,
    *,
    center: float = 0.0,
    mix: float = 0.0,
    hidden: bool = False,
    generator: torch.Generator | None = None,
) -> SignField:
    """Read a layer once, part by part: signs, sigma, and whether all is finite.

    Args:
        name: what to call it in an error.
        entries: the trained weight.
        mask: bool tensor of its shape and device.
        init: the initial weight, of its shape, on any device.
        reference: which weight a survivor takes its sign from, or a ``"mixed"`` one.
        center: what a reference is compared with.
        mix: for ``"mixed"``, how probable the trained weight is for each survivor.
        hidden: whether what is stored outside the mask is not part of the weight.
        generator: source of the draws of ``"mixed"``.

    Raises:
        ValueError: if an entry of the trained or the initial weight is NaN or infinite.
    """
    trained, init, mask = _flat_values(entries), init.detach().reshape(-1), mask.reshape(-1)
    size, device = mask.numel(), mask.device
    parts = list(parts_of(size, device))
    survivors = int(sum(count_true(array_of(mask[part])) for part in parts))
    choice = bernoulli(survivors, mix, generator).to(device) if reference == "mixed" else None
    codes = torch.empty(size, dtype=torch.uint8, device=device)
    longest = parts[0].stop if parts else 0
    deviation = Deviation(float(init[0]) if size else 0.0, longest, init.device)
    total = torch.zeros((), device=device)
    # As torch compares: with the centre rounded to the dtype of the weight.
    centers = [float(torch.tensor(center, dtype=each.dtype)) for each in (init, trained)]
    drawn = 0
    for part in parts:
        deviation.add(init[part])
        total += trained[part].sum(dtype=torch.promote_types(trained.dtype, torch.float32))
        alive = array_of(mask[part])
        from_init, init_beyond = _compared(init[part], centers[0], device)
        from_trained, trained_beyond = _compared(trained[part], centers[1], device)
        refers, positive = from_trained, trained_beyond
        if reference == "init":
            refers, positive = from_init, init_beyond
        elif choice is not None:
            places = places_of(alive)
            taken = alive & False
            taken[places] = array_of(choice[drawn : drawn + len(places)])
            drawn += len(places)
            refers = (from_trained & taken) | (from_init & ~taken)
            positive = (trained_beyond & taken) | (init_beyond & ~taken)
        code = bytes_of(positive & alive)
        for bit, other in (
            (_OFF_INIT, from_init),
            (_OFF_TRAINED, from_trained),
            (_OFF_REFERENCE, refers),
        ):
            if other is not positive:
                off = (other ^ positive) & alive
                code = code + bytes_of(off) * bit
        array_of(codes[part])[:] = code
    if not math.isfinite(float(total)):  # NaN or infinite, or a sum that overflowed
        _check_finite("trained", name, trained, mask if hidden else None)
    sigma = deviation.value()
    if math.isnan(sigma):
        _check_finite("init", name, init, None)
        sigma = float(init.double().std(correction=0))
    return SignField(entries, mask, codes, survivors, sigma)


def _compared(values: Tensor, center: float, device: torch.device) -> tuple[Array, Array]:
    """Return which values are at least zero, and which at least the centre."""
    numbers = wide_array_of(values)
    from_zero = _moved(numbers >= 0.0, device)
    return from_zero, _moved(numbers >= center, device) if center else from_zero


def _moved(bools: Array, device: torch.device) -> Array:
    return array_of(torch.as_tensor(bools).to(device))


def _check_finite(role: str, name: str, values: Tensor, only: Tensor | None) -> None:
    if all_finite(values):
        return
    bad = ~values.isfinite()
    if only is not None:
        bad &= only
    if count := int(bad.count_nonzero()):
        raise ValueError(f"{role} weight {name!r} holds {count} NaN or infinite entries")


def _flat_values(entries: Entries) -> Tensor:
    values = entries.values if isinstance(entries.values, Tensor) else entries.values()
    return values.detach().reshape(-1)
