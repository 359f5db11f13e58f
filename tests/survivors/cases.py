"""Pairs of equal runs, one with masked and one with compact weights, and what both hold."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn, optim

import polarity as pol
from tests.models import mlp, seeded

OptimizerOf = Callable[[nn.Module], torch.optim.Optimizer]

FORMS = {"plain": False, "Sign-In": True}
EVERY: dict[str, Callable[[Any], optim.Optimizer]] = {
    "SGD": lambda p: optim.SGD(p, lr=0.01),
    "SGD, momentum": lambda p: optim.SGD(p, lr=0.01, momentum=0.9),
    "SGD, foreach": lambda p: optim.SGD(p, lr=0.01, momentum=0.9, foreach=True),
    "SGD, fused": lambda p: optim.SGD(p, lr=0.01, momentum=0.9, fused=True),
    "Adam": lambda p: optim.Adam(p, lr=0.01),
    "Adam, amsgrad": lambda p: optim.Adam(p, lr=0.01, amsgrad=True),
    "Adam, foreach": lambda p: optim.Adam(p, lr=0.01, foreach=True),
    "Adam, fused": lambda p: optim.Adam(p, lr=0.01, fused=True),
    "AdamW, fused amsgrad": lambda p: optim.AdamW(p, lr=0.01, amsgrad=True, fused=True),
    "NAdam": lambda p: optim.NAdam(p, lr=0.01),
    "RAdam": lambda p: optim.RAdam(p, lr=0.01),
    "Adamax": lambda p: optim.Adamax(p, lr=0.01),
    "Adagrad": lambda p: optim.Adagrad(p, lr=0.01),
    "Adadelta": lambda p: optim.Adadelta(p, lr=0.5),
    "RMSprop": lambda p: optim.RMSprop(p, lr=0.01, momentum=0.5, centered=True),
    "Rprop": lambda p: optim.Rprop(p, lr=0.01),
    "ASGD": lambda p: optim.ASGD(p, lr=0.01),
}


def compacted(model: nn.Module, optimizer: Any = None) -> nn.Module:
    """Store all masked weights as their survivors, without measuring which layers gain."""
    pol.compact(model, optimizer=optimizer, targets=tuple(pol.masks(model)))
    return model


def net(product: bool = False, density: float = 0.4, widths: tuple[int, ...] = (6, 8, 3)) -> Any:
    """Return a masked network, or one with Sign-In weights, with as many layers as widths ask."""
    model = mlp(*widths)
    pol.imp_prune(model, density=density)
    return pol.sign_in(model, beta=0.5) if product else model


def conv_net(product: bool = False) -> nn.Module:
    """Return a masked network of convolutions, norms and a classifier, in training mode."""
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 6, 1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 3),
    )
    pol.imp_prune(seeded(model), density=0.5)
    return pol.sign_in(model, beta=0.5) if product else model


def batch(step: int, inputs: int = 6, outputs: int = 3, rows: int = 8) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(100 + step)
    return (
        torch.randn(rows, inputs, generator=draw),
        torch.randn(rows, outputs, generator=draw),
    )


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=0.01)


@dataclass
class Run:
    """A model, its optimizer, and the last loss, which keeps its graph as in a training script."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    steps: int = 0
    loss: Any = field(default=None, repr=False)

    def train(self, steps: int = 3) -> "Run":
        for _ in range(steps):
            self.optimizer.zero_grad()
            first = next(m for m in self.model.modules() if isinstance(m, nn.Linear))
            x, y = batch(self.steps, inputs=first.in_features)
            self.loss = (self.model(x) - y[:, :3]).square().mean()
            self.loss.backward()
            self.optimizer.step()
            self.steps += 1
        return self


def pair(
    product: bool = False, optimizer: OptimizerOf = sgd, steps: int = 3, **how: Any
) -> tuple[Run, Run]:
    """Return two runs of the same bits after some steps, the second one with compact weights."""
    runs = []
    for _ in range(2):
        model = net(product, **how)
        runs.append(Run(model, optimizer(model)).train(steps))
    compacted(runs[1].model, runs[1].optimizer)
    return runs[0], runs[1]


def is_compact(model: nn.Module) -> bool:
    """Whether every masked weight of a model is stored as its survivors."""
    found = [m for m in model.modules() if isinstance(m, pol.MaskedWeight)]
    return bool(found) and all(m.stored_places is not None for m in found)


def leaves(model: nn.Module) -> dict[str, tuple[Tensor, Tensor | None]]:
    """Return every stored parameter and the mask that belongs to it, under its own name."""
    found: dict[str, tuple[Tensor, Tensor | None]] = {}
    for path, module in model.named_modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                key = f"{path}.{name}" if path else name
                first = module[0] if path.split(".")[-2:-1] == ["parametrizations"] else None
                found[key] = (parameter, getattr(first, "mask", None))
    return found


def at_survivors(value: Tensor, mask: Tensor | None) -> Tensor:
    """Return the entries of a stored tensor that survive; a compact one has no others."""
    if mask is None or value.dim() == 1 or value.shape != mask.shape:
        return value.detach()
    return value.detach()[mask != 0]


def remembered(run: Run) -> dict[str, Any]:
    """Return what the optimizer keeps of the survivors of every parameter, and all it counts."""
    kept: dict[str, Any] = {}
    for name, (parameter, mask) in leaves(run.model).items():
        for key, value in run.optimizer.state.get(parameter, {}).items():
            kept[f"{name}: {key}"] = (
                at_survivors(value, mask) if isinstance(value, Tensor) and value.dim() else value
            )
    return kept


def same_tensors(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two dicts hold the same keys, and equal tensors or values, bit for bit."""
    return list(one) == list(other) and all(
        torch.equal(torch.as_tensor(one[k]), torch.as_tensor(other[k])) for k in one
    )


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: target.weight.clone() for name, target in pol.find_targets(model).items()}


def equal_runs(masked: Run, compact: Run) -> None:
    """Check that two runs hold the same bits: weights, masks, buffers, moments."""
    one, other = masked.model.state_dict(), compact.model.state_dict()
    assert list(one) == list(other)
    for name in one:
        assert torch.equal(one[name], other[name]), name
    assert same_tensors(remembered(masked), remembered(compact))


def run_of(name: str, product: bool, steps: int = 3) -> Run:
    model = net(product)
    return Run(model, EVERY[name](model.parameters())).train(steps)


def other_survivors() -> dict[str, Any]:
    pruned = net()
    pol.imp_prune(pruned, density=0.25)
    return pruned.state_dict()
