"""Networks with one kind of normalisation each, interpolated and trained away from the start."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import polarity as pol
from polarity.attach.norms import attached_norms
from tests.models import generator, seeded

X = torch.randn(6, 2, 6, 6, generator=torch.Generator().manual_seed(2))


def norm_net(*norms: nn.Module, flat: nn.Module | None = None) -> nn.Sequential:
    """Convolutions with the given norms of 4 channels, and a classifier with one of 16 features."""
    layers: list[nn.Module] = []
    for index, norm in enumerate(norms):
        layers += [nn.Conv2d(4 if index else 2, 4, 3, bias=False), norm, nn.Tanh()]
    flat = flat or nn.Identity()
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), flat, nn.Linear(16, 3))


NETS: dict[str, Callable[[], nn.Module]] = {
    "batch": lambda: norm_net(nn.BatchNorm2d(4), nn.BatchNorm2d(4), flat=nn.BatchNorm1d(16)),
    "layer": lambda: norm_net(nn.LayerNorm([4, 4, 4]), flat=nn.LayerNorm(16)),
    "group": lambda: norm_net(nn.GroupNorm(2, 4), nn.GroupNorm(4, 4)),
    "rms": lambda: norm_net(nn.RMSNorm([4, 4]), flat=nn.RMSNorm(16)),
    "instance": lambda: norm_net(nn.InstanceNorm2d(4, affine=True)),
}
EVERY_NET = pytest.mark.parametrize("kind", NETS)


def moved(model: nn.Module, seed: int = 9) -> nn.Module:
    """Move every parameter away from where it is, as training would."""
    draw = generator(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=draw))
    return model


def pair(kind: str, **options: object) -> tuple[nn.Module, nn.Module, nn.Module]:
    """A trained interpolated model, the same plain, and the plain one with initial norms."""
    model = pol.interpolate_norms(seeded(NETS[kind]()), generator=generator(), **options)
    start = {name: value.clone() for name, value in attached_norms(model).items()}
    moved(model)
    plain, initial = NETS[kind](), NETS[kind]()
    plain.load_state_dict(pol.dense_state_dict(model))
    initial.load_state_dict({**pol.dense_state_dict(model), **start})
    return model, plain, initial


def alphas(model: nn.Module) -> list[float]:
    return [float(value) for value in pol.norm_alpha(model).values()]


def gradients(model: nn.Module) -> dict[str, Tensor]:
    plain = {n.replace("parametrizations.", "").removesuffix(".original"): p
             for n, p in model.named_parameters()}  # fmt: skip
    return {name: parameter.grad.clone() for name, parameter in plain.items()}
