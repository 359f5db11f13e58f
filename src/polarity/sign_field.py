"""The signs that the survivors of one layer are to get: read, perturbed, counted and written."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from polarity.bool_fields import count_true, part_length, places_of
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
_POSITIVE, _OFF_INIT, _OFF_TRAINED, _OFF_REFERENCE = 0, 1, 2, 3
_TURN = 0b1111


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
        for codes, places, mine in self._survivors(turned):
            codes[places[places_of(mine)]] ^= _TURN

    def set(self, positive: Tensor) -> None:
        """Set the signs of all survivors, in order, by a bool tensor."""
        for codes, places, mine in self._survivors(positive):
            _set_at(codes, places, mine)

    def set_some(self, part: slice, some: Tensor, positive: Tensor) -> int:
        """Set the signs of those survivors of a part for which ``some`` is True.

        In order, by the first entries of the bool tensor ``positive``. Returns how many it took.
        """
        places = places_of(some)
        count = places.numel()
        _set_at(self.codes[part], places, positive[:count])
        return count

    def positive(self) -> Tensor:
        """Return which survivors get a +, in order, as a new bool tensor."""
        signs = [(codes[places] & 1).bool() for codes, places, _ in self._survivors(None)]
        return torch.cat(signs)

    def magnitudes(self) -> Tensor:
        """Return the trained magnitudes of the survivors, in order."""
        values, at = _flat_values(self.entries), part_length(self.mask.device)
        parts = zip(values.split(at), self.mask.split(at), strict=True)
        return torch.cat([value[places_of(mask)].abs() for value, mask in parts])

    def report(self, name: str, revived: int = 0) -> LayerSigns:
        """Count the signs."""
        positive, off_init, off_trained, off_reference = (
            self._count(bit) for bit in (_POSITIVE, _OFF_INIT, _OFF_TRAINED, _OFF_REFERENCE)
        )
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
        flat = out.view(-1) if out.is_contiguous() else out.reshape(-1).contiguous()
        at = part_length(flat.device)
        signs = torch.empty(min(at, flat.numel()), dtype=torch.uint8, device=flat.device)
        for part, codes, mask in zip(
            flat.split(at), self.codes.split(at), self.mask.split(at), strict=True
        ):
            sign = torch.bitwise_and(codes, 1, out=signs[: codes.numel()])
            sign = sign.mul_(2).sub_(mask.view(torch.uint8)).view(torch.int8)  # 0 where pruned
            if keep_pruned:
                part.copy_(torch.where(mask, sign.to(part.dtype).mul_(self.sigma), part))
            else:
                part.copy_(sign).mul_(self.sigma)
        if flat.data_ptr() != out.data_ptr():
            out.copy_(flat.view(out.shape))

    def _count(self, bit: int) -> int:
        at = part_length(self.codes.device)
        counts = (
            count_true((part >> bit).bitwise_and_(1).view(torch.bool))
            for part in self.codes.split(at)
        )
        return int(sum(counts))

    def _survivors(self, field: Tensor | None) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield parts of the codes, where in them survivors are, and these survivors' entries."""
        at, start = part_length(self.mask.device), 0
        for codes, mask in zip(self.codes.split(at), self.mask.split(at), strict=True):
            places = places_of(mask)
            mine = places if field is None else field[start : start + places.numel()]
            start += places.numel()
            yield codes, places, mine.to(codes.device)


def _set_at(codes: Tensor, places: Tensor, positive: Tensor) -> None:
    """Make the signs at these places of the codes + where a bool tensor is True, else -."""
    old = codes[places]
    turned = (old & 1) ^ positive.to(codes.device).view(torch.uint8)
    codes[places] = old ^ turned.mul_(_TURN)


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
    at, size = part_length(mask.device), mask.numel()
    codes = torch.empty(size, dtype=torch.uint8, device=mask.device)
    survivors = sum(int(count_true(part)) for part in mask.split(at))
    from_trained = bernoulli(survivors, mix, generator) if reference == "mixed" else None
    deviation = Deviation(float(init[0]) if size else 0.0, min(at, size), init.device)
    total = torch.zeros((), dtype=torch.float32, device=mask.device)
    drawn = 0
    for code, now, first, alive in zip(
        codes.split(at), trained.split(at), init.split(at), mask.split(at), strict=True
    ):
        deviation.add(first)
        total += now.sum(dtype=torch.promote_types(now.dtype, torch.float32))
        now_positive, first_positive = now >= 0, (first >= 0).to(mask.device)
        refers = first_positive if reference == "init" else now_positive
        positive = refers
        if center != 0:
            positive = (first >= center).to(mask.device) if reference == "init" else now >= center
        if from_trained is not None:
            places = places_of(alive)
            taken = torch.zeros_like(alive)
            taken[places] = from_trained[drawn : drawn + places.numel()].to(mask.device)
            drawn += places.numel()
            refers = torch.where(taken, now_positive, first_positive)
            first_beyond = (first >= center).to(mask.device)
            positive = torch.where(taken, now >= center, first_beyond)
        code.copy_(positive.view(torch.uint8))
        for bit, other in (
            (_OFF_INIT, first_positive),
            (_OFF_TRAINED, now_positive),
            (_OFF_REFERENCE, refers),
        ):
            if other is not positive:
                code.add_((other ^ positive).view(torch.uint8), alpha=1 << bit)
        code.mul_(alive.view(torch.uint8))
    if not math.isfinite(float(total)):  # NaN or infinite, or a sum that overflowed
        _check_finite("trained", name, trained, mask if hidden else None)
    sigma = deviation.value()
    if math.isnan(sigma):
        _check_finite("init", name, init, None)
        sigma = float(init.double().std(correction=0))
    return SignField(entries, mask, codes, survivors, sigma)


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
