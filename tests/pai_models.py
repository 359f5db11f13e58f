"""Models, data and fingerprints for the tests of scores at initialisation."""

import itertools
from typing import Any

import torch
from torch import Tensor, nn

from polarity.scores import grasp, snip, synflow
from tests.laws.refusals import fingerprint
from tests.models_for_tests import seeded

CROSS_ENTROPY = nn.functional.cross_entropy


def conv_net() -> nn.Module:
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 3),
    )
    return seeded(model).double()


def mlp(*widths: int) -> nn.Module:
    parts: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        parts += [nn.Linear(inputs, outputs), nn.ReLU()]
    return seeded(nn.Sequential(*parts[:-1])).double()


def images(count: int, seed: int = 5) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 2, 6, 6, generator=draw, dtype=torch.float64)
    return inputs, torch.randint(3, (count,), generator=draw)


def square(output: Any, target: Any) -> Tensor:
    return (output.float() - target).square().mean()


class Several(nn.Module):
    """Takes a tensor, a scale and token indices, and returns a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix = nn.Embedding(5, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor, tokens: Tensor, scale: float = 1.0) -> dict[str, Any]:
        return {"out": self.mix(x + self.embed(tokens)) * scale, "tokens": tokens}


def noisy() -> nn.Module:
    return seeded(nn.Sequential(nn.Linear(6, 30), nn.Dropout(0.5), nn.Linear(30, 3)))


def score_all(model: nn.Module, inputs: tuple[Tensor, ...]) -> list[dict[str, Tensor]]:
    batches = [(inputs, torch.tensor(1.0)), (inputs, torch.tensor(-1.0))]
    return [
        snip(model, square, batches),
        grasp(model, square, batches),
        synflow(model, inputs, density=0.3, steps=2),
    ]


def everything_of(model: nn.Module) -> list[Any]:
    """Bytes, identities, modes, classes and gradients of a model, and torch's random state."""
    tensors = dict(model.named_parameters(remove_duplicate=False))
    return [
        [(n, id(m), type(m), m.training, m._forward_hooks) for n, m in model.named_modules()],
        [(n, id(p), p.requires_grad, p._version) for n, p in tensors.items()],
        fingerprint({n: p.grad for n, p in tensors.items() if p.grad is not None}),
        fingerprint(dict(model.named_buffers())),
        fingerprint(model.state_dict()),
        fingerprint(torch.get_rng_state()),
    ]
