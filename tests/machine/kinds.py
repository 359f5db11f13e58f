"""The models and the optimizers that the random machine runs through."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tests.models import Recurrent, SelfAttention, noise, seeded, tokens

Named = Sequence[tuple[str, nn.Parameter]]


@dataclass(frozen=True)
class Machine:
    """A model, its inputs, and the plain names of the weights that are pruned in it.

    ``by_default`` says whether these are what polarity takes when it is not told.
    """

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[torch.Generator], tuple[Tensor, ...]]
    weights: tuple[str, ...]
    by_default: bool = True

    def fresh(self, seed: int = 0) -> nn.Module:
        with torch.random.fork_rng(devices=()):
            model = seeded(self.build(), seed)
        return model.bfloat16() if self.name == "bfloat16" else model


@dataclass(frozen=True)
class Setting:
    """Optimizers for named parameters, and what a training step does in addition."""

    name: str
    build: Callable[[Named], list[torch.optim.Optimizer]]
    clip: float | None = None
    scale: float = 1.0
    micro_batches: int = 1
    schedule: Callable[[torch.optim.Optimizer], Any] | None = None
    closure: bool = False


class TiedWithMixer(nn.Module):
    """Token scores from the embedding's own matrix, with a layer of its own in between."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Embedding(7, 5)
        self.mix = nn.Linear(5, 5)
        self.decoder = nn.Linear(5, 7, bias=False)
        self.decoder.weight = self.encoder.weight

    def forward(self, given: Tensor) -> Tensor:
        return self.decoder(self.mix(self.encoder(given)).tanh())


class Transposed(nn.Module):
    """GPT-2's linear layer, whose weight has the inputs first."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs, outputs))
        self.bias = nn.Parameter(torch.empty(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


class SmallGPT(nn.Module):
    """Token and position embeddings, one causal block of transposed layers, a tied head."""

    def __init__(self, vocabulary: int = 9, width: int = 8, length: int = 5) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.c_attn, self.c_proj = Transposed(width, 3 * width), Transposed(width, width)
        self.c_fc, self.c_out = Transposed(width, 2 * width), Transposed(2 * width, width)
        self.drop = nn.Dropout(0.1)
        self.lm_head = nn.Linear(width, vocabulary, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, given: Tensor) -> Tensor:
        x = self.wte(given) + self.wpe(torch.arange(given.shape[1]))
        q, k, v = self.c_attn(self.ln_1(x)).chunk(3, dim=-1)
        later = torch.ones(given.shape[1], given.shape[1], dtype=torch.bool).triu(1)
        seen = (q @ k.mT).masked_fill(later, float("-inf")).softmax(-1)
        x = x + self.drop(self.c_proj(seen @ v))
        x = x + self.drop(self.c_out(self.c_fc(self.ln_2(x)).tanh()))
        return self.lm_head(x)


class SmallViT(nn.Module):
    """Patches, a class token, positions, one encoder layer with dropout, and a head."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.patches = nn.Conv2d(2, width, 3, stride=3)
        self.token = nn.Parameter(torch.empty(1, 1, width))
        self.position = nn.Parameter(torch.empty(1, 5, width))
        self.layer = nn.TransformerEncoderLayer(width, 2, 12, dropout=0.1, batch_first=True)
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patches(x).flatten(2).mT
        x = torch.cat([self.token.expand(len(x), -1, -1), patches], 1) + self.position
        return self.head(self.layer(x)[:, 0])


class Custom(nn.Module):
    """A layer of the user's own, which multiplies by its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(6, 4))
        self.out = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out((x @ self.weight).tanh())


class ResidualBlock(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Conv2d(2, width, 1, bias=False)
        self.fc = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return self.fc((y + self.shortcut(x)).relu().mean((2, 3)))


class Shared(nn.Module):
    """One layer under two names, called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.again = self.first
        self.last = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.again(self.first(x).tanh()).tanh())


def stack() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


def conv_bn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3),
    )  # fmt: skip


def depthwise() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(4, 8, 3, groups=4), nn.GroupNorm(2, 8), nn.Flatten(), nn.Linear(72, 3)
    )


def transposed() -> nn.Module:
    return nn.Sequential(
        nn.ConvTranspose2d(3, 4, 3, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(324, 3)
    )


def half_frozen() -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.Linear(5, 4), nn.Linear(4, 3))
    model[0].requires_grad_(False)
    return model


def normed() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(3, 6, 3), nn.InstanceNorm1d(6, affine=True), nn.Flatten(), nn.RMSNorm(36),
        nn.Linear(36, 4), nn.LayerNorm(4),
    )  # fmt: skip


def _recurrent(*suffixes: str, layers: int = 1) -> tuple[str, ...]:
    ends = [f"l{layer}{suffix}" for layer in range(layers) for suffix in suffixes]
    return (*(f"cell.weight_{kind}_{end}" for end in ends for kind in ("ih", "hh")), "head.weight")


_LAYER = ("self_attn.in_proj_weight", "self_attn.out_proj.weight", "linear1.weight",
          "linear2.weight")  # fmt: skip

MACHINES = [
    Machine("stack", stack, noise(4, 6), ("0.weight", "2.weight")),
    Machine("conv_bn", conv_bn, noise(3, 2, 6, 6), ("0.weight", "3.weight", "8.weight")),
    Machine("depthwise", depthwise, noise(2, 4, 5, 5), ("0.weight", "3.weight")),
    Machine("transposed", transposed, noise(2, 3, 4, 4), ("0.weight", "3.weight")),
    Machine(
        "attention",
        lambda: SelfAttention(8, 2, batch_first=True),
        noise(2, 5, 8),
        ("in_proj_weight", "out_proj.weight"),
    ),
    Machine(
        "lstm", lambda: Recurrent(nn.LSTM, num_layers=2), noise(2, 5, 4), _recurrent("", layers=2)
    ),
    Machine(
        "gru",
        lambda: Recurrent(nn.GRU, bidirectional=True),
        noise(2, 5, 4),
        _recurrent("", "_reverse"),
    ),
    Machine(
        "tied",
        TiedWithMixer,
        tokens(9, below=7),
        ("encoder.weight", "mix.weight"),
        by_default=False,
    ),
    Machine(
        "transformer",
        lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True),
        noise(2, 5, 8),
        _LAYER,
    ),
    Machine(
        "resnet",
        ResidualBlock,
        noise(3, 2, 5, 5),
        ("conv1.weight", "conv2.weight", "shortcut.weight", "fc.weight"),
    ),
    Machine(
        "gpt",
        SmallGPT,
        tokens(2, 5, below=9),
        tuple(f"{layer}.weight" for layer in ("c_attn", "c_proj", "c_fc", "c_out")),
        by_default=False,
    ),
    Machine(
        "vit",
        SmallViT,
        noise(2, 2, 6, 6),
        ("patches.weight", *(f"layer.{name}" for name in _LAYER), "head.weight"),
    ),
    Machine("custom", Custom, noise(4, 6), ("weight", "out.weight"), by_default=False),
    Machine("half_frozen", half_frozen, noise(4, 6), ("0.weight", "2.weight", "3.weight")),
    Machine("shared", Shared, noise(4, 6), ("first.weight", "last.weight")),
    Machine(
        "bfloat16",
        stack,
        lambda draw: (torch.randn(4, 6, generator=draw).bfloat16(),),
        ("0.weight", "2.weight"),
    ),
    Machine("normed", normed, noise(3, 3, 8), ("0.weight", "4.weight")),
]
# Larger than every size at which the library changes its way.
WIDE = Machine("wide", lambda: nn.Linear(300, 900), noise(4, 300), ("weight",))


def _one(kind: Callable[..., torch.optim.Optimizer], **options: Any) -> Callable[[Named], Any]:
    return lambda named: [kind([p for _, p in named], **options)]


def _two_groups(named: Named) -> list[torch.optim.Optimizer]:
    matrices = [p for _, p in named if p.dim() > 1]
    vectors = [p for _, p in named if p.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "lr": 0.02}]
    return [torch.optim.SGD(groups, lr=0.05, momentum=0.8)]


def _two_optimizers(named: Named) -> list[torch.optim.Optimizer]:
    matrices = [p for _, p in named if p.dim() > 1]
    vectors = [p for _, p in named if p.dim() <= 1]
    return [torch.optim.AdamW(matrices, lr=0.01), torch.optim.SGD(vectors, lr=0.05, momentum=0.9)]


def _muon(named: Named) -> list[torch.optim.Optimizer]:
    matrices = [p for _, p in named if p.dim() == 2]
    others = [p for _, p in named if p.dim() != 2]
    return [torch.optim.Muon(matrices, lr=0.01), torch.optim.AdamW(others, lr=0.01)]


def _step_lr(optimizer: torch.optim.Optimizer) -> Any:
    return torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.8)


def _one_cycle(optimizer: torch.optim.Optimizer) -> Any:
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.05, total_steps=100_000)


_O = torch.optim
SETTINGS = [
    Setting("sgd", _one(_O.SGD, lr=0.05)),
    Setting("momentum", _one(_O.SGD, lr=0.05, momentum=0.9)),
    Setting("nesterov", _one(_O.SGD, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01)),
    Setting("sgd_foreach", _one(_O.SGD, lr=0.05, momentum=0.9, dampening=0.1, foreach=True)),
    Setting("sgd_maximize", _one(_O.SGD, lr=0.001, momentum=0.5, maximize=True)),
    Setting("adam", _one(_O.Adam, lr=0.01)),
    Setting("adam_foreach", _one(_O.Adam, lr=0.01, weight_decay=0.1, foreach=True)),
    Setting("adam_fused", _one(_O.Adam, lr=0.01, fused=True)),
    Setting("amsgrad", _one(_O.Adam, lr=0.01, amsgrad=True)),
    Setting("adamw", _one(_O.AdamW, lr=0.01, weight_decay=0.1), clip=1.0),
    Setting("nadam", _one(_O.NAdam, lr=0.01)),
    Setting("radam", _one(_O.RAdam, lr=0.01)),
    Setting("adamax", _one(_O.Adamax, lr=0.01)),
    Setting("adagrad", _one(_O.Adagrad, lr=0.05)),
    Setting("adadelta", _one(_O.Adadelta, lr=1.0)),
    Setting("rmsprop", _one(_O.RMSprop, lr=0.005)),
    Setting("rmsprop_centered", _one(_O.RMSprop, lr=0.005, momentum=0.9, centered=True)),
    Setting("rprop", _one(_O.Rprop, lr=0.01)),
    Setting("asgd", _one(_O.ASGD, lr=0.05)),
    Setting("adafactor", _one(_O.Adafactor, lr=0.01)),
    Setting("lbfgs", _one(_O.LBFGS, lr=0.1, max_iter=2, history_size=3), closure=True),
    Setting("two_groups", _two_groups, schedule=_step_lr),
    Setting("two_optimizers", _two_optimizers),
    Setting("one_cycle", _one(_O.AdamW, lr=0.01), schedule=_one_cycle),
    Setting("accumulating", _one(_O.SGD, lr=0.05, momentum=0.9), micro_batches=2, clip=0.5),
    Setting("scaled", _one(_O.Adam, lr=0.01), scale=1024.0),
]
if hasattr(torch.optim, "Muon"):
    SETTINGS.append(Setting("muon", _muon))
