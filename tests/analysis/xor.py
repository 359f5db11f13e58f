"""A network of four hidden units that solves XOR, and its copies in another order."""

import torch
from torch import nn

from tests.models import seeded

HIDDEN = 4
SWAP = torch.tensor([0, 2, 1, 3])


def xor_data(count: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """Points with both signs of both coordinates; the class is the sign of their product."""
    quarter = torch.rand(count, 2, generator=torch.Generator().manual_seed(0)) + 0.01
    x = torch.cat([quarter * torch.tensor(s) for s in ((1, 1), (1, -1), (-1, 1), (-1, -1))])
    return x, (x[:, 0] * x[:, 1] > 0).long()


def error_on(x: torch.Tensor, y: torch.Tensor):
    return lambda network: (network(x).argmax(1) != y).float().mean().item()


def mlp(batch_norm: bool) -> nn.Module:
    norm = nn.BatchNorm1d(HIDDEN) if batch_norm else nn.Identity()
    return seeded(nn.Sequential(nn.Linear(2, HIDDEN), norm, nn.ReLU(), nn.Linear(HIDDEN, 2)))


def solved(batch_norm: bool) -> nn.Module:
    """Return the network that answers by |x + y| - |x - y|, which has the sign of xy: no error."""
    model = mlp(batch_norm)
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 1], [-1, -1], [1, -1], [-1, 1]]))
        model[3].weight.copy_(torch.tensor([[0.0, 0, 0, 0], [1, 1, -1, -1]]))
        for layer in (model[0], model[3]):
            layer.bias.zero_()
    if batch_norm:
        model[1].reset_parameters()
    return model


def permuted(model: nn.Module, order: torch.Tensor) -> nn.Module:
    """Return a copy that computes the same with its hidden units in another order."""
    state = {}
    for name, value in model.state_dict().items():
        if name == "3.weight":
            state[name] = value[:, order]
        elif value.shape[:1] == (HIDDEN,):
            state[name] = value[order]
        else:
            state[name] = value
    other = mlp(isinstance(model[1], nn.BatchNorm1d))
    other.load_state_dict(state)
    return other


def snapshot(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def unchanged(state, before) -> bool:
    return list(state) == list(before) and all(torch.equal(state[k], before[k]) for k in before)
