"""A network to save and load, in every form, and all that a call must leave as it was."""

from typing import Any

import torch
from torch import nn

import polarity as pol
from tests.forms import half_masked
from tests.laws.refusals import fingerprint
from tests.models import seeded


def network(seed: int = 0) -> nn.Sequential:
    return seeded(
        nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 4)),
        seed,
    )


def every_form(seed: int = 0) -> nn.Sequential:
    model = half_masked(network(seed))
    pol.sign_in(model, targets="3.weight")
    return pol.interpolate_norms(model, generator=torch.Generator().manual_seed(seed))


def everything_of(model: nn.Module) -> list[Any]:
    modules = [
        (name, id(module), module.training, len(module._forward_pre_hooks), module._backward_hooks)
        for name, module in model.named_modules()
    ]
    kinds = [[base.__name__ for base in type(module).__mro__] for module in model.modules()]
    leaves = [
        (name, id(p), p.requires_grad, vars(p).keys()) for name, p in model.named_parameters()
    ]
    held = fingerprint({**dict(model.named_parameters()), **dict(model.named_buffers())})
    enforced = [m.enforce for m in model.modules() if isinstance(m, pol.MaskedWeight)]
    return [modules, kinds, leaves, held, enforced, fingerprint(torch.get_rng_state())]
