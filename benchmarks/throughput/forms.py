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


class Identity(MaskInForward):
    """What parametrize costs by itself."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight


class ProductWithoutMask(ProductInForward):
    """What no product of two factors can be cheaper than: zeros need no mask."""

    def forward(self, m: Tensor, v: Tensor) -> Tensor:  # type: ignore[override]
        return m * v


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


MASKED: dict[str, Callable[[nn.Module], nn.Module]] = {
    "dense step once more": dense,  # what the machine adds by itself
    "polarity mask": polarity_mask,
    "torch.nn.utils.prune": torch_prune,
    "float mask in forward": float_mask,
    "limit: float mask on gradients, unchecked": hooked_gradients,
    "limit: an identity by parametrize": identity,
}
SIGNED: dict[str, Callable[[nn.Module], nn.Module]] = {
    "polarity Sign-In": polarity_sign_in,
    "mask * m * v in forward": paper_product,
    "limit: m * v without a mask": bare_product,
}


def _parametrized(model: nn.Module, form: Callable[[Tensor], nn.Module]) -> nn.Module:
    for name, mask in random_masks(model).items():
        module = model.get_submodule(name.rpartition(".")[0])
        parametrize.register_parametrization(module, _last(name), form(mask))
    return model


def _last(name: str) -> str:
    return name.rpartition(".")[2]
