"""Masks that ``torch.nn.utils.prune`` keeps on tensors that are not taken over."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import polarity as pol
from tests.models import SelfAttention, seeded

CALLS = {
    "mask_weights": pol.mask_weights,
    "imp_prune": lambda model: pol.imp_prune(model, 0.1),
    "lrr_step": lambda model: pol.lrr_step(model, 0.1, rewind=pol.RewindPoint.capture(model)),
    "prune": lambda model: pol.prune(model, pol.scores.magnitude, amount=0.1),
    "sign_in": pol.sign_in,
    "load_masks": lambda model: pol.load_masks(model, {"0.weight": torch.ones(3, 4)}),
}


def pruned_by_torch() -> nn.Sequential:
    net = seeded(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)))
    for name in ("weight", "bias"):
        prune.l1_unstructured(net[0], name, amount=1)
    return net


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_takeover_names_what_torch_still_masks_and_the_two_ways_out(call):
    net = pruned_by_torch()
    with pytest.warns(UserWarning, match="still holds a mask") as seen:
        call(net)
    (message,) = [str(each.message) for each in seen]
    assert "still holds a mask on '0.bias', which" in message
    assert "torch.nn.utils.prune.remove(model.get_submodule('0'), 'bias') makes it perm" in message
    assert "mask_weights(model, targets='0.bias') takes it over" in message
    assert seen[0].filename == __file__
    assert hasattr(net[0], "bias_orig")
    assert not hasattr(net[0], "weight_orig")


def test_loading_a_masked_file_names_what_torch_still_masks(tmp_path):
    pytest.importorskip("safetensors")
    file = tmp_path / "model.safetensors"
    pol.save(pol.mask_weights(seeded(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)))), file)
    net = pruned_by_torch()
    with pytest.warns(UserWarning, match=r"mask on '0\.bias', which load leaves") as seen:
        pol.load(net, file)
    assert (len(seen), seen[0].filename) == (1, __file__)
    assert hasattr(net[0], "bias_orig")
    assert not hasattr(net[0], "weight_orig")


def test_merging_names_what_torch_still_masks():
    net = pruned_by_torch()
    with pytest.warns(UserWarning, match=r"mask on '0\.bias'"):
        pol.mask_weights(net)
    with pytest.warns(UserWarning, match=r"mask on '0\.bias', which merge leaves"):
        pol.merge(net)
    assert hasattr(net[0], "bias_orig")


@pytest.mark.parametrize("way", ["remove", "take over"])
def test_each_of_the_two_ways_ends_it(way):
    net = pruned_by_torch()
    with pytest.warns(UserWarning, match=r"0\.bias"):
        pol.imp_prune(net, 0.1)
    bias = net[0].bias.detach().clone()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if way == "remove":
            prune.remove(net.get_submodule("0"), "bias")
        else:
            pol.mask_weights(net, targets="0.bias")
        pol.imp_prune(net, 0.1)
        pol.merge(net)
    assert torch.equal(net[0].bias, bias)
    assert isinstance(net[0].bias, nn.Parameter)
    assert not net[0]._forward_pre_hooks


def test_a_round_after_the_takeover_does_not_warn_again():
    net = pruned_by_torch()
    with pytest.warns(UserWarning, match=r"0\.bias"):
        pol.imp_prune(net, 0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pol.imp_prune(net, 0.1)
        pol.sign_flips(net, net)


def test_several_are_counted_and_the_model_itself_is_called_model():
    layer = SelfAttention(8, 2)
    for name in ("in_proj_bias", "in_proj_weight"):
        prune.random_unstructured(layer, name, amount=1)
    prune.random_unstructured(layer.out_proj, "bias", amount=1)
    with pytest.warns(UserWarning, match=r"'in_proj_bias' and 1 more.*remove\(model, 'in_proj_b"):
        pol.mask_weights(layer)


def test_nothing_is_said_where_torch_masks_nothing_else():
    net = seeded(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)))
    prune.l1_unstructured(net[0], "weight", amount=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pol.merge(pol.mask_weights(net))
