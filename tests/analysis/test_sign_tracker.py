"""The signs of a run: against a plain list of weights kept by hand."""

import io

import pytest
import torch
from torch import nn

import polarity as pol
from polarity.analysis import SignTracker
from tests.forms import random_masks
from tests.models import mlp


def effective(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: target.weight.clone() for name, target in pol.find_targets(model).items()}


def shake(model: nn.Module, seed: int) -> None:
    """Move every trained leaf as far as it is from zero, so that many signs flip."""
    draw = torch.Generator().manual_seed(1000 + seed)
    with torch.no_grad():
        for leaf in model.parameters():
            leaf.add_(torch.randn(leaf.shape, generator=draw) * leaf.abs().mean())


def flips_between(before, after, masks) -> int:
    return sum(
        int((before[name].sign() * after[name].sign() * masks[name] < 0).sum()) for name in masks
    )


def train(model, tracker, steps=4):
    """Shake, step and keep the weights by hand."""
    history = [effective(model)]
    for seed in range(steps):
        shake(model, seed)
        tracker.step()
        history.append(effective(model))
    return history


@pytest.mark.parametrize("keep_steps", [True, False])
@pytest.mark.parametrize("convert", [lambda m: m, pol.sign_in])
def test_marks_and_steps_equal_what_the_weights_say(convert, keep_steps):
    model = mlp(6, 5, 4)
    masks = random_masks(model)
    convert(pol.mask_weights(model, masks=masks))
    tracker = SignTracker(model, keep_steps=keep_steps)
    history = train(model, tracker, steps=2)
    tracker.mark("warm-up")
    shake(model, 9)
    end = effective(model)
    assert tracker.marks == ("init", "warm-up")
    assert tracker.flips("init", "warm-up").flipped == flips_between(history[0], history[2], masks)
    assert tracker.flips("warm-up").flipped == flips_between(history[2], end, masks)
    assert tracker.flips().flipped == flips_between(history[0], end, masks)
    assert tracker.flips().survivors == sum(int(mask.sum()) for mask in masks.values())
    steps = [flips_between(history[i], history[i + 1], masks) for i in range(2)]
    series = tracker.cumulative()
    assert series.flipped == tuple(steps)
    assert min(steps) > 0
    assert series.cumulative == (steps[0], sum(steps))
    one = series.layer("0.weight")
    other = series.layer("2.weight")
    assert [a + b for a, b in zip(one.flipped, other.flipped, strict=True)] == steps


def test_since_compares_every_step_with_one_moment():
    model = mlp(6, 5, 4)
    masks = random_masks(model)
    pol.mask_weights(model, masks=masks)
    tracker = SignTracker(model)
    history = train(model, tracker)
    expected = [flips_between(history[0], step, masks) for step in history[1:]]
    assert [report.flipped for report in tracker.since("init")] == expected


def test_a_conversion_alone_flips_nothing_and_the_track_goes_on():
    model = pol.mask_weights(mlp(6, 5, 4), masks=random_masks(mlp(6, 5, 4)))
    tracker = SignTracker(model)
    pol.sign_in(model)
    tracker.step()
    shake(model, 0)
    before = effective(model)
    tracker.step()
    pol.merge(model)
    tracker.step()
    first, second, third = tracker.cumulative().flipped
    assert (first, third) == (0, 0)
    assert second > 0
    assert all(torch.equal(before[name], value) for name, value in effective(model).items())


def test_masks_attached_later_are_looked_through_at_the_end():
    model = mlp(6, 5, 4)
    tracker = SignTracker(model)  # dense at the start
    history = [effective(model)]
    shake(model, 0)
    tracker.mark("warm-up")
    history.append(effective(model))
    masks = random_masks(model)
    pol.mask_weights(model, masks=masks)
    shake(model, 1)
    assert tracker.flips("init", "warm-up").flipped == flips_between(*history, masks)
    everything = {name: torch.ones_like(mask) for name, mask in masks.items()}
    dense = tracker.flips("init", "warm-up", masks=everything).flipped
    assert dense == flips_between(*history, everything)
    assert dense > tracker.flips("init", "warm-up").flipped > 0
    pol.merge(model)  # the zeros that are baked in say the same as the masks
    assert tracker.flips("init", "warm-up").flipped == flips_between(*history, masks)


@pytest.mark.parametrize("keep_steps", [True, False])
def test_an_entry_that_was_pruned_in_between_is_compared_with_its_last_sign(keep_steps):
    model = nn.Linear(4, 1, bias=False)
    pol.mask_weights(model)

    def put(*values: float) -> None:
        with torch.no_grad():
            model.parametrizations.weight.original.copy_(torch.tensor([values]))

    put(1.0, 1.0, 1.0, 1.0)
    tracker = SignTracker(model, keep_steps=keep_steps)
    pol.load_masks(model, {"weight": torch.tensor([[1, 1, 0, 0]])})  # a sparse phase
    put(1.0, -1.0, 0.0, 0.0)
    tracker.step()
    pol.load_masks(model, {"weight": torch.ones(1, 4)})  # dense again
    put(1.0, -1.0, -1.0, 1.0)
    tracker.step()
    assert tracker.cumulative().flipped == (1, 1)
    assert tracker.flips().flipped == 2


def test_kept_steps_are_seen_through_the_last_mask_and_others_through_their_own():
    model = nn.Linear(4, 1, bias=False)
    pol.mask_weights(model)
    with torch.no_grad():
        model.parametrizations.weight.original.fill_(1.0)
    kept, counted = SignTracker(model), SignTracker(model, keep_steps=False)
    with torch.no_grad():
        model.parametrizations.weight.original.fill_(-1.0)
    for tracker in (kept, counted):
        tracker.step()
    pol.load_masks(model, {"weight": torch.tensor([[1, 0, 0, 0]])})
    assert kept.cumulative().flipped == (1,)
    assert kept.cumulative(masks={"weight": torch.ones(1, 4)}).flipped == (4,)
    assert counted.cumulative().flipped == (4,)


@pytest.mark.parametrize("keep_steps", [True, False])
def test_a_resumed_tracker_goes_on_as_if_never_interrupted(keep_steps):
    model = pol.mask_weights(mlp(6, 5, 4), masks=random_masks(mlp(6, 5, 4)))
    tracker = SignTracker(model, keep_steps=keep_steps)
    train(model, tracker, steps=2)
    tracker.mark("warm-up")
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "signs": tracker.state_dict()}, file)

    file.seek(0)
    saved = torch.load(file, weights_only=True)
    other = pol.mask_weights(mlp(6, 5, 4, seed=5))
    resumed = SignTracker(other, keep_steps=keep_steps)
    other.load_state_dict(saved["model"])
    resumed.load_state_dict(saved["signs"])
    for each, its in ((model, tracker), (other, resumed)):
        shake(each, 7)
        its.step()
    assert resumed.cumulative() == tracker.cumulative()
    assert len(resumed.cumulative()) == 3
    assert resumed.flips("init") == tracker.flips("init")
    assert resumed.flips("warm-up") == tracker.flips("warm-up")


def test_a_saved_record_is_not_changed_by_what_follows():
    model = mlp(6, 5, 4)
    tracker = SignTracker(model)
    state = tracker.state_dict()
    shake(model, 0)
    tracker.step()
    tracker.mark("later")
    assert state["kept"] == []
    assert list(state["marks"]) == ["init"]


def test_signs_are_stored_and_at_most_two_bits_each():
    model = mlp(6, 5, 4)
    tracker = SignTracker(model)
    tracker.mark("again")
    stored = tracker.state_dict()["marks"]["again"]
    assert {value.dtype for value in stored.values()} == {torch.uint8}
    sizes = {name: value.numel() for name, value in stored.items()}
    assert sizes == {"0.weight": 8, "2.weight": 6}  # 30 and 20 weights: 2 × ceil(n / 8) bytes


def test_targets_and_exclude_choose_the_weights():
    assert SignTracker(mlp(6, 5, 4), exclude="2").names == ("0.weight",)
    assert SignTracker(mlp(6, 5, 4), targets="2").names == ("2.weight",)
    masked = pol.mask_weights(mlp(6, 5, 4), targets="0")
    assert SignTracker(masked).names == ("0.weight",)


def test_tracking_draws_nothing_and_changes_nothing():
    model = pol.sign_in(mlp(6, 5, 4))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    random_state = torch.get_rng_state()
    tracker = SignTracker(model)
    tracker.step()
    tracker.mark("end")
    tracker.flips()
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_bad_requests_are_refused():
    tracker = SignTracker(mlp(6, 5, 4), keep_steps=False)
    with pytest.raises(ValueError, match="moment='init' is already marked"):
        tracker.mark("init")
    with pytest.raises(TypeError, match="moment is an int, expected a str"):
        tracker.mark(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="start='warm-up' was not marked"):
        tracker.flips("warm-up")
    with pytest.raises(ValueError, match="keep_steps=False"):
        tracker.since()
    with pytest.raises(ValueError, match="masks=dict with keep_steps=False"):
        tracker.cumulative(masks={})
    with pytest.raises(ValueError, match="masks holds 'x', which is not tracked"):
        tracker.flips(masks={"x": torch.ones(2)})
    with pytest.raises(ValueError, match=r"masks holds '0.weight' in shape \(2,\)"):
        tracker.flips(masks={"0.weight": torch.ones(2)})


def test_a_record_of_other_weights_is_refused_and_nothing_is_changed():
    tracker = SignTracker(mlp(6, 5, 4))
    tracker.mark("mine")
    before = tracker.state_dict()["marks"]
    with pytest.raises(ValueError, match=r"'2.weight' in shape \(3, 5\), expected .* \(4, 5\)"):
        tracker.load_state_dict(
            SignTracker(nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))).state_dict()
        )
    with pytest.raises(
        ValueError, match=r"state\['shapes'\] is missing '2\.weight', which is tracked"
    ):
        tracker.load_state_dict(SignTracker(mlp(6, 5, 4), targets="0").state_dict())
    after = tracker.state_dict()["marks"]
    assert list(after) == list(before) == ["init", "mine"]
    for moment, signs in before.items():
        assert all(torch.equal(after[moment][name], packed) for name, packed in signs.items())
