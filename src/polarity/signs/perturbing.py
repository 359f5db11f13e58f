"""Apply perturbations to the signs of layers, to each by itself or to all as one field."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from polarity._bits.bits import Bits
from polarity._bits.random_fields import choose_living, coins
from polarity.selection.smallest import smallest
from polarity.signs.layer import SignField
from polarity.signs.perturb import Delta, Epsilon, Perturbation

__all__ = ["perturb_fields"]


def perturb_fields(
    fields: Mapping[str, SignField],
    perturbations: Sequence[Perturbation],
    scope: str,
    generator: torch.Generator | None,
) -> None:
    """Perturb the signs in place.

    Args:
        fields: the signs by layer.
        perturbations: what happens to them, in this order.
        scope: ``"layer"`` or ``"global"``.
        generator: source of the draws.

    Raises:
        ValueError: what a perturbation complains of, with the layer's name before it if it is of
            one layer; or if it returns anything but ±1 for each sign.
        TypeError: if a perturbation returns no tensor.
    """
    if scope == "global":
        for each in perturbations if fields else ():
            _perturb(fields, each, generator)
        return
    for name, field in fields.items():
        for each in perturbations:
            try:
                _perturb({name: field}, each, generator)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None


def _perturb(
    fields: Mapping[str, SignField], perturbation: Perturbation, generator: torch.Generator | None
) -> None:
    # Ours need no field of signs and magnitudes to be made for them. What they do is the same,
    # from other draws.
    n = sum(field.survivors for field in fields.values())
    if type(perturbation) is Epsilon:
        living = [field.living for field in fields.values()]
        turned = choose_living(living, perturbation.count(n), generator)
        for field, mine in zip(fields.values(), turned, strict=True):
            field.turn(mine)
    elif type(perturbation) is Delta:
        drawn = _smallest(fields, perturbation.count(n))
        for name, field in fields.items():
            field.draw(drawn[name], coins(field.mask.numel(), generator))
    else:
        _perturb_by_call(fields, perturbation, generator)


def _smallest(fields: Mapping[str, SignField], count: int) -> dict[str, Bits]:
    """Return which ``count`` survivors of all layers have the smallest magnitudes."""
    found = {
        name: Bits.zeros(field.mask.numel(), field.mask.device) for name, field in fields.items()
    }
    for name, part, small in smallest({n: f.entries for n, f in fields.items()}, count):
        found[name].put(part, small)
    return found


def _perturb_by_call(
    fields: Mapping[str, SignField], perturbation: Perturbation, generator: torch.Generator | None
) -> None:
    each = list(fields.values())
    device = each[0].mask.device
    signs = (
        torch.cat([field.positive().to(device) for field in each]).to(torch.int8).mul_(2).sub_(1)
    )
    magnitudes = [field.magnitudes() for field in each]
    if len(each) > 1:
        widest = max((part.dtype for part in magnitudes), key=lambda dtype: torch.finfo(dtype).bits)
        wide = torch.promote_types(torch.float32, widest)
        magnitudes = [part.to(device, wide) for part in magnitudes]
    perturbed = perturbation(signs, torch.cat(magnitudes), generator)
    positive = _checked(perturbation, perturbed, signs.numel())
    sizes = [field.survivors for field in each]
    for field, mine in zip(each, torch.split(positive, sizes), strict=True):
        field.set(mine)


def _checked(perturbation: Perturbation, signs: Tensor, size: int) -> Tensor:
    """Return which signs are +, after a look at what somebody's perturbation returned."""
    if not isinstance(signs, Tensor):
        raise TypeError(f"{perturbation!r} returned a {type(signs).__name__}, expected a tensor")
    if signs.shape != (size,):
        raise ValueError(
            f"{perturbation!r} returned signs of shape {tuple(signs.shape)}, expected ({size},)"
        )
    positive = signs > 0
    if not bool((positive | (signs == -1)).all()) or not bool((signs <= 1).all()):
        raise ValueError(f"{perturbation!r} returned signs other than +1 and -1")
    return positive
