"""Signed masks: what remains of a network when every magnitude is forgotten."""

import warnings
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from typing_extensions import Self

from polarity.attach.masks import mask_weights
from polarity.targets.search import all_targets, attached
from polarity.targets.selectors import Selector, select
from polarity.targets.target import Target
from polarity.tickets.file import Contents, read_ticket, write_ticket
from polarity.tickets.packing import check_signs
from polarity.tickets.table import ticket_table

__all__ = ["SignedMask", "signed_mask"]

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, eq=False, repr=False)
class SignedMask:
    r"""A mask and the sign of every survivor: a ticket for any initialisation of a network.

    :func:`signed_mask` takes it from a pruned network, :meth:`apply` gives it to a fresh one, and
    it travels as a small file. Tensors are keyed by plain names and live on the CPU.

    Attributes:
        signs: int8 tensors of −1, 0 and +1 in the shape of their weight. A pruned entry is 0; so
            is a survivor that happened to be exactly zero, which takes the sign of whatever
            initialisation it meets.
        masks: bool tensors, True for survivors, of the weights that are masked. What ``signs``
            names and ``masks`` does not, lends its signs alone.
        network: name and shape of every parameter of the network that the ticket was found in;
            empty where it is not known.
        recipe: how the ticket was found, in the finder's own words; saved with it.

    Raises:
        TypeError: if ``signs`` are not int8 or ``masks`` not bool.
        ValueError: if ``signs`` hold another value, lack a masked weight, have another shape than
            the mask or the network's parameter, or are not 0 outside the mask.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> import polarity as pol
        >>> trained = nn.Linear(4, 1, bias=False)
        >>> _ = trained.weight.data.copy_(torch.tensor([[-0.9, 0.1, 0.8, -0.2]]))
        >>> _ = pol.imp_prune(trained, density=0.5)
        >>> ticket = pol.signed_mask(trained)
        >>> ticket
        SignedMask(1 masked weight, density=0.5 of 4 entries)
        >>> ticket.signs["weight"]
        tensor([[-1,  0,  1,  0]], dtype=torch.int8)
        >>> fresh = nn.Linear(4, 1, bias=False)
        >>> _ = fresh.weight.data.copy_(torch.tensor([[0.3, 0.3, -0.4, 0.5]]))
        >>> ticket.apply(fresh).weight.detach()
        tensor([[-0.3000,  0.0000,  0.4000,  0.0000]])

    Source: *Find A Winning Sign*, section 3.1 (the signed mask :math:`s`) and section 4.
    """

    signs: dict[str, Tensor]
    masks: dict[str, Tensor]
    network: Shapes = field(default_factory=dict)
    recipe: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._check_names()
        for name, signs in self.signs.items():
            mask = self.masks.get(name)
            try:
                check_signs(signs, signs != 0 if mask is None else mask)
            except (TypeError, ValueError) as error:
                raise type(error)(f"{name!r}: {error}") from None

    def _check_names(self) -> None:
        for name in self.masks:
            if name not in self.signs:
                raise ValueError(f"signs lack {name!r}, which is masked")
        for name, signs in self.signs.items():
            if self.network and self.network.get(name) != (shape := tuple(signs.shape)):
                known = self.network.get(name, "not among its parameters")
                raise ValueError(f"{name!r} has shape {shape}, but in network it is {known}")

    @property
    def names(self) -> tuple[str, ...]:
        """Every tensor that the ticket gives signs to, masked or not, in the network's order."""
        return tuple(self.signs)

    @property
    def density(self) -> float:
        """The fraction of entries that live, over all masked weights together."""
        total = sum(mask.numel() for mask in self.masks.values())
        alive = sum(int(mask.count_nonzero()) for mask in self.masks.values())
        return alive / total if total else 1.0

    @torch.no_grad()
    def apply(self, model: nn.Module, *, strict: bool = True, verbose: bool = False) -> nn.Module:
        r"""Give a network the ticket's masks and signs, with its own magnitudes, in place.

        .. math:: \theta = |\theta_{init}| \odot s

        Survivors keep the magnitude they have in ``model`` and take the ticket's sign; those
        without a sign keep their own. Pruned entries become 0, and a mask that enforces it is
        attached (a mask that was there is replaced, a Sign-In weight stays one). Tensors that the
        ticket signs without a mask take the signs in place. Nothing else is touched.

        Args:
            model: a network of the ticket's structure, on any device, in any floating dtype, with
                or without masks. Its effective weights are the magnitudes.
            strict: whether every parameter has to have a name and shape of the network that the
                ticket was found in, or only those the ticket signs (for another classifier, say).
            verbose: print the table of what was touched.

        Returns:
            The model.

        Raises:
            ValueError: if a name or shape differs (the first is named), or a weight cannot be
                masked, or holds NaN or infinite values; the model is left as it was.

        Warns:
            UserWarning: if survivors are exactly 0 in ``model``, which leaves them without
                their sign: a zero-initialised layer, or one that was pruned already.
        """
        targets = self._targets(model, strict)
        starts = {name: self._start(name, target.weight) for name, target in targets.items()}
        if self.masks:
            mask_weights(model, masks=self.masks)
        for name, start in starts.items():
            targets[name].write(start)
        zeros = {name: self._zeros(name, start) for name, start in starts.items()}
        if without := [name for name, count in zeros.items() if count]:
            warnings.warn(
                f"{sum(zeros.values())} entries are 0 in this initialisation and start without the "
                f"ticket's sign, the first of them in {without[0]!r}",
                stacklevel=3,  # past no_grad
            )
        if verbose:
            print(ticket_table(self.signs, self.masks, zeros))
        return model

    def save(self, path: str | Path, *, recipe: Mapping[str, str] | None = None) -> None:
        """Write the ticket to a safetensors file, at no more than 2 bits per entry.

        Args:
            path: the file, conventionally ``*.safetensors``.
            recipe: how the ticket was found, as words under words; by default its own
                :attr:`recipe`.

        Raises:
            ImportError: if safetensors is not installed.
            TypeError: if the recipe holds anything but strings.

        Example:
            >>> import tempfile
            >>> from torch import nn
            >>> import polarity as pol
            >>> ticket = pol.signed_mask(pol.mask_weights(nn.Linear(3, 2)))
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     ticket.save(f"{folder}/ticket.safetensors", recipe={"method": "LRR"})
            ...     copy = pol.SignedMask.load(f"{folder}/ticket.safetensors")
            >>> copy == ticket, copy.recipe
            (True, {'method': 'LRR'})
        """
        words = dict(self.recipe if recipe is None else recipe)
        for key, value in words.items():
            if not isinstance(key, str) or not isinstance(value, str):
                raise TypeError(f"recipe holds {key!r}: {value!r}, expected strings")
        write_ticket(path, Contents(self.signs, self.masks, self.network, words))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a file of :meth:`save`; nothing in it is executed.

        Raises:
            ImportError: if safetensors is not installed.
            FileNotFoundError: if there is no such file.
            ValueError: if the file is not a ticket, is damaged, or of a version unknown here.
        """
        ticket = cls.__new__(cls)
        # Signs that come out of their bits are in order: checking them again takes a pass over all.
        for key, value in read_ticket(path)._asdict().items():
            object.__setattr__(ticket, key, value)
        try:
            ticket._check_names()
        except ValueError as error:
            raise ValueError(f"{path} is damaged: {error}") from None
        return ticket

    def __eq__(self, other: object) -> bool:
        """Whether both hold the same signs and masks; how they were found does not matter."""
        if not isinstance(other, SignedMask):
            return NotImplemented
        return _same(self.signs, other.signs) and _same(self.masks, other.masks)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        weights = f"{len(self.masks)} masked weight{'s' * (len(self.masks) != 1)}"
        total = sum(mask.numel() for mask in self.masks.values())
        alone = len(self.signs) - len(self.masks)
        others = f", the signs of {alone} more" if alone else ""
        return f"SignedMask({weights}, density={self.density:.4g} of {total} entries{others})"

    def __str__(self) -> str:
        return ticket_table(self.signs, self.masks)

    def _targets(self, model: nn.Module, strict: bool) -> dict[str, Target]:
        """Return the tensors of ``model`` that the ticket signs, if names and shapes agree."""
        have = _by_name(model)
        tied = {alias: name for name, target in have.items() for alias in target.aliases}
        wanted = {name: tuple(signs.shape) for name, signs in self.signs.items()}
        if strict and self.network:
            wanted = self.network | wanted
        for name, shape in wanted.items():
            if name not in have:
                where = f"ties to {tied[name]!r}" if name in tied else "lacks"
                raise ValueError(f"the ticket holds {name!r}, which the model {where}")
            if tuple(have[name].shape) != shape:
                raise ValueError(
                    f"the ticket holds {name!r} in shape {shape}, "
                    f"but the model's is {tuple(have[name].shape)}"
                )
        extra = [name for name in have if name not in wanted]
        if strict and self.network and extra:
            raise ValueError(f"the ticket lacks {extra[0]!r}, which the model has")
        return {name: have[name] for name in self.signs}

    def _start(self, name: str, init: Tensor) -> Tensor:
        signs = self.signs[name].to(init.device)
        # Adding +0.0 makes a negative zero positive and leaves the rest alone.
        start = torch.where(signs == 0, init, torch.copysign(init, signs)) + 0.0
        if bad := int((~start.isfinite()).count_nonzero()):
            raise ValueError(f"the model's {name!r} holds {bad} NaN or infinite entries")
        return start

    def _zeros(self, name: str, start: Tensor) -> int:
        """Count the entries whose sign is lost because they have no magnitude."""
        return int(((self.signs[name].to(start.device) != 0) & (start == 0)).count_nonzero())


@torch.no_grad()
def signed_mask(model: nn.Module, *, include: Selector | None = None) -> SignedMask:
    r"""Take the mask and the signs of a pruned network, and nothing else.

    .. math:: s = \operatorname{sign}(\theta) \odot m

    Signs are read through the mask: what is stored or set aside outside it has no part in the
    ticket. That holds too for a mask that is remembered without being enforced (strategy
    ``standard``): the entries that it calls pruned are pruned in the ticket, whatever they grew to.
    A survivor that is exactly zero (of either sign) stays a survivor; it has no sign.

    Args:
        model: a network with masked weights.
        include: parameters that lend their signs though they carry no mask: a module type (all
            that modules of this type hold themselves), a parameter name, a module name or glob
            (all below), a predicate ``(name, parameter) -> bool``, or several of these. None by
            default. The paper's code takes the classifier and the biases beside the pruned
            weights, ``include=(nn.Linear, nn.Conv2d)``, and leaves normalisation alone.

    Returns:
        The :class:`SignedMask`, on the CPU. The model is not changed.

    Raises:
        ValueError: if the model carries no mask, ``include`` matches nothing, or a tensor holds
            NaN or infinite survivors, is lazy, or is not floating point; it is named.
        TypeError: if a selector is of another type.

    Example:
        >>> from torch import nn
        >>> import polarity as pol
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
        >>> _ = pol.mask_weights(model, exclude="2")
        >>> signed_mask(model).names
        ('0.weight',)
        >>> signed_mask(model, include=nn.Linear).names
        ('0.weight', '0.bias', '2.weight', '2.bias')

    Source: *Find A Winning Sign*, section 3.1; its official code for ``include``.
    """
    masked = attached(model)
    if not masked:
        raise ValueError(f"{type(model).__name__} has no masked weights; prune it first")
    everything = _by_name(model)
    taken = _included(everything.values(), include) | set(masked)
    signs, masks = {}, {}
    for name, target in everything.items():
        if name not in taken:
            continue
        weight = target.weight
        if not weight.is_floating_point():
            raise ValueError(f"{name} is of dtype {weight.dtype}, expected floating point")
        if name in masked:
            weight = weight.masked_fill(~target.mask, 0)
            masks[name] = target.mask.cpu().contiguous()
        if bad := int((~weight.isfinite()).count_nonzero()):
            raise ValueError(f"{name} holds {bad} NaN or infinite entries, which have no sign")
        signs[name] = weight.sign().to(torch.int8).cpu().contiguous()
    network = {name: tuple(target.shape) for name, target in everything.items()}
    return SignedMask(signs, masks, network)


def _included(everything: Collection[Target], include: Selector | None) -> set[str]:
    """Return the targets' names among which ``include`` finds one of their uses."""
    if include is None:
        return set()
    uses = [use for target in everything for use in target.uses]
    one = isinstance(include, (str, type, nn.Module)) or not isinstance(include, Iterable)
    chosen: set[str] = set()
    for each in cast(Iterable[object], (include,) if one else include):
        if isinstance(each, type) and issubclass(each, nn.Module):
            # All that such a module holds, biases too; find_targets would look for weights.
            found = {use.name for use in uses if isinstance(use.module, each)}
            if not found:
                raise ValueError(f"include={each.__name__} matches nothing")
        else:
            found = select(uses, cast(Selector, each), "include")
        chosen |= found
    return {target.name for target in everything if chosen & {use.name for use in target.uses}}


def _by_name(model: nn.Module) -> dict[str, Target]:
    """Return every parameter of the model, tied ones once, by its first plain name."""
    targets = {target.name: target for target in all_targets(model)}
    for name, target in targets.items():
        if is_lazy(target.stored[0]):
            raise ValueError(f"{name} is lazy: run one batch through the model first")
    return targets


def _same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
