"""The signs of one layer before perturbation, read in one pass with sigma and the errors."""

import math
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from polarity._bits.arrays import Array, array_of, parts_of, wide_parts
from polarity._bits.bits import Bits
from polarity._bits.random_fields import chances
from polarity.selection.chosen import Entries
from polarity.selection.top_k import all_finite
from polarity.signs.deviation import Deviation
from polarity.signs.layer import SignField, values_of

__all__ = ["Reference", "read_signs"]

Reference: TypeAlias = Literal["init", "trained", "mixed"]


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
    trained, init, mask = values_of(entries), init.detach().reshape(-1), mask.reshape(-1)
    size, device = mask.numel(), mask.device
    parts = list(parts_of(size, device))
    # As torch compares: with the centre rounded to the dtype of the weight.
    centers = [float(torch.tensor(center, dtype=each.dtype)) for each in (init, trained)]
    living, alive = Bits.zeros(size, device), array_of(mask)
    was, now = _Signs(init, device, centers[0]), _Signs(trained, device, centers[1])
    deviation = Deviation(parts[0].stop if parts else 0, init.device)
    init_of, trained_of = wide_parts(init), wide_parts(trained)
    total: Any = 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        for part in parts:
            living.put(part, alive[part])
            values = init_of(part)
            deviation.add(values)
            was.read(part, values)
            values = trained_of(part)
            total += torch.as_tensor(values).sum()  # which is twice as fast as numpy's
            now.read(part, values)
    if not math.isfinite(float(total)):  # NaN or infinite, or a sum that overflowed
        _check_finite("trained", name, trained, mask if hidden else None)
    sigma = _sigma(name, init, parts, deviation)
    chosen = chances(size, mix, generator).to(device) if reference == "mixed" else None
    from_init, init_beyond = was.of(living)
    from_trained, trained_beyond = now.of(living)
    refers, new = from_trained, trained_beyond
    if reference == "init":
        refers, new = from_init, init_beyond
    elif chosen is not None:
        refers = _mixed(from_init, from_trained, chosen)
        new = _mixed(init_beyond, trained_beyond, chosen)
    new = Bits(size, new.data | new.data)  # by itself, for it will change
    return SignField(
        entries, mask, living, new, from_init, from_trained, refers, living.count(), sigma
    )


class _Signs:
    """Which entries of a weight are at least zero, and which at least a centre."""

    def __init__(self, weight: Tensor, device: torch.device, center: float) -> None:
        self._elsewhere = device if weight.device != device else None
        self._center = center
        self._from_zero = Bits.zeros(weight.numel(), device)
        self._beyond = Bits.zeros(weight.numel(), device) if center else self._from_zero

    def read(self, part: slice, numbers: Array) -> None:
        """Look at a part."""
        self._from_zero.put(part, self._here(numbers >= 0.0))
        if self._center:
            self._beyond.put(part, self._here(numbers >= self._center))

    def of(self, living: Bits) -> tuple[Bits, Bits]:
        """Return which of the living entries."""
        both = self._from_zero, self._beyond
        for each in both if self._center else both[:1]:
            data = each.data
            data &= living.data
        return both

    def _here(self, bools: Array) -> Array:
        if self._elsewhere is None:
            return bools
        return array_of(torch.as_tensor(bools).to(self._elsewhere))


def _mixed(one: Bits, other: Bits, chosen: Bits) -> Bits:
    """Return bits of the other where chosen, else of the one."""
    return Bits(one.size, one.data ^ ((one.data ^ other.data) & chosen.data))


def _sigma(name: str, init: Tensor, parts: list[slice], deviation: Deviation) -> float:
    """Return the deviation of the initial weight, of which one pass has seen everything."""
    if not deviation.is_exact:
        deviation = Deviation(parts[0].stop, init.device, origin=float(init[0]))
        init_of = wide_parts(init)
        for part in parts:
            deviation.add(init_of(part))
    sigma = deviation.value()
    if math.isnan(sigma):
        _check_finite("init", name, init, None)
        sigma = float(init.double().std(correction=0))
    return sigma


def _check_finite(role: str, name: str, values: Tensor, only: Tensor | None) -> None:
    if all_finite(values):
        return
    bad = ~values.isfinite()
    if only is not None:
        bad &= only
    if count := int(bad.count_nonzero()):
        raise ValueError(f"{role} weight {name!r} holds {count} NaN or infinite entries")
