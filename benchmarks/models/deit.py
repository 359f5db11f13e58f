"""DeiT-Small (Touvron et al. 2021) without distillation, on torchvision's VisionTransformer."""

from __future__ import annotations

import torch
from torch import nn

from .resnet import seeded


def deit_small(
    classes: int = 1000, *, image_size: int = 224, generator: torch.Generator | None = None
) -> nn.Module:
    """Build DeiT-S: 12 layers, 6 heads, width 384; 22 050 664 parameters at 224 pixels.

    Args:
        classes: number of outputs.
        image_size: height and width of an image, a multiple of 16.
        generator: a CPU generator; the one with seed 0 where it is not given.
    """
    from torchvision.models import VisionTransformer

    return seeded(
        lambda: VisionTransformer(
            image_size=image_size,
            patch_size=16,
            num_layers=12,
            num_heads=6,
            hidden_dim=384,
            mlp_dim=1536,
            num_classes=classes,
        ),
        generator,
    )
