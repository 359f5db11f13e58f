"""Sign flips: counted by hand, through the mask, between any two forms of weights."""

import numpy as np
import pytest
import torch
from torch import nn

import polarity as pol
from tests.forms import random_masks
from tests.models import Tied, seeded


def mlp(seed: int = 0) -> nn.Module:
    return seeded(nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 4)), seed)


def numpy_counts(before, after, mask):
    """Return (flipped, counted, survivors) by the definition, with numpy's own sign."""
    one, other = np.sign(before.double().numpy()), np.sign(after.double().numpy())
    live = mask.numpy()
    return (
        int(((one == -other) & (one != 0) & live).sum()),
        int(((one != 0) & (other != 0) & live).sum()),
        int(live.sum()),
    )


def test_a_case_counted_by_hand():
    before = {"w": torch.tensor([1.0, 1.0, -1.0, -1.0, 0.0, 1.0, 1.0, -0.0])}
    after = {"w": torch.tensor([2.0, -1.0, -2.0, 3.0, 1.0, 0.0, -1.0, -1.0])}
    masks = {"w": torch.tensor([1, 1, 1, 1, 1, 1, 0, 1], dtype=torch.bool)}
    layer = pol.sign_flips(before, after, masks)["w"]
    # Entries 1 and 3 flip; 4, 5 and 7 are zero on one side; 6 is pruned.
    assert (layer.flipped, layer.counted, layer.survivors) == (2, 4, 7)
    assert layer.fraction == 0.5


def test_without_masks_an_entry_that_ends_at_zero_is_pruned():
    before = {"w": torch.tensor([1.0, 1.0, 0.0])}
    after = {"w": torch.tensor([-1.0, 0.0, 1.0])}
    layer = pol.sign_flips(before, after)["w"]
    assert (layer.flipped, layer.counted, layer.survivors) == (1, 1, 2)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_counts_equal_numpys(dtype):
    draw = torch.Generator().manual_seed(0)
    before, after = torch.randn(2, 40, 30, generator=draw).to(dtype)
    before[:3] = 0
    after[2:5] = -0.0
    after[7] = torch.finfo(dtype).tiny  # whose product with anything small is zero
    before[7] = -torch.finfo(dtype).tiny
    mask = torch.rand(40, 30, generator=draw) < 0.4
    layer = pol.sign_flips({"w": before}, {"w": after}, {"w": mask})["w"]
    expected = numpy_counts(before, after, mask)
    assert (layer.flipped, layer.counted, layer.survivors) == expected
    assert 0 < layer.flipped < layer.counted < layer.survivors


def test_nan_has_no_sign():
    report = pol.sign_flips(
        {"w": torch.tensor([1.0, float("nan")])}, {"w": torch.tensor([-1.0, 1.0])}
    )
    assert (report.flipped, report.counted, report.survivors) == (1, 1, 2)


def test_the_whole_model_is_the_sum_of_its_layers_not_the_mean_of_their_fractions():
    before = {"a": torch.ones(10), "b": torch.ones(2)}
    after = {"a": torch.ones(10), "b": -torch.ones(2)}
    report = pol.sign_flips(before, after)
    assert [layer.fraction for layer in report] == [0.0, 1.0]
    assert report.fraction == 2 / 12
    assert len(report) == 2
    assert str(report).splitlines()[-1].split() == ["total", "12", "12", "2", f"{2 / 12:.4f}"]


def test_a_model_brings_its_masks_and_only_its_masked_weights_are_compared():
    model = mlp()
    start = pol.RewindPoint.capture(model)
    masks = random_masks(model)
    pol.mask_weights(model, masks=masks)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.neg_()
    report = pol.sign_flips(start, model)
    assert [layer.name for layer in report] == ["0.weight", "2.weight"]
    for layer in report:
        assert layer.survivors == int(masks[layer.name].sum())
        assert layer.flipped == layer.counted == layer.survivors


@pytest.mark.parametrize("convert", [lambda m: m, pol.sign_in, pol.merge])
def test_the_form_of_the_weights_does_not_matter(convert):
    before, after = mlp(0), mlp(1)
    masks = random_masks(after)
    expected = pol.sign_flips(
        pol.RewindPoint.capture(before).weights, pol.RewindPoint.capture(after).weights, masks
    )
    pol.mask_weights(after, masks=masks)
    assert pol.sign_flips(before, convert(after)) == expected
    assert expected.flipped > 0


def test_a_remembered_mask_counts_like_an_enforced_one():
    before, after = mlp(0), mlp(1)
    pol.mask_weights(after, masks=random_masks(after))
    expected = pol.sign_flips(before, after)
    for module in after.modules():
        if isinstance(module, pol.MaskedWeight):
            module.enforce = False
    assert pol.sign_flips(before, after) == expected


def test_two_rewind_points_are_compared_whole():
    one, other = pol.RewindPoint.capture(mlp(0)), pol.RewindPoint.capture(mlp(1))
    names = {layer.name for layer in pol.sign_flips(one, other)}
    assert names == {name for name, value in one.weights.items() if value.is_floating_point()}


def test_a_tied_weight_is_counted_once():
    one, other = (pol.mask_weights(seeded(Tied(), seed), targets="decoder") for seed in (0, 1))
    report = pol.sign_flips(one, other)
    assert [layer.survivors for layer in report] == [35]


def test_int8_signs_are_weights_too():
    model = mlp()
    signs = {"0.weight": model[0].weight.detach().sign().to(torch.int8)}
    masks = {"0.weight": torch.ones(5, 6)}
    assert pol.sign_flips(signs, model, masks).flipped == 0
    assert pol.sign_flips({"0.weight": -signs["0.weight"]}, model, masks).flipped == 30


def test_nothing_is_changed():
    before, after = mlp(0), pol.sign_in(mlp(1))
    states = [{k: v.clone() for k, v in each.state_dict().items()} for each in (before, after)]
    pol.sign_flips(before, after)
    for model, state in zip((before, after), states, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("before", "after", "masks", "message"),
    [
        ({}, {"w": torch.ones(2)}, None, "before is missing 'w'"),
        ({"w": torch.ones(2)}, {"w": torch.ones(3)}, None, r"before holds 'w' in shape \(2,\)"),
        ({"w": torch.ones(2)}, {}, None, "masks is empty, and after holds no weights"),
        ({"w": torch.ones(2)}, {}, {"w": torch.ones(2)}, "after is missing 'w'"),
        ({"w": torch.ones(2)}, {"w": torch.ones(2)}, {"w": torch.ones(3)}, "masks holds 'w'"),
        ({"w": torch.ones(2)}, {"w": torch.ones(2)}, {"w": torch.full((2,), 0.5)}, "'w'.*zeros"),
        ({"w": torch.ones(2)}, {"w": torch.ones(2).long()}, {"w": torch.ones(2)}, "after holds"),
    ],
)
def test_what_cannot_be_compared_is_named(before, after, masks, message):
    with pytest.raises(ValueError, match=message):
        pol.sign_flips(before, after, masks)


def test_another_type_is_refused():
    with pytest.raises(TypeError, match="before is an int, expected a model, a RewindPoint"):
        pol.sign_flips(3, {"w": torch.ones(2)})  # type: ignore[arg-type]
