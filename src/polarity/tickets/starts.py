"""Start a sparse network from a learned mask, with the signs or the magnitudes of a moment.

These are the re-initialisations of *Sign-In to the Lottery*, Table 1.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from polarity._bits.random import coins, seed_from, state_of, undrawn_on_error, words_in
from polarity._checks import (
    check_entries,
    check_generator,
    check_names,
    check_shape,
    check_type,
)
from polarity._running import outside_inference_mode
from polarity.attach.masks import before_masking, checked_masks, set_masks
from polarity.rewind import RewindPoint, weights_of
from polarity.targets.dense_leaves import on_dense_leaves
from polarity.targets.search import find_targets
from polarity.targets.shards import ranks_of, ranks_of_model, together
from polarity.targets.target import Target
from polarity.tickets.signed_mask import SignedMask
from polarity.tickets.start_report import LayerStart, StartReport

__all__ = ["start_from_magnitudes", "start_from_mask", "start_from_signs"]

Masks: TypeAlias = SignedMask | Mapping[str, Tensor]
Signs: TypeAlias = SignedMask | RewindPoint | Mapping[str, Tensor]
Magnitudes: TypeAlias = RewindPoint | Mapping[str, Tensor]


@outside_inference_mode
@on_dense_leaves
def start_from_signs(model: nn.Module, signs: Signs, masks: Masks) -> StartReport:
    r"""Give a freshly initialised network a learned mask and the signs of a moment, in place.

    .. math:: \theta = |\theta_\mathrm{init}| \odot s_k \odot M

    Survivors keep the magnitude that they have in ``model`` and take the sign :math:`s_k` of the
    moment (of epoch :math:`k`, or the final one). The mask may be another one than at that moment
    (RigL, AC/DC): survivors that had no sign then keep the initialisation's own, and the report
    counts them. Masks are attached and enforced, earlier ones replaced. Weights that ``masks`` does
    not name, biases and norms are left as they are.

    Args:
        model: a freshly initialised network, plain, masked or Sign-In: a new one, or
            :func:`polarity.reinitialize` of one without pruned entries. Its effective weights give
            the magnitudes.
        signs: ``SignTracker.signs(moment)``, a :class:`SignedMask`, a :class:`RewindPoint`, or
            ``{plain name: tensor}`` of weights or signs, which may hold other names too. Of an STR
            run: ``dense_to_sparse.weights_before_threshold(model)``.
        masks: the learned mask of each weight, ``pol.masks(trained)``, or a :class:`SignedMask`. Of
            an STR run: ``dense_to_sparse.soft_mask(trained)``.

    Returns:
        The :class:`StartReport`; ``missing`` counts the survivors without a sign.

    Raises:
        ValueError: if a name or shape differs, values are NaN or infinite or, of a mask, others
            than zeros and ones, or a weight cannot be masked. The model is left as it was.
        TypeError: if an argument is of another type.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> fresh = nn.Linear(4, 1, bias=False)
        >>> _ = fresh.weight.data.copy_(torch.tensor([[0.5, 0.25, -0.5, -2.0]]))
        >>> epoch_10 = {"weight": torch.tensor([[-0.1, 0.3, 0.0, 0.2]])}
        >>> report = start_from_signs(fresh, epoch_10, {"weight": torch.tensor([[1, 0, 1, 1]])})
        >>> fresh.weight.detach()
        tensor([[-0.5000,  0.0000, -0.5000,  2.0000]])
        >>> report.survivors, report.missing
        (3, 1)

    Source: *Sign-In to the Lottery*, Table 1, "Epoch 10 sign + learned mask".
    """
    held = signs.signs if isinstance(signs, SignedMask) else weights_of(signs, "signs")
    given = _checked(model, "signs", held, masks)

    def started(name: str, init: Tensor) -> tuple[Tensor, Tensor]:
        sign = given.values[name].to(init.device)
        taken = torch.copysign(init, sign.to(init.dtype))
        return torch.where(sign == 0, init, taken), sign == 0

    return _start("signs", given, started)


@outside_inference_mode
@on_dense_leaves
def start_from_magnitudes(
    model: nn.Module,
    magnitudes: Magnitudes,
    masks: Masks,
    *,
    generator: torch.Generator | None = None,
) -> StartReport:
    r"""Give a network a learned mask, the magnitudes of a moment and random signs, in place.

    .. math:: \theta = |\theta_k| \odot r \odot M, \qquad r_i = \pm 1 \text{ with equal chances}

    Survivors that had no magnitude at that moment, because another mask pruned them, start at 0,
    and the report counts them. They can train: of a Sign-In weight they start with :math:`m =
    \sqrt\beta`. Everything else is as for :func:`start_from_signs`.

    Args:
        model: a freshly initialised network, plain, masked or Sign-In.
        magnitudes: a :class:`RewindPoint` of the moment, or ``{plain name: tensor}``, which may
            hold other names too. Of an STR run: ``dense_to_sparse.weights_before_threshold(model)``
            at that moment.
        masks: as for :func:`start_from_signs`.
        generator: source of the seed of the signs; by default the global one of the CPU. The sign
            of an entry depends on the seed, the weight's name and the entry's position alone.

    Returns:
        The :class:`StartReport`; ``missing`` counts the survivors without a magnitude.

    Raises:
        ValueError: as :func:`start_from_signs`, or if a tensor is of an integer dtype. Model and
            generator are left as they were.
        TypeError: if an argument is of another type.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> fresh, epoch_10 = nn.Linear(4, 1, bias=False), torch.tensor([[-0.5, 0.25, 0.0, 2.0]])
        >>> masks = {"weight": torch.tensor([[1, 0, 1, 1]])}
        >>> report = start_from_magnitudes(fresh, {"weight": epoch_10}, masks)
        >>> fresh.weight.detach().abs()
        tensor([[0.5000, 0.0000, 0.0000, 2.0000]])
        >>> report.survivors, report.missing
        (3, 1)

    Source: *Sign-In to the Lottery*, Table 1, "Epoch 10 mag + learned mask".
    """
    if isinstance(magnitudes, SignedMask):
        raise TypeError(
            "magnitudes is a SignedMask, expected a RewindPoint or {name: tensor}: a signed mask "
            "has no magnitudes"
        )
    held = weights_of(magnitudes, "magnitudes")
    check_generator(generator)
    given = _checked(model, "magnitudes", held, masks, state_of(generator))
    with undrawn_on_error(generator):
        seed = seed_from(generator)

        def started(name: str, init: Tensor) -> tuple[Tensor, Tensor]:
            magnitude, start = given.values[name].to(init), given.found[name].start
            positive = torch.from_numpy(coins(words_in(seed, name, start, start + init.numel())))
            signs = positive.view(init.shape).to(init).mul_(2).sub_(1)
            return magnitude.abs() * signs, magnitude == 0

        return _start("magnitudes", given, started)


@outside_inference_mode
@on_dense_leaves
def start_from_mask(model: nn.Module, masks: Masks) -> StartReport:
    r"""Give a freshly initialised network a learned mask and nothing else, in place.

    .. math:: \theta = \theta_\mathrm{init} \odot M

    The same as :func:`polarity.load_masks`, with a report, and from a :class:`SignedMask` too.

    Args:
        model: a freshly initialised network, plain, masked or Sign-In.
        masks: as for :func:`start_from_signs`.

    Returns:
        The :class:`StartReport`; ``zeros`` counts the survivors that are 0 in ``model``.

    Raises:
        ValueError: as :func:`start_from_signs`.
        TypeError: if an argument is of another type.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> fresh = nn.Linear(3, 1, bias=False)
        >>> _ = fresh.weight.data.copy_(torch.tensor([[0.5, 0.25, -2.0]]))
        >>> _ = start_from_mask(fresh, {"weight": torch.tensor([[1, 0, 1]])})
        >>> fresh.weight.detach()
        tensor([[ 0.5000,  0.0000, -2.0000]])

    Source: *Sign-In to the Lottery*, Table 1, "Random init + learned mask".
    """

    def started(_: str, init: Tensor) -> tuple[Tensor, Tensor]:
        return init, torch.zeros_like(init, dtype=torch.bool)

    return _start("mask", _checked(model, "mask", None, masks), started)


class _Given(NamedTuple):
    """The weights that get a mask, and what was given for them, or for this rank's pieces."""

    found: dict[str, Target]
    masks: dict[str, Tensor]
    values: dict[str, Tensor]


@torch.no_grad()
def _start(
    what: str, given: _Given, started: Callable[[str, Tensor], tuple[Tensor, Tensor]]
) -> StartReport:
    """Compute what every weight starts from, then install it with the masks.

    Args:
        what: the name of what is given.
        given: the weights and what was given for them.
        started: returns the new values of a weight, from its name and its present values, and for
            which entries nothing was given.
    """
    ranks = ranks_of(target.stored[0] for target in given.found.values())

    def computed() -> tuple[list[int], list[tuple[Tensor, Tensor]]]:
        numbers: list[int] = []
        pairs: list[tuple[Tensor, Tensor]] = []
        for name, target in given.found.items():
            init = target.weight
            mask = given.masks[name].to(init.device)
            values, missing = started(name, init)
            values = values.masked_fill(~mask, 0) + 0.0  # which makes a negative zero positive
            counts = [mask, missing & mask, (values == 0) & mask]
            numbers += [int(each.count_nonzero()) for each in counts]
            pairs += target.staged_under(values, mask)
        return numbers, pairs

    numbers, pairs = together(ranks, computed)
    if ranks is not None:
        numbers = ranks.add(numbers).tolist()
    rows = [
        LayerStart(name, tuple(target.shape), *numbers[3 * at : 3 * at + 3])
        for at, (name, target) in enumerate(given.found.items())
    ]
    set_masks(given.found, given.masks, pairs)
    return StartReport(what, tuple(rows))


def _checked(
    model: nn.Module,
    what: str,
    held: Mapping[str, Tensor] | None,
    masks: Masks,
    *shared: object,
) -> _Given:
    """Return the weights that are masked and what was given for them, if no rank refuses it."""
    ranks = ranks_of_model(model)
    return together(ranks, lambda: _checked_here(model, what, held, masks), what, *shared)


def _checked_here(
    model: nn.Module, what: str, held: Mapping[str, Tensor] | None, masks: Masks
) -> _Given:
    """Return the same, after all checks of this rank."""
    kept = checked_masks(model, masks.masks if isinstance(masks, SignedMask) else masks)
    found = find_targets(model, tuple(kept))
    if stray := [name for name in kept if name not in found]:
        why = found.skipped.get(stray[0], "not among the prunable weights")
        raise ValueError(f"masks holds {stray[0]!r}, which is {why}")
    for name, target in found.items():
        check_entries(f"weight {name!r}", target.weight)
    values = {}
    if held is not None:
        check_names(what, held, held, needed=found, what="masked")
        for name, target in found.items():
            each = held[name]
            check_type(f"{what}[{name!r}]", each, Tensor, "a tensor")
            if not (each.is_floating_point() or (each.dtype == torch.int8 and what == "signs")):
                expected = "floating-point weights" + (" or int8 signs" * (what == "signs"))
                raise ValueError(f"{what}[{name!r}] has dtype {each.dtype}, expected {expected}")
            each = values[name] = target.piece(each, what)
            check_shape(what, name, each.shape, target.shape_here)
            check_entries(f"{what}[{name!r}]", each.to(target.stored[0].dtype))
    before_masking(model, found, f"start_from_{what}")
    return _Given(dict(found), kept, values)
