"""A mask and the signs of its survivors: check it, apply it to a network, save and load it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from typing_extensions import Self

from polarity._checks import (
    check_entries,
    check_flag,
    check_mapping,
    check_names,
    check_shape,
    check_type,
)
from polarity._running import outside_inference_mode
from polarity._shards import is_sharded, piece_of
from polarity._warnings import warn_caller
from polarity.attach.masks import before_masking, set_masks
from polarity.targets.dense_leaves import on_dense_leaves
from polarity.targets.search import all_targets, find_targets
from polarity.targets.shards import added, ranks_of, ranks_of_model, together
from polarity.targets.target import Target
from polarity.tickets.file import Contents, packed_by_ranks, read_ticket, write_ticket
from polarity.tickets.packing import check_signs
from polarity.tickets.table import ticket_table

__all__ = ["SignedMask", "targets_by_name"]

Shapes = dict[str, tuple[int, ...]]
Tensors = dict[str, Tensor]


@dataclass(frozen=True, eq=False, repr=False)
class SignedMask:
    r"""A mask and the sign of every survivor: a ticket for any initialisation of a network.

    :func:`signed_mask` takes it from a pruned network, :meth:`apply` applies it to another one,
    and :meth:`save` writes it to a small file. Tensors are on the CPU, under plain names. Those of
    a model that ``fully_shard`` has divided are divided like it, so that each rank has its rows of
    the ticket: ``==`` compares these and ``print`` counts these, without asking other ranks.

    Attributes:
        signs: int8 tensors of −1, 0 and +1 in the shape of their weight. A pruned entry is 0; so
            is a survivor that was exactly zero, which takes its sign from the initialisation that
            the ticket is applied to.
        masks: bool tensors, True for survivors, of the weights that are masked. A tensor that only
            ``signs`` names has signs but no mask.
        network: name and shape of every parameter of the network that the ticket was found in;
            empty if not known.
        recipe: how the ticket was found, in free text; saved with it.

    Raises:
        TypeError: if ``signs`` are not int8 or ``masks`` not bool.
        ValueError: if ``signs`` hold another value, are missing a masked weight, have another shape
            than the mask or the network's parameter, or are not 0 outside the mask.

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
        check_mapping("signs", self.signs, "{name: int8 tensor}")
        check_mapping("masks", self.masks, "{name: bool tensor}")
        check_mapping("network", self.network, "{name: shape}")
        _check_recipe(self.recipe)
        for role, tensors in (("signs", self.signs), ("masks", self.masks)):
            for name, each in tensors.items():
                check_type(f"{role}[{name!r}]", each, Tensor, "a tensor")
        for name, shape in self.network.items():
            check_type(f"network[{name!r}]", shape, (tuple, list), "a shape: (3, 5), for instance")
        self._check_names()
        for name, signs in self.signs.items():
            mask = self.masks.get(name)
            try:
                check_signs(*_pieces(signs, mask))
            except (TypeError, ValueError) as error:
                raise type(error)(f"{name!r}: {error}") from None

    def _check_names(self) -> None:
        """Raise unless signs, masks and network belong together."""
        check_names("signs", self.signs, self.signs, needed=self.masks, what="masked")
        if self.network:
            check_names("signs", self.signs, self.network, needed=(), what="in network")
            for name, signs in self.signs.items():
                check_shape("signs", name, signs.shape, self.network[name], "network")

    @property
    def names(self) -> tuple[str, ...]:
        """Every tensor that the ticket gives signs to, masked or not, in the network's order."""
        return tuple(self.signs)

    @property
    def density(self) -> float:
        """The fraction of entries that survive, over all masked weights and ranks together."""
        total = sum(mask.numel() for mask in self.masks.values())
        here = {"": sum(int(piece_of(mask).count_nonzero()) for mask in self.masks.values())}
        survivors = added(ranks_of(self.signs.values(), "the ticket"), here)[""]
        return survivors / total if total else 1.0

    @outside_inference_mode
    @torch.no_grad()
    @on_dense_leaves
    def apply(self, model: nn.Module, *, strict: bool = True, verbose: bool = False) -> nn.Module:
        r"""Give a network the ticket's masks and signs, with its own magnitudes, in place.

        .. math:: \theta = |\theta_{init}| \odot s

        Survivors keep the magnitude they have in ``model`` and take the ticket's sign; those
        without a sign keep their own. Pruned entries become 0, and a mask that enforces it is
        attached (an earlier mask is replaced, a Sign-In weight stays one). Tensors that the ticket
        signs without a mask take the signs in place. Nothing else is changed.

        Args:
            model: a network of the ticket's structure, on any device, in any floating dtype, with
                or without masks. Its effective weights give the magnitudes.
            strict: whether all parameters must have the names and shapes of the network that the
                ticket was found in, or only those that the ticket signs (for another classifier,
                say).
            verbose: print the table of what was changed.

        Returns:
            The model.

        Raises:
            ValueError: if a name or shape differs (the first is named), or a weight cannot be
                masked, holds NaN or infinite values, or has a further parametrization without
                ``right_inverse``; the model is left as it was.
            TypeError: if ``model`` is not a module.

        Warns:
            UserWarning: if survivors are exactly 0 in ``model``, which leaves them without
                their sign: a zero-initialised layer, or one that was pruned before.
        """
        check_flag("strict", strict)
        check_flag("verbose", verbose)
        ranks = ranks_of_model(model)
        found, masks, pairs, zeros = together(
            ranks, lambda: self._prepared(model, strict), self.names, strict
        )
        zeros = added(ranks, zeros)
        if without := [name for name, count in zeros.items() if count]:
            warn_caller(
                f"{sum(zeros.values())} entries are 0 in this initialisation and start without the "
                f"ticket's sign, the first of them in {without[0]!r}",
            )
        set_masks(found, masks, pairs)  # after the warning, which users may make an error
        if verbose:
            print(ticket_table(self.signs, self.masks, zeros))
        return model

    def _prepared(
        self, model: nn.Module, strict: bool
    ) -> tuple[dict[str, Target], Tensors, list[tuple[Tensor, Tensor]], dict[str, int]]:
        """Return what to mask, the masks, what to write, and the entries that lose their sign."""
        targets = self._targets(model, strict)
        signs = {n: target.piece(self.signs[n], "ticket") for n, target in targets.items()}
        starts = {n: _start(n, target.weight, signs[n]) for n, target in targets.items()}
        found = self._maskable(model)
        masks = {n: targets[n].piece(mask, "ticket") for n, mask in self.masks.items()}
        pairs: list[tuple[Tensor, Tensor]] = []
        for name, start in starts.items():
            mask = masks[name].to(start.device) if name in masks else None
            pairs += targets[name].staged_under(start, mask)
        before_masking(model, found, "SignedMask.apply")
        return found, masks, pairs, {n: _zeros(start, signs[n]) for n, start in starts.items()}

    def save(self, path: str | Path, *, recipe: Mapping[str, str] | None = None) -> None:
        """Write the ticket to a safetensors file, at no more than 2 bits per entry.

        Args:
            path: the file, conventionally ``*.safetensors``.
            recipe: how the ticket was found, strings by name; by default its own :attr:`recipe`.

        Raises:
            ImportError: if safetensors is not installed.
            TypeError: if the recipe holds anything but strings, or ``path`` is no path.
            ValueError: if ``path`` is a folder.
            FileNotFoundError: if ``path`` is in a folder that does not exist.

        A ticket that is divided among ranks becomes the same file: all ranks call, and the first of
        them writes it. It is sent the bits of one weight at a time and holds the file's bytes, at
        most 2 bits per entry; what fails there raises on every rank.

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
        words = self.recipe if recipe is None else recipe
        _check_recipe(words)
        contents = Contents(self.signs, self.masks, self.network, dict(words))
        ranks = ranks_of(self.signs.values(), "the ticket")
        packed = packed_by_ranks(contents, ranks)
        first = ranks is None or ranks.index == 0
        together(ranks, lambda: write_ticket(path, contents, packed) if first else None)

    @classmethod
    @outside_inference_mode
    def load(cls, path: str | Path) -> Self:
        """Read a file of :meth:`save`, without executing anything in it.

        Raises:
            ImportError: if safetensors is not installed.
            FileNotFoundError: if there is no such file.
            ValueError: if the file is not a ticket, is damaged, or of a version unknown here.
        """
        ticket = cls.__new__(cls)
        # Signs that were unpacked from bits are valid: only names and shapes are checked.
        for key, value in read_ticket(path)._asdict().items():
            object.__setattr__(ticket, key, value)
        try:
            ticket._check_names()
        except ValueError as error:
            raise ValueError(f"{path} is damaged: {error}") from None
        return ticket

    def __eq__(self, other: object) -> bool:
        """Return whether both hold the same signs and masks; the recipes are not compared."""
        if not isinstance(other, SignedMask):
            return NotImplemented
        return _same(self.signs, other.signs) and _same(self.masks, other.masks)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        weights = f"{len(self.masks)} masked weight{'s' * (len(self.masks) != 1)}"
        if any(map(is_sharded, self.signs.values())):  # counting would make other ranks wait
            return f"SignedMask({weights}, sharded)"
        total = sum(mask.numel() for mask in self.masks.values())
        alone = len(self.signs) - len(self.masks)
        others = f", the signs of {alone} more" if alone else ""
        return f"SignedMask({weights}, density={self.density:.4g} of {total} entries{others})"

    def __str__(self) -> str:
        return ticket_table(self.signs, self.masks)

    def _targets(self, model: nn.Module, strict: bool) -> dict[str, Target]:
        """Return the tensors of ``model`` that the ticket signs, if names and shapes agree."""
        have = targets_by_name(model)
        tied = {alias: name for name, target in have.items() for alias in target.aliases}
        whole = strict and self.network
        wanted = {name: tuple(signs.shape) for name, signs in self.signs.items()}
        if whole:
            wanted = self.network | wanted
        for name in wanted:
            if name in tied:
                raise ValueError(f"ticket holds {name!r}, which the model ties to {tied[name]!r}")
        check_names("ticket", wanted, have, needed=have if whole else ())
        for name, shape in wanted.items():
            check_shape("ticket", name, shape, have[name].shape)
        return {name: have[name] for name in self.signs}

    def _maskable(self, model: nn.Module) -> dict[str, Target]:
        """Return the weights that the ticket masks, after a check that they can be."""
        if not self.masks:
            return {}
        found = find_targets(model, tuple(self.masks))
        for name in self.masks:
            if name not in found:
                why = found.skipped.get(name, "not among the prunable weights")
                raise ValueError(f"masks holds {name!r}, which is {why}")
        return dict(found)


def _start(name: str, init: Tensor, signs: Tensor) -> Tensor:
    """Return the magnitudes of a weight with a ticket's signs."""
    check_entries(f"weight {name!r}", init)
    signs = signs.to(init.device)
    # Adding +0.0 makes a negative zero positive and leaves the rest alone.
    return torch.where(signs == 0, init, torch.copysign(init, signs)) + 0.0


def _zeros(start: Tensor, signs: Tensor) -> int:
    """Count the entries whose sign is lost because they have no magnitude."""
    return int(((signs.to(start.device) != 0) & (start == 0)).count_nonzero())


def targets_by_name(model: nn.Module) -> dict[str, Target]:
    """Return every parameter of the model, tied ones once, by its first plain name."""
    targets = {target.name: target for target in all_targets(model)}
    for name, target in targets.items():
        if is_lazy(target.stored[0]):
            raise ValueError(f"{name} is lazy: run one batch through the model first")
    return targets


def _check_recipe(recipe: object) -> None:
    """Raise unless a recipe is made of strings by name."""
    check_mapping("recipe", recipe, "{name: text}")
    for key, value in recipe.items():  # type: ignore[attr-defined]
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(f"recipe holds {key!r}: {value!r}, expected strings")


def _same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Return whether tensors are equal, of divided ones what is here."""
    return one.keys() == other.keys() and all(
        is_sharded(one[name]) == is_sharded(other[name])
        and torch.equal(piece_of(one[name]), piece_of(other[name]))
        for name in one
    )


def _pieces(signs: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return what is here of signs and mask; without a mask, where there is a sign."""
    here = piece_of(signs)
    return here, here != 0 if mask is None else piece_of(mask)
