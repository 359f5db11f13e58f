"""The ways of pruning a fifth of the survivors that are timed: ours and peers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

import polarity as pol

AMOUNT = 0.2


def layers(
    count: int, width: int, device: torch.device, dtype: torch.dtype = torch.float32
) -> nn.Sequential:
    """A model that is nothing but square weights."""
    torch.manual_seed(0)
    model = nn.Sequential()
    for _ in range(count):
        layer = nn.Linear(1, 1, bias=False, device="meta")
        layer.weight = nn.Parameter(torch.randn(width, width, device=device, dtype=dtype))
        model.append(layer)
    return model


class Masked:
    """A model with masks of ours, brought back to the same moment before each call.

    Args:
        values: the weights at the first round.
        density: what lives before the call.
    """

    def __init__(self, values: list[Tensor], density: float) -> None:
        self.values, self.density = values, density
        self.model = pol.mask_weights(plain(values))
        self.chains = [layer.parametrizations.weight for layer in self.model]
        self.start = pol.RewindPoint.capture(self.model)
        self.survivors = sum(value.numel() for value in values)
        self.survivors -= round((1 - density) * self.survivors)

    def prepare(self) -> None:
        for chain, value in zip(self.chains, self.values, strict=True):
            chain[0].mask.fill_(True)
            with torch.no_grad():
                chain.original.copy_(value)
        if self.density < 1:
            pol.imp_prune(self.model, 1 - self.density)

    def imp_prune(self) -> None:
        pol.imp_prune(self.model, AMOUNT)

    def imp_prune_with_rewinding(self) -> None:
        pol.imp_prune(self.model, AMOUNT, rewind=self.start)

    def lrr_step(self) -> None:
        pol.lrr_step(self.model, AMOUNT, rewind=self.start)

    def topk(self) -> None:
        sizes = [value.numel() for value in self.values]
        scores = torch.cat(
            [(chain.original.detach().abs() * chain[0].mask).flatten() for chain in self.chains]
        )
        kept = torch.zeros_like(scores, dtype=torch.bool)
        kept[scores.topk(self.survivors - round(AMOUNT * self.survivors)).indices] = True
        for chain, mine in zip(self.chains, kept.split(sizes), strict=True):
            chain[0].mask.copy_(mine.view_as(chain[0].mask))

    def kthvalue(self) -> None:
        magnitudes = [chain.original.detach().abs() for chain in self.chains]
        survivors = [
            each.flatten() if self.density == 1 else each[chain[0].mask.bool()]
            for each, chain in zip(magnitudes, self.chains, strict=True)
        ]
        threshold = torch.cat(survivors).kthvalue(round(AMOUNT * self.survivors)).values
        for each, chain in zip(magnitudes, self.chains, strict=True):
            chain[0].mask.logical_and_(each > threshold)


# The call, and how it is told in the table.
CALLS: dict[str, Callable[[Masked], None]] = {
    "lrr_step": Masked.lrr_step,
    "imp_prune": Masked.imp_prune,
    "imp_prune with rewinding": Masked.imp_prune_with_rewinding,
    "cat + topk": Masked.topk,
    "cat + kthvalue": Masked.kthvalue,
}


class TorchPruned:
    """The same model and the same moment with `torch.nn.utils.prune`."""

    def __init__(self, values: list[Tensor], density: float) -> None:
        self.values, self.density = values, density
        self.model = plain(values)
        self.parameters = [(layer, "weight") for layer in self.model]

    def prepare(self) -> None:
        for layer, value in zip(self.model, self.values, strict=True):
            if hasattr(layer, "weight_mask"):
                prune.remove(layer, "weight")
            with torch.no_grad():
                layer.weight.copy_(value)
        if self.density < 1:
            self._prune(1 - self.density)

    def prune(self) -> None:
        self._prune(AMOUNT)

    def _prune(self, amount: float) -> None:
        prune.global_unstructured(self.parameters, prune.L1Unstructured, amount=amount)


def plain(values: list[Tensor]) -> nn.Sequential:
    """A model without masks that holds copies of these weights."""
    model = nn.Sequential()
    for value in values:
        layer = nn.Linear(1, 1, bias=False, device="meta")
        layer.weight = nn.Parameter(value.clone())
        model.append(layer)
    return model
