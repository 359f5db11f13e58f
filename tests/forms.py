"""The forms that masked weights take, and models with half their weights masked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import polarity as pol
from polarity.parametrizations.places import Places
from tests.models import Tied


@dataclass(frozen=True)
class Form:
    """A way of holding masked weights: how a plain model gets it, with half its weights masked.

    ``enforced`` says whether the mask is applied, and ``same_parameters`` whether what is trained
    are the plain model's own Parameter objects. Where they are not the weight is computed, and
    equal to the plain one up to rounding. ``sees_writes`` says whether forward masks what others
    wrote into pruned entries. ``compact`` says whether survivors alone are stored, and ``exact``
    whether a layer gives the plain layer's bits.
    """

    name: str
    attach: Callable[[nn.Module], nn.Module]
    enforced: bool = True
    same_parameters: bool = True
    sees_writes: bool = True
    compact: bool = False
    multiplies: bool = False

    @property
    def exact(self) -> bool:
        return self.same_parameters and not self.multiplies


def every_weight(model: nn.Module) -> tuple[str, ...]:
    """Return the names of the default targets, and of those that are tied to an embedding."""
    tied = ["decoder"] if isinstance(model, Tied) else []
    return tuple(pol.find_targets(model, ["*", *tied]))


def random_masks(model: nn.Module, density: float = 0.5, seed: int = 1) -> dict[str, Tensor]:
    """Return masks under plain names with a fair share of zeros and ones in every one of them."""
    draw = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(target.shape, generator=draw) < density
        for name, target in pol.find_targets(model, every_weight(model)).items()
    }


def half_masked(model: nn.Module) -> nn.Module:
    """Mask half of every prunable weight."""
    return pol.mask_weights(model, masks=random_masks(model))


def half_remembered(model: nn.Module) -> nn.Module:
    """Mask half of every prunable weight, but keep every value and enforce no mask."""
    values = [(parameter, parameter.detach().clone()) for parameter in model.parameters()]
    half_masked(model)
    for module in model.modules():
        if isinstance(module, pol.MaskedWeight):
            module.enforce = False
    with torch.no_grad():
        for parameter, value in values:
            parameter.copy_(value)
    return model


def half_signed_in(model: nn.Module) -> nn.Module:
    """Mask half of every prunable weight and make the rest a product."""
    return pol.sign_in(half_masked(model), beta=0.5)


def half_in_step(model: nn.Module) -> nn.Module:
    """Mask half of every prunable weight, and enforce the masks in an optimizer's step."""
    half_masked(model)
    pol.enforce_in_step(model, torch.optim.SGD(model.parameters(), lr=0.1))
    return model


def compacted(
    model: nn.Module,
    optimizer: Any = None,
    *,
    names: Sequence[str] | None = None,
    multiplies: bool = True,
) -> nn.Module:
    """Store survivors alone, of some weights or all; they take the sparse product, or none does."""
    names = tuple(pol.masks(model)) if names is None else names
    pol.compact(model, optimizer=optimizer, targets=names)
    for target in pol.find_targets(model, names).values():
        masking = target.masking
        masking.places = Places.of(masking.mask, multiplies=multiplies)
    return model


def half_compact(model: nn.Module) -> nn.Module:
    """Mask half of every prunable weight, and store the rest alone."""
    return compacted(half_masked(model))


def half_compact_signed_in(model: nn.Module) -> nn.Module:
    """Make half of every prunable weight a product, and store its factors alone."""
    return compacted(half_signed_in(model))


def half_scattered(model: nn.Module) -> nn.Module:
    """Store half of every prunable weight alone, and compute with the dense weight."""
    return compacted(half_masked(model), multiplies=False)


def half_scattered_signed_in(model: nn.Module) -> nn.Module:
    """Store the factors of half of every prunable weight, and compute with the dense weight."""
    return compacted(half_signed_in(model), multiplies=False)


# A parametrization that is added to the package is added here, and every invariant is tested.
FORMS = [
    Form("masked", half_masked),
    Form("in_step", half_in_step, sees_writes=False),
    Form("remembered", half_remembered, enforced=False),
    Form("sign_in", half_signed_in, same_parameters=False),
    Form("compact", half_compact, sees_writes=False, compact=True, multiplies=True),
    Form(
        "compact_sign_in", half_compact_signed_in, same_parameters=False, sees_writes=False,
        compact=True, multiplies=True,
    ),
    Form("scattered", half_scattered, sees_writes=False, compact=True),
    Form(
        "scattered_sign_in", half_scattered_signed_in, same_parameters=False, sees_writes=False,
        compact=True,
    ),
]  # fmt: skip
