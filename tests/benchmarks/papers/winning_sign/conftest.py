"""A network with masks, and a pipeline in a folder of its own."""

import pytest
import torch

from benchmarks.papers.winning_sign.networks import masked_network
from benchmarks.papers.winning_sign.run import Pipeline


@pytest.fixture
def pipeline(digits, tmp_path):
    return Pipeline(digits, tmp_path)


@pytest.fixture
def network():
    model = masked_network("small_resnet", (1, 8, 8), 10, torch.Generator().manual_seed(3))
    return model
