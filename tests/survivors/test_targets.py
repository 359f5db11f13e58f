"""Which weights are found in a compact model: those that are found in the masked one."""

import torch
from torch import Tensor, nn

import polarity as pol
from tests.forms import compacted
from tests.models import OwnWeight


def compact_own_layers() -> nn.Module:
    model = OwnWeight()
    pol.imp_prune(model, density=0.5)
    return compacted(model)


def test_layers_of_others_keep_their_weight_as_target_and_not_their_bias() -> None:
    assert list(pol.find_targets(compact_own_layers())) == ["up.weight", "experts.weight"]
    assert list(pol.find_targets(compact_own_layers(), "*")) == ["up.weight", "experts.weight"]


def test_a_predicate_is_given_a_compact_weight_in_the_shape_of_the_weight() -> None:
    model, seen = compact_own_layers(), {}

    def matrix(name: str, parameter: Tensor) -> bool:
        seen[name] = tuple(parameter.shape)
        return parameter.ndim > 1

    assert list(pol.find_targets(model, matrix)) == ["up.weight", "experts.weight"]
    assert seen == {"up.weight": (4, 6), "up.bias": (6,), "experts.weight": (3, 6, 6)}
    assert torch.is_grad_enabled()
