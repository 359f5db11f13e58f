"""MLP-Mixer (Tolstikhin et al. 2021): patches, MLPs across them and across channels, LayerNorm."""

from __future__ import annotations

import torch
from torch import nn


class MixerBlock(nn.Module):
    """One round of token mixing and channel mixing, each behind a LayerNorm and a skip."""

    def __init__(self, tokens: int, width: int, token_hidden: int, channel_hidden: int) -> None:
        super().__init__()
        self.token_norm = nn.LayerNorm(width)
        self.token_mix = _mlp(tokens, token_hidden)
        self.channel_norm = nn.LayerNorm(width)
        self.channel_mix = _mlp(width, channel_hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, tokens, width) to the same shape."""
        x = x + self.token_mix(self.token_norm(x).transpose(1, 2)).transpose(1, 2)
        mixed: torch.Tensor = x + self.channel_mix(self.channel_norm(x))
        return mixed


class Mixer(nn.Module):
    """The network; its only normalisation is LayerNorm.

    Args:
        dataset_shape: channels, height and width of an image.
        classes: number of outputs.
        patch: side of a square patch; it must divide height and width.
        width: channels of a token.
        depth: number of blocks.
        token_hidden: hidden units of the MLP across tokens.
        channel_hidden: hidden units of the MLP across channels.

    Raises:
        ValueError: the patches do not tile the image.
    """

    def __init__(
        self,
        dataset_shape: tuple[int, int, int],
        classes: int,
        *,
        patch: int,
        width: int,
        depth: int,
        token_hidden: int,
        channel_hidden: int,
    ) -> None:
        super().__init__()
        channels, height, rest = dataset_shape
        if height % patch or rest % patch:
            raise ValueError(f"patches of {patch}x{patch} do not tile images of {dataset_shape}")
        tokens = (height // patch) * (rest // patch)
        self.embed = nn.Conv2d(channels, width, patch, stride=patch)
        self.blocks = nn.Sequential(
            *(MixerBlock(tokens, width, token_hidden, channel_hidden) for _ in range(depth))
        )
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images (N, C, H, W) to logits (N, classes)."""
        x = self.blocks(self.embed(images).flatten(2).transpose(1, 2))
        logits: torch.Tensor = self.classifier(self.norm(x).mean(dim=1))
        return logits


def mixer_s16(dataset_shape: tuple[int, int, int], classes: int) -> Mixer:
    """Build Mixer-S/16 of Tolstikhin et al.; the AWS paper does not say which size it used."""
    return Mixer(
        dataset_shape,
        classes,
        patch=16,
        width=512,
        depth=8,
        token_hidden=256,
        channel_hidden=2048,
    )


def small_mixer(dataset_shape: tuple[int, int, int], classes: int) -> Mixer:
    """Build a Mixer of a size that one CPU core trains in seconds: 16 tokens of a square image."""
    patch = max(1, min(dataset_shape[1:]) // 4)
    return Mixer(
        dataset_shape,
        classes,
        patch=patch,
        width=64,
        depth=3,
        token_hidden=32,
        channel_hidden=128,
    )


def _mlp(size: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(size, hidden), nn.GELU(), nn.Linear(hidden, size))
