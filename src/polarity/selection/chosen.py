"""Which entries of many tensors stay: found first, changing nothing, and written where wanted."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from polarity.selection.cpu import HostField
from polarity.selection.cut import find_cut, first_of, ties_of
from polarity.selection.gpu import DeviceField
from polarity.selection.keys import Keys, keys_for
from polarity.selection.passes import KeyField, Space, run

__all__ = ["Chosen", "Entries", "Visitor"]

# Called with a name, a slice of its entries in the order of memory, which of those stay (valid
# during the call), and which of them were alive, if not all. The last two are numpy arrays for a
# tensor on the CPU, and tensors for one that is not.
Visitor: TypeAlias = Callable[[str, slice, Any, Any], None]


@dataclass(frozen=True)
class Entries:
    """A floating tensor, or the way to compute it, and which of its entries take part.

    Attributes:
        values: the tensor, or a function that returns it, the same at each call.
        alive: bool tensor of its shape and on its device, or None for all.
        shape: the shape of the tensor.
        dtype: its dtype.
        device: its device.
    """

    values: Tensor | Callable[[], Tensor]
    alive: Tensor | None
    shape: torch.Size
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, values: Tensor, alive: Tensor | None) -> "Entries":
        """Take a tensor that exists."""
        return cls(values, alive, values.shape, values.dtype, values.device)

    @property
    def memory_order(self) -> tuple[int, ...] | None:
        """The order of dimensions in which values and mask both lie gapless in memory, if any."""
        if not isinstance(self.values, Tensor):
            return None
        strides = self.values.stride()
        order = tuple(sorted(range(self.values.dim()), key=lambda dim: -strides[dim]))
        if self.values.is_contiguous():
            order = tuple(range(self.values.dim()))
        tensors = (self.values,) if self.alive is None else (self.values, self.alive)
        return order if all(each.permute(order).is_contiguous() for each in tensors) else None

    def field(self, name: str, keys: Keys, order: tuple[int, ...] | None) -> KeyField:
        """Return the entries as keys, in this order of dimensions; row-major by a copy if None."""
        alive = self.alive

        def flat() -> Tensor:
            values = self.values if isinstance(self.values, Tensor) else self.values()
            return (values if order is None else values.permute(order)).reshape(-1)

        if alive is not None:
            alive = (alive if order is None else alive.permute(order)).reshape(-1)
        return _field_on(self.device, name, flat, alive, self.shape.numel(), keys, order is None)


def _field_on(
    device: torch.device,
    name: str,
    values: Callable[[], Tensor],
    alive: Tensor | None,
    size: int,
    keys: Keys,
    lazy: bool,
) -> KeyField:
    if device.type == "cpu":
        return HostField(name, values, alive, size, keys, lazy=lazy)
    return DeviceField(name, values, alive, size, keys, device, lazy=lazy)


@dataclass(frozen=True)
class _Place:
    """The cut through one tensor: its keys, the threshold, and each part's ties, all and kept.

    The order is that of the dimensions in the field, None for a row-major copy; ``gone`` says how
    many living entries of each part go.
    """

    field: KeyField
    order: tuple[int, ...] | None
    keys: Keys
    threshold: int
    ties: list[int]
    kept_ties: list[int]
    gone: list[int]

    @property
    def row_major(self) -> bool:
        return self.order is None or self.order == tuple(range(len(self.order)))


class Chosen:
    """The entries that stay: the highest of those alive, and of equal ones the first.

    The first in row-major order within a tensor, the tensors in the order they are given.

    Args:
        entries: tensors by name, in order.
        keep: how many entries of all tensors together stay, or how many of each.
        signed: whether entries rank by value, or by magnitude.
        complaint: see :func:`find_cut`.

    Attributes:
        entries: what was given.
        signed: what was given.
        living: how many entries of each tensor were alive.
        kept: how many of them stay.

    Raises:
        ValueError: the complaint; or if a count is negative or exceeds the number of living
            entries. Where there is a count for each tensor it begins with the tensor's name.
    """

    def __init__(
        self,
        entries: Mapping[str, Entries],
        keep: int | Mapping[str, int],
        *,
        signed: bool,
        complaint: str | None,
    ) -> None:
        self.entries = dict(entries)
        self.signed = signed
        self.living: dict[str, int] = {}
        self.kept: dict[str, int] = {}
        self._places: dict[str, _Place] = {}
        if not isinstance(keep, Mapping):
            self._cut(list(entries), keep, signed, complaint)
            return
        for name in entries:
            try:
                self._cut([name], keep[name], signed, complaint)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None

    def _cut(self, names: list[str], keep: int, signed: bool, complaint: str | None) -> None:
        keys = keys_for((self.entries[name].dtype for name in names), signed=signed)
        orders = [self.entries[name].memory_order for name in names]
        fields = [
            self.entries[name].field(name, keys, order)
            for name, order in zip(names, orders, strict=True)
        ]
        living = sum(field.living for field in fields)
        if not 0 <= keep <= living:
            raise ValueError(f"keep={keep} is not between 0 and the {living} living entries")
        cut = find_cut(fields, living - keep, keys, complaint=complaint)
        for at, (name, field) in enumerate(zip(names, fields, strict=True)):
            self.living[name], self.kept[name] = field.living, field.living - sum(cut.gone[at])
            self._places[name] = _Place(
                field,
                orders[at],
                keys,
                cut.threshold,
                cut.ties[at],
                cut.kept_ties[at],
                cut.gone[at],
            )

    def in_place(self, name: str) -> bool:
        """Whether :meth:`visit` can be asked for a tensor.

        Not if it has no order in memory; nor if that order is not row-major and the tensor keeps
        some of its entries at the threshold and drops others, for those kept are the first.
        """
        place = self._places[name]
        torn = 0 < sum(place.kept_ties) < sum(place.ties)
        return place.order is not None and (place.row_major or not torn)

    def order(self, name: str) -> tuple[int, ...] | None:
        """Return the order of dimensions in which :meth:`visit` goes through a tensor."""
        return self._places[name].order

    def gone(self, name: str) -> tuple[list[slice], list[int]]:
        """Return the parts in which :meth:`visit` goes through a tensor, and what goes in each."""
        return self._places[name].field.parts, self._places[name].gone

    def in_memory(self, name: str, like: Tensor) -> Any:
        """Return a tensor's memory in the order of :meth:`visit`, as an array if that gives any."""
        order = self._places[name].order
        assert order is not None
        flat = like.permute(order).view(-1)
        return flat.numpy() if isinstance(self._places[name].field, HostField) else flat

    def visit(self, names: Iterable[str], visitor: Visitor) -> None:
        """Call ``visitor`` for every part of the named tensors, perhaps from several threads."""
        _visit([self._places[name] for name in names], visitor)

    def new_mask(self, name: str) -> Tensor:
        """Return a new row-major bool tensor of the entries of a tensor that stay."""
        entries, place = self.entries[name], self._places[name]
        if not place.row_major:
            field = entries.field(name, place.keys, None)
            ties = ties_of(field, place.keys, place.threshold)
            kept_ties = first_of(ties, sum(place.kept_ties))
            place = replace(place, field=field, ties=ties, kept_ties=kept_ties)
        mask = torch.empty(entries.shape, dtype=torch.bool, device=entries.device)
        flat = mask.view(-1)
        target = flat.numpy() if isinstance(place.field, HostField) else flat

        def write(_: str, part: slice, kept: Any, alive: Any) -> None:
            target[part] = kept

        _visit([place], write)
        return mask


def _visit(places: list[_Place], visitor: Visitor) -> None:
    for keys in {place.keys for place in places}:
        mine = [place for place in places if place.keys == keys]

        def work(at: int, part: int, space: Space, mine: list[_Place] = mine) -> None:
            place = mine[at]
            where = place.field.parts[part]
            kept = place.field.kept(
                where, place.threshold, place.ties[part], place.kept_ties[part], space
            )
            alive = None if place.field.alive is None else place.field.alive[where]
            visitor(place.field.name, where, kept, alive)

        run([place.field for place in mine], keys, work)
