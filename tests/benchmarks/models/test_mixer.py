"""The Mixer against its equations, and the networks of the AWS experiments by size and shape."""

import pytest
import torch
from torch import nn
from torch.nn.functional import gelu, layer_norm

import polarity as pol
from benchmarks.models.mixer import Mixer, MixerBlock, mixer_s16, small_mixer
from benchmarks.models.mobile import MOBILE, mobile
from benchmarks.papers.winning_sign.networks import (
    build_network,
    classifier_name,
    masked_network,
    norm_parameters,
    vgg11_bn,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_a_block_is_what_the_paper_writes():
    block = MixerBlock(tokens=5, width=4, token_hidden=3, channel_hidden=6).double()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_(generator=generator())
    x = torch.randn(2, 5, 4, dtype=torch.float64, generator=generator(1))
    w1, b1, w2, b2 = block.token_mix.parameters()
    w3, b3, w4, b4 = block.channel_mix.parameters()
    scale1, shift1, scale2, shift2 = (
        *block.token_norm.parameters(),
        *block.channel_norm.parameters(),
    )
    for image, given in zip(x, block(x), strict=True):
        # U = X + W2 gelu(W1 LN(X)): the MLP acts on columns of the tokens x channels table.
        u = image + w2 @ gelu(w1 @ layer_norm(image, (4,), scale1, shift1) + b1[:, None])
        u = u + b2[:, None]
        y = u + gelu(layer_norm(u, (4,), scale2, shift2) @ w3.T + b3) @ w4.T + b4
        torch.testing.assert_close(given, y)


def test_patches_are_cut_row_by_row_and_tokens_averaged():
    model = Mixer((1, 4, 6), 3, patch=2, width=1, depth=1, token_hidden=2, channel_hidden=2)
    with torch.no_grad():
        model.embed.weight.fill_(1.0)
        model.embed.bias.zero_()
    images = torch.arange(24.0).reshape(1, 1, 4, 6)
    seen = []
    model.blocks.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    model(images)
    expected = [images[0, 0, r : r + 2, c : c + 2].sum() for r in (0, 2) for c in (0, 2, 4)]
    assert seen[0].flatten().tolist() == [float(each) for each in expected]


def test_layer_norm_is_its_only_normalisation():
    model = small_mixer((1, 28, 28), 10)
    kinds = {type(m) for m in model.modules() if "Norm" in type(m).__name__}
    assert kinds == {nn.LayerNorm}
    # 16 tokens; two norms per block and one at the end, weight and bias each.
    assert model.blocks[0].token_mix[0].in_features == 16
    assert len(norm_parameters(model)) == 2 * (3 * 2 + 1)


def test_mixer_s16_has_its_published_size():
    # Tolstikhin et al., Table 1: 19 million parameters; 18.5 with ImageNet's classifier.
    model = mixer_s16((3, 224, 224), 1000)
    assert sum(p.numel() for p in model.parameters()) == 18_528_264


def test_images_that_patches_do_not_tile_are_refused():
    with pytest.raises(ValueError, match="tile"):
        Mixer((1, 28, 28), 10, patch=5, width=4, depth=1, token_hidden=2, channel_hidden=2)


@pytest.mark.parametrize(
    ("name", "parameters"),
    # torchvision's published counts, at 1000 classes.
    [("mobilenet_v2", 3_504_872), ("shufflenet_v2", 2_278_604), ("efficientnet_b0", 5_288_548)],
)
def test_mobile_networks_have_torchvisions_weights_and_a_stem_that_keeps_resolution(
    name, parameters
):
    assert sum(p.numel() for p in mobile(name, (3, 224, 224), 1000).parameters()) == parameters
    last = {}
    for side in (32, 224):
        model = mobile(name, (3, side, side), 10).eval()
        seen = last.setdefault(side, [])
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(lambda *a, seen=seen: seen.append(a[2].shape[-1]))
        with torch.no_grad():
            assert model(torch.zeros(1, 3, side, side)).shape == (1, 10)
    # EfficientNet's squeezes end at 1x1 everywhere; the first map tells the stems apart.
    assert last[32][0] == 32
    assert last[224][0] == 112


def test_mobile_networks_need_colour():
    with pytest.raises(ValueError, match="three channels"):
        mobile(MOBILE[0], (1, 28, 28), 10)


def test_vgg11_has_torchvisions_features():
    from torchvision.models import vgg11_bn as reference

    ours = vgg11_bn((3, 32, 32), 10).features.state_dict()
    theirs = reference(weights=None).features.state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


@pytest.mark.parametrize("arch", ["small_resnet", "mixer", "small_vgg", "resnet32"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32)])
def test_small_networks_fit_every_data_set_and_depend_on_the_seed_alone(arch, shape):
    before = torch.get_rng_state()
    first, again, other = (build_network(arch, shape, 7, generator(s)) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    with torch.no_grad():
        assert first(torch.zeros(2, *shape)).shape == (2, 7)
    pairs = list(zip(first.parameters(), again.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert not all(torch.equal(a, c) for a, _, c in pairs)


@pytest.mark.parametrize("arch", ["small_resnet", "mixer", "small_vgg"])
def test_everything_but_the_classifier_is_masked_unless_asked_for(arch):
    model = masked_network(arch, (3, 32, 32), 10, generator())
    weights = {
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }
    classifier = f"{classifier_name(model)}.weight"
    assert set(pol.masks(model)) == weights - {classifier}
    whole = masked_network(arch, (3, 32, 32), 10, generator(), prune_classifier=True)
    assert set(pol.masks(whole)) == weights


def test_an_unknown_network_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="small_resnet"):
        build_network("resnet99", (3, 32, 32), 10, generator())
