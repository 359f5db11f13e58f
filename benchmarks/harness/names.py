"""Names that the command lines accept. Nothing here needs torch, so `--help` answers at once."""

from __future__ import annotations

from typing import Literal

DatasetName = Literal["digits", "mnist", "fashion_mnist", "cifar10", "cifar100"]
# Data sets that are folders of images, with the height and width of an image.
FolderName = Literal["imagenet", "tiny_imagenet"]
FOLDERS: dict[str, int] = {"imagenet": 224, "tiny_imagenet": 64}
Arch = Literal["fc", "conv2", "conv4", "conv6", "vgg16", "vgg16_bn", "vgg16_pretrained"]
NetworkName = Literal[
    "resnet8", "resnet14", "resnet20", "resnet32", "resnet18", "resnet50", "deit_small"
]
Init = Literal["glorot_normal", "kaiming_normal", "torch"]
OptimizerName = Literal["adam", "adamw", "sgd"]
ScheduleName = Literal["constant", "triangular", "multistep", "cosine"]
