"""Multiply-adds of one forward pass, against counts by hand and PyTorch's counter."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from torch.utils.flop_counter import FlopCounterMode

import polarity as pol
from polarity._running import twice_differentiable
from polarity.analysis.products import Products
from tests.models import KINDS, ZOO, Experts, Kind, Tied, TransposedLinear, Twins, seeded


def counted(model: nn.Module, inputs: Any) -> tuple[dict[str, int], int]:
    products = Products.of(model, inputs)
    return products.counts, products.others


BY_HAND: dict[str, tuple[Callable[[], nn.Module], Any, dict[str, int], int]] = {
    "linear": (lambda: nn.Linear(6, 5), torch.ones(2, 6), {"weight": 2 * 6 * 5}, 0),
    "linear on one vector": (lambda: nn.Linear(6, 5), torch.ones(6), {"weight": 30}, 0),
    "linear on sequences": (
        lambda: nn.Linear(6, 5, bias=False), torch.ones(2, 7, 6), {"weight": 2 * 7 * 30}, 0,
    ),
    # 2 examples, 4 filters of 3x3x3, 5x5 places.
    "conv2d": (
        lambda: nn.Conv2d(3, 4, 3, padding=1), torch.ones(2, 3, 5, 5),
        {"weight": 2 * 4 * 27 * 25}, 0,
    ),
    "depthwise": (
        lambda: nn.Conv2d(4, 8, 3, groups=4), torch.ones(1, 4, 5, 5), {"weight": 8 * 9 * 9}, 0,
    ),
    # Every one of the 16 inputs goes to all entries of its channel's filters.
    "transposed": (
        lambda: nn.ConvTranspose2d(3, 4, 3, stride=2), torch.ones(1, 3, 4, 4),
        {"weight": 16 * 3 * 4 * 9}, 0,
    ),
    # 3 places: the input projection to 3 * 8, scores and mixtures of 2 heads of 4, the output.
    "attention": (
        lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), torch.ones(1, 3, 8),
        {"self_attn.in_proj_weight": 3 * 8 * 24, "self_attn.out_proj.weight": 3 * 8 * 8,
         "linear1.weight": 3 * 8 * 16, "linear2.weight": 3 * 16 * 8},
        2 * (2 * 3 * 3 * 4),
    ),
    "lstm": (
        lambda: nn.LSTM(4, 6, batch_first=True), torch.ones(1, 5, 4),
        {"weight_ih_l0": 5 * 24 * 4, "weight_hh_l0": 5 * 24 * 6}, 0,
    ),
    "twice": (lambda: Twins(5), torch.ones(1, 5), {"first.weight": 2 * 25}, 0),
    "embedding and decoder": (
        Tied, torch.tensor([1, 2, 3]), {"encoder.weight": 3 * 35, "middle.weight": 3 * 25}, 0,
    ),
    "the other way round": (
        lambda: TransposedLinear(4, 6), torch.ones(3, 4), {"weight": 3 * 24}, 0,
    ),
    # The sum over experts comes before the product, which no longer has a weight.
    "computed": (lambda: Experts(3, 6), torch.ones(1, 6), {}, 36),
}  # fmt: skip


@pytest.mark.parametrize("name", BY_HAND)
def test_counts_by_hand(name: str) -> None:
    build, inputs, weights, others = BY_HAND[name]
    assert counted(build(), inputs) == (weights, others)


@pytest.mark.parametrize("kind", [*KINDS, ZOO[0], ZOO[3]], ids=lambda kind: kind.name)
def test_all_together_are_the_flops_of_pytorchs_counter(kind: Kind) -> None:
    model, inputs = kind.build().eval(), kind.inputs(torch.Generator().manual_seed(0))
    flops = FlopCounterMode(display=False)
    with torch.no_grad(), twice_differentiable(model), flops:  # without fused kernels
        model(*inputs)
    weights, others = counted(model, inputs)
    assert 2 * (sum(weights.values()) + others) == flops.get_total_flops()


class AddedMatrix(nn.Module):
    """A matrix that is added to a product of activations, and one that is read by no product."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.ones(3, 3))
        self.scale = nn.Parameter(torch.ones(3, 4))
        self.unused = nn.Parameter(torch.ones(3, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.scale
        return torch.addmm(self.table, x, x.t())


def test_a_matrix_that_is_added_is_no_factor_and_an_unread_one_has_no_products() -> None:
    products = Products.of(AddedMatrix(), torch.ones(3, 4))
    assert (products.counts, products.others) == ({}, 3 * 4 * 3)
    assert products.of_weight("table") is None
    assert products.of_weight("scale") is None
    assert products.of_weight("unused") == 0


class Casting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return self.inner(x)


def test_a_weight_that_autocast_converts_is_still_the_factor() -> None:
    assert counted(Casting(), torch.ones(2, 6)) == ({"inner.weight": 60}, 0)


ATTACHED: dict[str, Callable[[nn.Module], Any]] = {
    "masked": lambda model: pol.imp_prune(model, density=0.3),
    "Sign-In": lambda model: pol.sign_in(model),
    "compact": lambda model: (
        pol.imp_prune(model, density=0.3), pol.compact(model, targets="weight")
    ),
    "torch.nn.utils.prune": lambda model: prune.l1_unstructured(model, "weight", amount=0.5),
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
}  # fmt: skip


@pytest.mark.parametrize("attach", ATTACHED.values(), ids=ATTACHED)
def test_dense_counts_do_not_depend_on_what_is_attached(attach: Callable[[nn.Module], Any]) -> None:
    model = seeded(nn.Linear(6, 5))
    attach(model)
    assert counted(model, torch.ones(2, 6)) == ({"weight": 60}, 0)


def test_weights_that_share_memory_are_told_apart() -> None:
    memory = torch.randn(5 * 6 + 5 * 5)
    model = nn.Sequential(nn.Linear(6, 5, bias=False), nn.Linear(5, 5, bias=False))
    model[0].weight.data, model[1].weight.data = memory[:30].view(5, 6), memory[30:].view(5, 5)
    assert counted(model, torch.ones(1, 6)) == ({"0.weight": 30, "1.weight": 25}, 0)


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_empty_weights_and_models_without_any_are_counted() -> None:
    empty = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 0))
    weights, others = counted(empty, torch.ones(1, 6))
    assert ({name: n for name, n in weights.items() if n}, others) == ({"0.weight": 30}, 0)
    assert counted(nn.ReLU(), torch.ones(3)) == ({}, 0)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_gpu_gives_the_same_counts_also_for_inputs_on_the_cpu(kind: Kind) -> None:
    model, inputs = kind.build(), kind.inputs(torch.Generator().manual_seed(0))
    expected = counted(model, inputs)
    assert counted(model.cuda(), inputs) == expected
