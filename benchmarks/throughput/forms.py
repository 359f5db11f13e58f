"""The ways of keeping a model sparse that steps are timed with: ours, peers and limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

import polarity as pol

DENSITY = 0.2


class MaskInForward(nn.Module):
    """What one writes first: the weight times a mask of floats."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask.float())

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask


class ProductInForward(MaskInForward):
    """The paper's listing as a parametrization: mask times m times v."""

    def forward(self, m: Tensor, v: Tensor) -> Tensor:  # type: ignore[override]
        return self.mask * m * v

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        m = torch.sqrt(0.5 + torch.sqrt(weight * weight + 0.25))
        return m, weight / m


class Identity(MaskInForward):
    """What parametrize costs by itself."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight


class ProductWithoutMask(ProductInForward):
    """What no product of two factors can be cheaper than: zeros need no mask."""

    def forward(self, m: Tensor, v: Tensor) -> Tensor:  # type: ignore[override]
        return m * v


def random_masks(model: nn.Module, density: float = DENSITY) -> dict[str, Tensor]:
    """One random mask for every weight, on its device."""
    draw = torch.Generator().manual_seed(0)
    return {
        name: (torch.rand(target.shape, generator=draw) < density).to(target.stored[0].device)
        for name, target in pol.find_targets(model).items()
    }


def polarity_mask(model: nn.Module) -> nn.Module:
    return pol.load_masks(model, random_masks(model))


def polarity_sign_in(model: nn.Module) -> nn.Module:
    return pol.sign_in(polarity_mask(model))


def torch_prune(model: nn.Module, density: float = DENSITY) -> nn.Module:
    for name, mask in random_masks(model, density).items():
        if name.endswith("out_proj.weight"):
            continue  # attention reads it without calling its module, so the hook never runs again
        prune.custom_from_mask(model.get_submodule(name.rpartition(".")[0]), _last(name), mask)
    return model


def float_mask(model: nn.Module) -> nn.Module:
    return _parametrized(model, MaskInForward)


def paper_product(model: nn.Module) -> nn.Module:
    return _parametrized(model, ProductInForward)


def bare_product(model: nn.Module) -> nn.Module:
    """Zeros in both factors, which only an optimizer that leaves zeros alone keeps."""
    model = _parametrized(model, ProductWithoutMask)
    chains = [each for each in model.modules() if isinstance(each, parametrize.ParametrizationList)]
    with torch.no_grad():
        for chain in chains:
            for factor in chain.parameters():
                factor.mul_(chain[0].mask)
    return model


def identity(model: nn.Module) -> nn.Module:
    return _parametrized(model, Identity)


def hooked_gradients(model: nn.Module) -> nn.Module:
    """The least a mask can cost: zero weights and a float mask on each gradient, unchecked."""
    for name, mask in random_masks(model).items():
        leaf, floats = model.get_parameter(name), mask.float()
        with torch.no_grad():
            leaf.mul_(floats)

        def mask_gradient(leaf: Tensor, floats: Tensor = floats) -> None:
            if leaf.grad is not None:
                leaf.grad.mul_(floats)

        leaf.register_post_accumulate_grad_hook(mask_gradient)
    return model


@dataclass(frozen=True)
class Form:
    """A way of keeping a model sparse.

    Attributes:
        attach: what is done to the model.
        follow: what is done with the model and the optimizer built for it afterwards.
        schedule: makes a schedule of both, whose `.step()` follows that of the optimizer.
    """

    attach: Callable[[nn.Module], nn.Module]
    follow: Callable[[nn.Module, torch.optim.Optimizer], object] | None = None
    schedule: Callable[[nn.Module, torch.optim.Optimizer], Any] | None = None


DENSE = Form(lambda model: model)
MASKED = {
    "dense step once more": DENSE,  # what the machine adds by itself
    "polarity mask": Form(polarity_mask),
    "polarity mask, enforced in the step": Form(polarity_mask, pol.enforce_in_step),
    "torch.nn.utils.prune": Form(torch_prune),
    "float mask in forward": Form(float_mask),
    "limit: float mask on gradients, unchecked": Form(hooked_gradients),
    "limit: an identity by parametrize": Form(identity),
}
SIGNED = {
    "polarity Sign-In": Form(polarity_sign_in),
    "polarity Sign-In, enforced in the step": Form(polarity_sign_in, pol.enforce_in_step),
    "mask * m * v in forward": Form(paper_product),
    "limit: m * v without a mask": Form(bare_product),
}
# What one would pick instead of ours.
PEERS = {
    "polarity mask": "torch.nn.utils.prune",
    "polarity mask, enforced in the step": "torch.nn.utils.prune",
    "polarity Sign-In": "mask * m * v in forward",
    "polarity Sign-In, enforced in the step": "mask * m * v in forward",
}


def _parametrized(model: nn.Module, form: Callable[[Tensor], nn.Module]) -> nn.Module:
    for name, mask in random_masks(model).items():
        module = model.get_submodule(name.rpartition(".")[0])
        parametrize.register_parametrization(module, _last(name), form(mask))
    return model


def _last(name: str) -> str:
    return name.rpartition(".")[2]
