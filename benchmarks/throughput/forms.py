"""The ways of keeping a model sparse that the steps are timed with, ours and those beside them."""

from __future__ import annotations

from collections.abc import Callable

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


def random_masks(model: nn.Module) -> dict[str, Tensor]:
    """One random mask for every weight, on its device."""
    draw = torch.Generator().manual_seed(0)
    return {
        name: (torch.rand(target.shape, generator=draw) < DENSITY).to(target.stored[0].device)
        for name, target in pol.find_targets(model).items()
    }


def dense(model: nn.Module) -> nn.Module:
    return model


def polarity_mask(model: nn.Module) -> nn.Module:
    return pol.load_masks(model, random_masks(model))


def polarity_sign_in(model: nn.Module) -> nn.Module:
    return pol.sign_in(polarity_mask(model))


def torch_prune(model: nn.Module) -> nn.Module:
    for name, mask in random_masks(model).items():
        if name.endswith("out_proj.weight"):
            continue  # attention reads it without calling its module, so the hook never runs again
        prune.custom_from_mask(model.get_submodule(name.rpartition(".")[0]), _last(name), mask)
    return model


def float_mask(model: nn.Module) -> nn.Module:
    return _parametrized(model, MaskInForward)


def paper_product(model: nn.Module) -> nn.Module:
    return _parametrized(model, ProductInForward)


MASKED: dict[str, Callable[[nn.Module], nn.Module]] = {
    "dense step once more": dense,  # what the machine adds by itself
    "polarity mask": polarity_mask,
    "torch.nn.utils.prune": torch_prune,
    "float mask in forward": float_mask,
}
SIGNED: dict[str, Callable[[nn.Module], nn.Module]] = {
    "polarity Sign-In": polarity_sign_in,
    "mask * m * v in forward": paper_product,
}


def _parametrized(model: nn.Module, form: Callable[[Tensor], nn.Module]) -> nn.Module:
    for name, mask in random_masks(model).items():
        module = model.get_submodule(name.rpartition(".")[0])
        parametrize.register_parametrization(module, _last(name), form(mask))
    return model


def _last(name: str) -> str:
    return name.rpartition(".")[2]
