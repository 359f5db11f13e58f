"""A layer as a function of what is stored, with every product by a mask written down."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

import polarity as pol
from tests.forms import Form
from tests.helpers import (
    build,
    feed,
)
from tests.models import Kind

RECURRENT = ("lstm", "gru")

Values = dict[str, Tensor]


def converted(kind: Kind, form: Form, seed: int = 0) -> nn.Module:
    return form.attach(build(kind, seed))


def values_of(model: nn.Module) -> Values:
    return {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}


def explicit(kind: Kind, form: Form, model: nn.Module) -> Callable[..., Tensor]:
    """Return the plain layer as a function of what is stored: every product is written down."""
    plain, inputs, masks = build(kind).train(model.training), feed(kind), pol.masks(model)

    def run(values: Values, *given: Tensor) -> Tensor:
        weights: Values = {}
        for name, value in values.items():
            inside = re.sub(r"\.original\d?$", "", name.replace("parametrizations.", ""))
            if form.compact and inside in masks:
                mask = masks[inside]
                place = (mask.flatten().cumsum(0) - 1).clamp(min=0)
                value = value[place].view(mask.shape)  # the mask comes below
            weights[inside] = weights[inside] * value if inside in weights else value
        for name, mask in masks.items() if form.enforced else ():
            weights[name] = weights[name] * mask
        return functional_call(plain, weights, given or inputs)

    return run


def plain_or_skip(kind: Kind, call: Callable[[], Any]) -> Any:
    """Return what PyTorch does with the plain layer; skip where it refuses a recurrent one."""
    try:
        return call()
    except (RuntimeError, NotImplementedError) as error:
        if kind.name not in RECURRENT:
            raise
        pytest.skip(f"PyTorch cannot do this with the plain layer: {str(error)[:60]}")


def close(ours: Any, theirs: Any) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def loss_of(output: Tensor) -> Tensor:
    return output.square().sum()
