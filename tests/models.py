"""The models that several test files build, and their inputs."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from torch import Tensor, nn


@dataclass(frozen=True)
class Kind:
    """A model, what to feed it, and whether ``torch.compile(fullgraph=True)`` can take it."""

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[torch.Generator], tuple[Tensor, ...]]
    fullgraph: bool = True


class Tied(nn.Module):
    """Token scores from the embedding's own matrix, which is a target only when asked for."""

    def __init__(self, tokens: int = 7, width: int = 5) -> None:
        super().__init__()
        self.encoder = nn.Embedding(tokens, width)
        self.middle = nn.Linear(width, width)
        self.decoder = nn.Linear(width, tokens, bias=False)
        self.decoder.weight = self.encoder.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.decoder(self.middle(self.encoder(tokens)).tanh())


class Twins(nn.Module):
    """One matrix in two layers, neither of them an embedding."""

    def __init__(self, width: int = 5) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).tanh())


class TransposedLinear(nn.Module):
    """A linear layer with its matrix the other way round, as transformers' ``Conv1D`` has it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs) * 0.02)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


class Experts(nn.Module):
    """Several matrices in one tensor of three dimensions."""

    def __init__(self, experts: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(experts, width, width) * 0.02)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("...i,eio->...o", x, self.weight)


class OwnWeight(nn.Module):
    """Layers with a ``weight`` that are not PyTorch's."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.experts = TransposedLinear(4, 6), Experts(3, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.experts(self.up(x).tanh())


class SmallGpt2(nn.Module):
    """The parameters of transformers' ``GPT2LMHeadModel`` in small, under the same names."""

    def __init__(self, tokens: int = 50, width: int = 8, layers: int = 2) -> None:
        super().__init__()
        blocks = [
            nn.ModuleDict({
                "ln_1": nn.LayerNorm(width),
                "attn": nn.ModuleDict({"c_attn": TransposedLinear(width, 3 * width),
                                       "c_proj": TransposedLinear(width, width)}),
                "ln_2": nn.LayerNorm(width),
                "mlp": nn.ModuleDict({"c_fc": TransposedLinear(width, 4 * width),
                                      "c_proj": TransposedLinear(4 * width, width)}),
            })
            for _ in range(layers)
        ]  # fmt: skip
        self.transformer = nn.ModuleDict({
            "wte": nn.Embedding(tokens, width), "wpe": nn.Embedding(16, width),
            "h": nn.ModuleList(blocks), "ln_f": nn.LayerNorm(width),
        })  # fmt: skip
        self.lm_head = nn.Linear(width, tokens, bias=False)
        self.lm_head.weight = self.transformer["wte"].weight

    def forward(self, tokens: Tensor) -> Tensor:
        inner: Any = self.transformer
        x = inner["wte"](tokens) + inner["wpe"](torch.arange(tokens.shape[1]))
        for block in inner["h"]:
            q, k, v = block["attn"]["c_attn"](block["ln_1"](x)).chunk(3, -1)
            mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + block["attn"]["c_proj"](mixed)
            x = x + block["mlp"]["c_proj"](block["mlp"]["c_fc"](block["ln_2"](x)).relu())
        return self.lm_head(inner["ln_f"](x))


class SelfAttention(nn.MultiheadAttention):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x, x, x)[0]


class Recurrent(nn.Module):
    """An LSTM or GRU whose last output goes through a classifier."""

    def __init__(
        self, cell: type[nn.RNNBase], width: int = 6, classes: int = 3, **how: int
    ) -> None:
        super().__init__()
        self.cell = cell(4, width, batch_first=True, **how)
        self.head = nn.Linear(width * (2 if how.get("bidirectional") else 1), classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x)[0][:, -1])


class TextEncoder(nn.Module):
    """Embedding, ``nn.TransformerEncoder`` and a classifier on the mean."""

    def __init__(self, width: int = 16, classes: int = 4) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, width)
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(width, classes)

    def forward(self, tokens: Tensor, padding: Tensor | None = None) -> Tensor:
        return self.head(self.encoder(self.embed(tokens), src_key_padding_mask=padding).mean(1))


def seeded(model: nn.Module, seed: int = 0) -> nn.Module:
    """Fill parameters and floating buffers from a generator of their own; no entry is ever 0."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            fan_in = max(1, parameter[0].numel()) if parameter.dim() > 1 else 16
            parameter.copy_(torch.randn(parameter.shape, generator=draw) / fan_in**0.5)
            if parameter.dim() == 1:
                parameter.add_(0.5)
        for name, buffer in model.named_buffers():
            if buffer.is_floating_point():
                fresh = torch.rand(buffer.shape, generator=draw)
                buffer.copy_(fresh + 0.5 if name.endswith("var") else fresh - 0.5)
    return model


def noise(*shape: int) -> Callable[[torch.Generator], tuple[Tensor, ...]]:
    return lambda draw: (torch.randn(shape, generator=draw),)


def tokens(*shape: int, below: int) -> Callable[[torch.Generator], tuple[Tensor, ...]]:
    return lambda draw: (torch.randint(below, shape, generator=draw),)


KINDS = [
    Kind("linear", lambda: nn.Linear(6, 5), noise(4, 6)),
    Kind("conv1d", lambda: nn.Conv1d(3, 4, 3), noise(2, 3, 8)),
    Kind("conv2d", lambda: nn.Conv2d(3, 4, 3, padding=1), noise(2, 3, 5, 5)),
    Kind("depthwise", lambda: nn.Conv2d(4, 8, 3, groups=4), noise(2, 4, 5, 5)),
    Kind("transposed", lambda: nn.ConvTranspose2d(3, 4, 3, stride=2), noise(2, 3, 4, 4)),
    Kind("attention", lambda: SelfAttention(8, 2, batch_first=True), noise(2, 5, 8)),
    Kind("lstm", lambda: Recurrent(nn.LSTM, num_layers=2), noise(2, 5, 4), fullgraph=False),
    Kind("gru", lambda: Recurrent(nn.GRU, bidirectional=True), noise(2, 5, 4), fullgraph=False),
    Kind("tied", Tied, tokens(9, below=7)),
    Kind("twins", Twins, noise(4, 5)),
    Kind("own_weight", OwnWeight, noise(4, 4)),
    Kind(
        "transformer",
        lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True),
        noise(2, 5, 8),
    ),
]


# Larger than every size at which the library changes its way: masks, selection, draws.
WIDE = Kind("wide", lambda: nn.Linear(300, 900), noise(4, 300))


def small_conv(seed: int = 0) -> nn.Module:
    return seeded(
        nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)
        ),
        seed,
    ).train()


def light_vgg() -> nn.Module:
    """Build ``vgg11_bn`` with one linear layer for a classifier: no 4096-wide matrices."""
    with torch.device("meta"):
        model = torchvision.models.vgg11_bn(init_weights=False)
        model.avgpool = nn.AdaptiveAvgPool2d(1)
        model.classifier = nn.Linear(512, 10)
    return model.to_empty(device="cpu")


def light_vit() -> nn.Module:
    return torchvision.models.VisionTransformer(
        image_size=32, patch_size=16, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64
    )


ZOO = [
    Kind("resnet18", lambda: torchvision.models.resnet18(num_classes=10), noise(2, 3, 32, 32)),
    Kind("mobilenet_v2", lambda: torchvision.models.mobilenet_v2(), noise(2, 3, 32, 32)),
    Kind("light_vgg11_bn", light_vgg, noise(2, 3, 32, 32)),
    Kind("light_vit", light_vit, noise(2, 3, 32, 32)),
    Kind("lstm", lambda: Recurrent(nn.LSTM, num_layers=2), noise(4, 5, 4)),
    Kind("transformer", TextEncoder, tokens(3, 6, below=11)),
]
LARGE_ZOO = [
    Kind("vgg11_bn", lambda: torchvision.models.vgg11_bn(), noise(2, 3, 32, 32)),
    Kind("vit_b_16", lambda: torchvision.models.vit_b_16(), noise(1, 3, 224, 224)),
]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def redraw(model: nn.Module, seed: int) -> None:
    """Stand in for training: every parameter moves, and some change sign."""
    draw = generator(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw))


# Models and data for scores computed from a loss.

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


def mlp(*widths: int, seed: int = 0) -> nn.Module:
    parts: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        parts += [nn.Linear(inputs, outputs), nn.ReLU()]
    return seeded(nn.Sequential(*parts[:-1]), seed)


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


# Pruned models to compress.


def thinned(model: nn.Module, density: float = 0.2, seed: int = 0) -> nn.Module:
    """Zero a fixed number of entries of every matrix of a model, in evaluation mode."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw))
            if parameter.dim() == 2:
                order = torch.randperm(parameter.numel(), generator=draw)
                parameter.view(-1)[order[round(density * parameter.numel()) :]] = 0
    return model.eval()


def thin_mlp(density: float = 0.2) -> nn.Module:
    return thinned(mlp(6, 8, 3), density)


def x_of(*shape: int, seed: int = 5, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
