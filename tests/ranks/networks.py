"""Larger networks on data of their own for each rank: equal to one process within rounding."""

from collections.abc import Callable

import torch
from torch import Tensor, distributed, nn

import polarity as pol
from tests.models import seeded
from tests.ranks.sharded import Tensors, divided, whole


class Residual(nn.Module):
    """A small ResNet without batch norm, whose statistics would be each rank's own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 9, 3, padding=1)
        self.block = nn.Sequential(
            nn.GroupNorm(3, 9), nn.ReLU(), nn.Conv2d(9, 9, 3, padding=1, bias=False)
        )
        self.head = nn.Linear(9, 5)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.stem(x)
        hidden = hidden + self.block(hidden)
        return self.head(hidden.mean((2, 3)))


class Transformer(nn.Module):
    """A small Transformer whose head is tied to its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.block = nn.TransformerEncoderLayer(6, 2, 13, dropout=0.0, batch_first=True)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.block(self.embedding(tokens)))


def images(draw: torch.Generator) -> Tensor:
    return torch.randn(8, 3, 6, 6, generator=draw)


def tokens(draw: torch.Generator) -> Tensor:
    return torch.randint(0, 11, (8, 4), generator=draw)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[torch.Generator], Tensor]]] = {
    "ResNet": (Residual, images),
    "Transformer": (Transformer, tokens),
}


def rounds(name: str, sharded: bool) -> Tensors:
    """Five rounds of IMP with clipping, where each rank has its part of every batch.

    By SGD: Adam makes whole steps of the rounding in gradients that are zero but for it, as those
    of attention's key biases.
    """
    build, batch = NETWORKS[name]
    masked = pol.mask_weights(seeded(build(), 0).train(), targets=lambda _, p: p.dim() > 1)
    model = divided(masked, sharded)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    if sharded:
        pol.enforce_in_step(model, sgd)
    start = pol.RewindPoint.capture(model, sgd)
    found: Tensors = {}
    for number in range(5):
        for step in range(3):
            inputs = batch(torch.Generator().manual_seed(10 * number + step))
            if sharded:
                inputs = inputs.chunk(distributed.get_world_size())[distributed.get_rank()]
            sgd.zero_grad()
            (model(inputs) - 1).square().mean().backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            sgd.step()
        pol.imp_prune(model, 0.3, rewind=start if number % 2 else None, optimizer=sgd)
        found |= {f"{number} {key}": whole(value) for key, value in model.named_parameters()}
        found |= {f"{number} {key} mask": whole(m) for key, m in pol.masks(model).items()}
    return found
