"""Linear layers with a weight of a model, masked and compact, to be timed and thrown away."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from polarity.attach.forms import attach_form
from polarity.deploy.calls import Call
from polarity.deploy.replay import Replay, agree
from polarity.parametrizations.masked import MaskedWeight
from polarity.parametrizations.places import Places
from polarity.parametrizations.sign_in import SignInMW
from polarity.parametrizations.survivor_weight import weight_of
from polarity.targets.dense_leaves import gather_leaves
from polarity.targets.search import all_targets
from polarity.targets.target import Target

__all__ = ["Step", "is_exact", "twin"]


@torch.no_grad()
def twin(target: Target, *, compact: bool) -> nn.Linear:
    """Return a linear layer with the weight and the bias of another; it shares what it can.

    Args:
        target: a weight of one linear layer, with a mask and nothing else on it.
        compact: whether the new layer stores the survivors alone.
    """
    layer, masking = target.module, target.masking
    assert isinstance(layer, nn.Linear)
    assert masking is not None
    result = nn.Linear(layer.in_features, layer.out_features, device="meta")
    bias = layer.bias
    shared = None if bias is None else nn.Parameter(bias.detach(), bias.requires_grad)
    result.register_parameter("bias", shared)
    places = masking.stored_places
    stored = tuple(
        nn.Parameter(
            leaf.detach() if places is None else places.scatter(leaf.detach()),
            requires_grad=leaf.requires_grad,
        )
        for leaf in target.stored
    )
    result.weight = stored[0]
    form: MaskedWeight
    if isinstance(masking, SignInMW):
        form = SignInMW(masking.mask, float(masking.beta))
    else:
        form = MaskedWeight(masking.mask)
    attach_form(_weight_of(result), form, stored=stored)
    if compact:
        gather_leaves({"weight": _weight_of(result)}, {"weight": True}, ())
    return result


def _weight_of(layer: nn.Linear) -> Target:
    return next(each for each in all_targets(layer) if each.tensor_name == "weight")


class Step:
    """What a training step does with one layer: its recorded calls forward, then their backward.

    Args:
        replay: the calls.
        outputs: number of output features.
        generator: draws the gradients of the outputs.
    """

    def __init__(self, replay: Replay, outputs: int, generator: torch.Generator) -> None:
        self.calls = [(call, replay.inputs[call]) for call in replay.calls]
        drawn = {call: _gradient(call, outputs, generator) for call in replay.inputs}
        self.gradients = [drawn[call] for call in replay.calls]

    def of(self, layer: nn.Linear) -> Sequence[Tensor]:
        """Return the gradients of a layer's parameters, and of the inputs that need them."""
        results: list[Tensor] = []
        wanted: list[Tensor] = [each for each in layer.parameters() if each.requires_grad]
        for call, values in self.calls:
            x = values.detach().requires_grad_(call.needs_gradient)
            if call.needs_gradient:
                wanted.append(x)
            kind = call.device.type
            with torch.autocast(kind, call.autocast, enabled=call.autocast is not None):
                results.append(layer.forward(x))
        if not wanted:
            return results
        return torch.autograd.grad(results, wanted, self.gradients)


def _gradient(call: Call, outputs: int, generator: torch.Generator) -> Tensor:
    shape, dtype = (*call.shape[:-1], outputs), call.autocast or call.dtype
    drawn = torch.randn(shape, generator=generator, device=generator.device)
    return drawn.to(call.device, dtype)


def is_exact(target: Target, step: Step) -> bool:
    """Whether the sparse products of a weight, forward and backward, are within rounding."""
    weight, masking = target.weight, target.masking
    assert masking is not None
    places = Places.of(masking.mask, multiplies=True)
    bias: Any = target.module.bias
    bias = None if bias is None else bias.detach()
    for (_, given), gradient in zip(step.calls, step.gradients, strict=True):
        x = given.detach().to(weight.dtype).requires_grad_()
        values = places.gather(weight).requires_grad_()
        output = nn.functional.linear(x, weight_of(values, places, masking.mask), bias)
        above = gradient.to(weight.dtype)
        of_x, of_values = torch.autograd.grad(output, (x, values), above)
        rows, seen = above.reshape(-1, above.shape[-1]), x.detach().reshape(-1, x.shape[-1])
        same = (
            agree(seen, weight, bias, output.detach())
            and agree(rows, weight.t(), None, of_x)
            and agree(rows.t(), seen.t(), None, places.scatter(of_values), masking.mask)
        )
        if not same:
            return False
    return True
