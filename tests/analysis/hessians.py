"""Hessians of small networks, written out, and the sharpness that is compared with them."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.autograd.functional import hessian
from torch.func import functional_call

import polarity as pol
from tests.models import seeded

CLOSE = {"rel": 1e-7}


def mlp() -> nn.Module:
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Dropout(0.5), nn.Linear(5, 3))
    return seeded(net).double()


def convnet() -> nn.Module:
    net = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Softplus(), nn.Flatten(), nn.Linear(8, 3)
    )
    return seeded(net).double()


def data(*shape: int, sizes: tuple[int, ...] = (4, 7)) -> list[tuple[Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(3)
    return [
        (
            torch.randn(n, *shape, generator=draw, dtype=torch.float64),
            torch.randint(3, (n,), generator=draw),
        )
        for n in sizes
    ]


def dense_hessian(
    model: nn.Module,
    batches: list[tuple[Tensor, Tensor]],
    masks: dict[str, Tensor],
    names: tuple[str, ...] | None = None,
    loss_fn: Callable[..., Tensor] = nn.functional.cross_entropy,
) -> Tensor:
    """Write out the Hessian of the mean loss over all samples in a plain model's survivors."""
    parameters = {k: v.detach() for k, v in model.named_parameters() if names is None or k in names}
    alive = {k: masks.get(k, torch.ones_like(v, dtype=torch.bool)) for k, v in parameters.items()}
    flat = torch.cat([parameters[name][alive[name]] for name in parameters])
    x, y = (torch.cat(each) for each in zip(*batches, strict=True))

    def loss(values: Tensor) -> Tensor:
        full, start = {}, 0
        for name, mask in alive.items():
            spread = torch.eye(mask.numel(), dtype=flat.dtype)[:, mask.flatten()]
            part = values[start : start + spread.shape[1]]
            full[name] = (spread @ part).view(mask.shape)
            start += spread.shape[1]
        return loss_fn(functional_call(model, full, (x,)), y)

    return hessian(loss, flat)


def largest(matrix: Tensor) -> float:
    return float(torch.linalg.eigvalsh(matrix)[-1])


def sharp(model: nn.Module, batches: list[tuple[Tensor, Tensor]], **options) -> float:
    options = {"loss_fn": nn.CrossEntropyLoss(), "tolerance": 1e-10} | options
    return pol.sharpness(model, options.pop("loss_fn"), batches, **options)


def finite_difference_hessian(model, batch, masks) -> Tensor:
    """Difference first-order gradients: no kernel needs a second derivative for it."""
    x, y = batch
    parameters = dict(model.named_parameters())
    alive = {k: masks.get(k, torch.ones_like(v, dtype=torch.bool)) for k, v in parameters.items()}

    def gradient() -> Tensor:
        loss = nn.functional.cross_entropy(model(x), y)
        grads = torch.autograd.grad(loss, list(parameters.values()))
        return torch.cat([g[m] for g, m in zip(grads, alive.values(), strict=True)])

    rows, step = [], 1e-5
    for name, parameter in parameters.items():
        flat = parameter.data.view(-1)
        for at in alive[name].flatten().nonzero().flatten().tolist():
            value = float(flat[at])
            sides = []
            for moved in (value + step, value - step):
                flat[at] = moved
                sides.append(gradient())
            flat[at] = value
            rows.append((sides[0] - sides[1]) / (2 * step))
    matrix = torch.stack(rows)
    return (matrix + matrix.T) / 2
