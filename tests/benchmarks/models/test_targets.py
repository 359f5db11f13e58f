"""The weights that the experiments prune by default: all linear layers and convolutions."""

import pytest
from torch import nn

import polarity as pol
from benchmarks.models import build_model
from benchmarks.models.mixer import small_mixer
from benchmarks.models.mobile import mobile
from benchmarks.models.networks import build_network

IMAGE = (3, 32, 32)
NETWORKS = {
    **{arch: lambda arch=arch: build_model(arch, IMAGE, 10) for arch in ("fc", "conv2", "conv6")},
    **{name: lambda name=name: build_network(name, IMAGE, 10) for name in ("resnet20", "resnet18")},
    "mixer": lambda: small_mixer(IMAGE, 10),
    "mobilenet_v2": lambda: mobile("mobilenet_v2", IMAGE, 10),
    "deit_small": lambda: build_network("deit_small", IMAGE, 10),
}


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_the_default_targets_are_all_linear_layers_convolutions_and_attention(make):
    model = make()
    layers = (nn.Linear, nn.modules.conv._ConvNd)
    expected = {f"{n}.weight" for n, m in model.named_modules() if isinstance(m, layers)}
    attention = {n for n, _ in model.named_parameters() if n.endswith("in_proj_weight")}
    found = pol.find_targets(model)
    assert set(found) == expected | attention
    assert found.reach.fraction > 0.98
