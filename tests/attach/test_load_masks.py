"""Masks read and written, and the fraction they leave alive."""

from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrize

import polarity as pol
from tests.forms import half_masked, half_remembered
from tests.helpers import outputs, plain_state, same_state, train, train_step
from tests.models import Tied, noise, seeded


def small(seed: int = 0) -> nn.Sequential:
    return seeded(nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)), seed)


INPUTS = noise(4, 6)(torch.Generator().manual_seed(2))
SECOND = torch.eye(3, 5)


def test_masks_are_copies_in_model_order() -> None:
    model = half_masked(small())
    masks = pol.masks(model)
    assert list(masks) == ["0.weight", "2.weight"]
    kept = masks["0.weight"].clone()
    masks["0.weight"].logical_not_()
    assert torch.equal(pol.masks(model)["0.weight"], kept)


def test_a_mask_that_is_only_remembered_is_shown_like_any_other() -> None:
    enforced, remembered = pol.masks(half_masked(small())), pol.masks(half_remembered(small()))
    assert all(torch.equal(enforced[name], remembered[name]) for name in enforced)


def test_masks_of_one_model_install_in_another() -> None:
    model, other = half_masked(small()), small(5)
    assert pol.load_masks(other, pol.masks(model)) is other
    for name, mask in pol.masks(model).items():
        assert torch.equal(pol.masks(other)[name], mask)
        expected = small(5).get_parameter(name).masked_fill(~mask, 0.0)
        assert torch.equal(other.get_submodule(name.removesuffix(".weight")).weight, expected)


def test_weights_that_are_not_named_keep_their_masks() -> None:
    model = half_masked(small())
    first = pol.masks(model)["0.weight"]
    pol.load_masks(model, {"2.weight": SECOND})
    assert torch.equal(pol.masks(model)["0.weight"], first)
    assert torch.equal(pol.masks(model)["2.weight"], SECOND.bool())


def test_an_entry_that_comes_to_life_again_starts_at_zero_and_trains() -> None:
    model = pol.load_masks(small(), {"2.weight": torch.zeros(3, 5)})
    pol.load_masks(model, {"2.weight": SECOND})
    assert not model[2].weight.any()
    train(model, INPUTS)
    assert torch.equal(model[2].weight != 0, SECOND.bool())


@pytest.mark.parametrize("product", [False, True], ids=["masked", "sign_in"])
def test_an_entry_that_old_momentum_moved_starts_at_zero_when_it_is_live_again(
    product: bool,
) -> None:
    model = pol.mask_weights(small())
    if product:
        pol.sign_in(model, beta=0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(3):
        train_step(model, optimizer, INPUTS)
    pol.imp_prune(model, density=0.2)  # without optimizer=: its momentum is still there
    train_step(model, optimizer, INPUTS)
    pruned = ~pol.masks(model)["2.weight"]
    stored = list(model[2].parametrizations.weight.parameters(recurse=False))
    assert all(leaf[pruned].any() for leaf in stored), "nothing moved: the test shows nothing"
    pol.load_masks(model, {"2.weight": torch.ones(3, 5)})
    assert not model[2].weight[pruned].any()
    if product:
        assert torch.equal(stored[0][pruned], torch.full((int(pruned.sum()),), 0.5**0.5))
        assert not stored[1][pruned].any()


def test_loading_masks_zeroes_what_is_stored_outside_them() -> None:
    model = half_remembered(small())
    pol.load_masks(model, {"2.weight": SECOND})
    chain = model[2].parametrizations.weight
    assert not chain.original[SECOND == 0].any()
    assert chain[0].enforce
    assert int(model[2].weight.count_nonzero()) == 3


def test_a_tied_weight_takes_a_mask_under_either_name_and_both_users_see_it() -> None:
    mask = torch.eye(7, 5)
    for name in ("encoder.weight", "decoder.weight"):
        model = pol.load_masks(seeded(Tied()), {name: mask})
        assert list(pol.masks(model)) == ["encoder.weight"]
        assert torch.equal(model.encoder.weight != 0, mask.bool())
        assert torch.equal(model.decoder.weight, model.encoder.weight)


@pytest.mark.parametrize("change", ["fill", "swap"])
def test_a_mask_changed_by_hand_takes_effect_at_once(change: str) -> None:
    model = pol.mask_weights(small())
    masking = model[2].parametrizations.weight[0]
    if change == "fill":
        masking.mask.copy_(SECOND)
    else:
        masking.mask = SECOND.bool()
    assert torch.equal(model[2].weight, small()[2].weight * SECOND)
    assert pol.density(model) == (30 + 3) / 45


BAD = {
    "empty": ({}, ValueError, "empty"),
    "unknown": ({"9.weight": SECOND}, ValueError, r"9\.weight"),
    "bias_shape": ({"2.bias": SECOND}, ValueError, r"2\.bias"),
    "shape": ({"2.weight": SECOND.T}, ValueError, r"2\.weight.*\(5, 3\).*\(3, 5\)"),
    "values": ({"2.weight": SECOND * 2}, ValueError, r"2\.weight.*zeros and ones"),
    "nan": ({"2.weight": SECOND / 0}, ValueError, r"2\.weight"),
    "list": ({"2.weight": SECOND.tolist()}, TypeError, r"2\.weight"),
    "array": ({"2.weight": SECOND.numpy()}, TypeError, r"2\.weight"),
}


@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_bad_masks_are_refused_by_name_and_change_nothing(bad: Any, masked: bool) -> None:
    masks, error, named = bad
    model = half_masked(small()) if masked else small()
    before = plain_state(model)
    with pytest.raises(error, match=named):
        pol.load_masks(model, {"0.weight": torch.zeros(5, 6)} | masks if masks else masks)
    assert same_state(plain_state(model), before)
    assert any(parametrize.is_parametrized(module) for module in model.modules()) == masked


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_density_is_the_share_of_living_entries_over_all_layers_together(
    widths: list[int], draw: Any
) -> None:
    layers = [nn.Linear(width + 1, 2, bias=False) for width in widths]
    model = pol.mask_weights(seeded(nn.Sequential(*layers)))
    masks = {
        name: torch.tensor([[draw.random() < 0.4 for _ in row] for row in mask])
        for name, mask in pol.masks(model).items()
    }
    pol.load_masks(model, masks)
    living = sum(entry for mask in masks.values() for row in mask.tolist() for entry in row)
    total = sum(2 * (width + 1) for width in widths)
    assert pol.density(model) == float(Fraction(living, total))
    assert pol.sparsity(model) == pytest.approx(float(Fraction(total - living, total)))
    assert pol.density(pol.merge(model)) == float(Fraction(living, total))


def test_density_counts_a_tied_weight_once() -> None:
    model = nn.ModuleDict({"tied": seeded(Tied()), "other": seeded(nn.Linear(5, 7, bias=False))})
    pol.load_masks(model, {"tied.encoder.weight": torch.zeros(7, 5)})
    pol.mask_weights(model, targets="other")
    assert pol.density(model) == 0.5


def test_density_goes_by_the_mask_even_where_a_survivor_is_zero() -> None:
    model = half_masked(small())
    density = pol.density(model)
    with torch.no_grad():
        model[0].parametrizations.weight.original.zero_()
    assert pol.density(model) == density


def test_density_of_a_model_with_nothing_to_prune_is_an_error() -> None:
    with pytest.raises(ValueError, match="BatchNorm2d has no prunable weights"):
        pol.density(nn.BatchNorm2d(3))


def test_the_printed_model_shows_the_real_density() -> None:
    model = half_masked(small())
    pol.load_masks(model, {"2.weight": SECOND})
    assert "MaskedWeight((3, 5), density=0.2)" in repr(model)
    assert "enforce=False" in repr(half_remembered(small()))


def test_negative_survivors_train_as_positive_ones_do() -> None:
    model = half_masked(small())
    before = outputs(model, INPUTS), model[0].weight.detach().clone()
    train_step(model, torch.optim.SGD(model.parameters(), lr=0.1), INPUTS)
    moved = model[0].weight.detach() - before[1]
    seen = model[0](INPUTS[0]).gt(0).any(0)
    for sign in (-1, 1):
        alike = (before[1].sign() == sign) & seen[:, None]
        assert alike.any()
        assert bool(moved[alike].all())
