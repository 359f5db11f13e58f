"""A small network with masks in forward, by hand or in the step, and how it is trained."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn, optim
from torch.nn.functional import cross_entropy, linear

import polarity as pol
from tests.models import seeded

STEPS = 40
INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}

BuildOptimizer = Callable[[Any], optim.Optimizer]
Treatment = Callable[[nn.Module], Any]


def network() -> nn.Sequential:
    return seeded(nn.Sequential(nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 4))).train()


def drawn_masks(seed: int = 3) -> list[Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return [torch.rand(shape, generator=draw) < 0.4 for shape in ((10, 12), (4, 10))]


OUTSIDE = ~drawn_masks()[0]


def install(model: nn.Module, masks: list[Tensor]) -> nn.Module:
    return pol.load_masks(model, {"0.weight": masks[0], "2.weight": masks[1]})


def in_forward(product: bool = False) -> nn.Sequential:
    """Return the network with its masks in forward, as a masked or a Sign-In model."""
    model = install(network(), drawn_masks())
    return pol.sign_in(model) if product else model


class ByHand(nn.Module):
    """Two linear layers whose weights are multiplied by their masks, without polarity."""

    def __init__(self, masks: list[Tensor], product: bool) -> None:
        super().__init__()
        plain = network()
        self.masks, self.product = masks, product
        weights = [plain[0].weight.detach(), plain[2].weight.detach()]
        if product:
            pairs = [pol.parametrizations.balanced_factors(w, 1.0) for w in weights]
            leaves = [f * mask for pair, mask in zip(pairs, masks, strict=True) for f in pair]
        else:
            leaves = [w * mask for w, mask in zip(weights, masks, strict=True)]
        self.leaves = nn.ParameterList(nn.Parameter(leaf) for leaf in leaves)
        self.biases = nn.ParameterList([plain[0].bias, plain[2].bias])

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """In the order of the converted network, on which clipping by norm depends."""
        for i in (0, 1):
            yield self.biases[i]
            yield from self.leaves[2 * i : 2 * i + 2] if self.product else self.leaves[i : i + 1]

    def weight(self, i: int) -> Tensor:
        if self.product:
            return self.leaves[2 * i] * self.leaves[2 * i + 1] * self.masks[i]
        return self.leaves[i] * self.masks[i]

    def forward(self, x: Tensor) -> Tensor:
        hidden = linear(x, self.weight(0), self.biases[0]).relu()
        return linear(hidden, self.weight(1), self.biases[1])


def batches(seed: int = 5) -> Iterator[tuple[Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randn(6, 12, generator=draw), torch.randint(4, (6,), generator=draw)


def nothing(model: nn.Module) -> None:
    pass


def train(
    model: nn.Module,
    optimizer: optim.Optimizer,
    steps: int = STEPS,
    before_step: Treatment = nothing,
    seed: int = 5,
) -> nn.Module:
    for _, (x, y) in zip(range(steps), batches(seed), strict=False):
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        before_step(model)
        optimizer.step()
    return model


def both(build: BuildOptimizer, product: bool = False) -> list[tuple[nn.Module, optim.Optimizer]]:
    """Return two equal models and their optimizers, the first one enforced in the step."""
    models = [in_forward(product) for _ in range(2)]
    pairs = [(model, build(model.parameters())) for model in models]
    pol.enforce_in_step(*pairs[0])
    return pairs


def momentum(parameters: Any) -> optim.Optimizer:
    return optim.SGD(parameters, 0.1, momentum=0.9)


def enforced(product: bool = False, build: BuildOptimizer = momentum) -> Any:
    """Return a model enforced in the step, its optimizer and the handle."""
    model = in_forward(product)
    optimizer = build(model.parameters())
    return model, optimizer, pol.enforce_in_step(model, optimizer)


def leaves(model: nn.Module, layer: int = 0) -> list[nn.Parameter]:
    return [p for _, p in model[layer].parametrizations.weight.named_parameters()]


def stored(model: nn.Module) -> nn.Parameter:
    return model[0].parametrizations.weight.original


def effective(model: nn.Module) -> list[Tensor]:
    if isinstance(model, ByHand):
        return [model.weight(0).detach(), model.weight(1).detach()]
    with torch.no_grad():
        return [model[0].weight.clone(), model[2].weight.clone()]


def same(one: nn.Module, other: nn.Module) -> bool:
    """Whether two models compute with equal weights: survivors by bits, zeros by value."""
    for a, b in zip(effective(one), effective(other), strict=True):
        bits = INTEGERS[a.element_size()]
        live = a != 0
        if not torch.equal(a, b) or not torch.equal(a[live].view(bits), b[live].view(bits)):
            return False
    return True


def all_zero(model: nn.Module) -> bool:
    """Whether everything that is stored outside the masks is zero."""
    masks = pol.masks(model)
    return not any(p[~masks[f"{i}.weight"]].any() for i in (0, 2) for p in leaves(model, i))


def masks_in_forward(model: nn.Module) -> bool:
    """Whether the first layer's next forward pass multiplies by the mask, by its graph."""
    node, products = model[0].weight.grad_fn, 0
    while node is not None and type(node).__name__ == "MulBackward0":
        node, products = node.next_functions[0][0], products + 1
    return products == len(leaves(model))
