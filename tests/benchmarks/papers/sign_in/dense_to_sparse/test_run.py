"""What one run of each arm trains and measures, on digits."""

from dataclasses import replace

import pytest
import torch

import polarity as pol
from benchmarks.harness.command_line import RunOptions
from benchmarks.models.networks import build_network
from benchmarks.papers.sign_in import watch
from benchmarks.papers.sign_in.dense_to_sparse.command import DenseToSparseOptions, configuration
from benchmarks.papers.sign_in.dense_to_sparse.run import schedule_of, steps_of, train_arm
from benchmarks.papers.sign_in.dense_to_sparse.starts import (
    Learned,
    learned_path,
    read_learned,
    start_from,
    write_learned,
)

OPTIONS = DenseToSparseOptions(
    dataset="digits",
    resolution=None,
    width=8,  # with 4 and AVX2, oneDNN writes outside its memory in channels_last
    epochs=3,
    batch_size=16,
    lr=0.05,
    crop_padding=1,
    train_size=160,
    test_size=50,
    rigl_updates=7,
    sharpness_images=16,
    where=RunOptions(device="cpu"),
)
# The run takes 30 steps. Decay alone would bring s from -8 to about -2.5.
DECAY = 0.15


def one(arm, **changes):
    return configuration(replace(OPTIONS, **changes), arm, 0.1, 0)


@pytest.fixture(scope="module")
def data():
    from benchmarks.harness.data import load_dataset

    return load_dataset("digits", train_size=160, test_size=50, holdout=0)


@pytest.fixture(scope="module")
def sources(data):
    torch.set_num_threads(1)
    decays = {"str": DECAY}
    arms = ("acdc", "rigl", "str", "acdc+sign_in")
    return {arm: train_arm(one(arm), data, decay=decays.get(arm)) for arm in arms}


@pytest.mark.parametrize("arm", ["acdc", "rigl", "acdc+sign_in"])
def test_the_density_is_exact(arm, sources):
    measured, learned = sources[arm]
    total = sum(layer["total"] for layer in measured.layers)
    assert sum(layer["survivors"] for layer in measured.layers) == round(0.1 * total)
    assert sum(int(mask.sum()) for mask in learned.masks.values()) == round(0.1 * total)
    assert measured.final["density"] == measured.epochs[-1]["density"] == round(0.1 * total) / total


def test_acdc_is_dense_in_its_dense_phases(sources):
    final = sources["acdc"][0].final
    # The published calendar of 100 epochs, over 30 steps; epochs end after 10, 20 and 30.
    published = (10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60, 65, 70, 75, 85)
    assert final["schedule"]["switches"] == [(30 * epoch + 50) // 100 for epoch in published]
    assert final["mask_updates"] == 15
    densities = [epoch["density"] for epoch in sources["acdc"][0].epochs]
    sparse = [
        sum(end > switch for switch in final["schedule"]["switches"]) % 2 == 1
        for end in (10, 20, 30)
    ]
    assert [density < 1 for density in densities] == sparse


def test_rigl_updates_as_often_as_asked_and_grows_entries(sources):
    final = sources["rigl"][0].final
    assert final["steps"] == 30
    assert final["schedule"] == {"every": 3, "end": 22}
    assert final["mask_updates"] == 7
    assert 0 < final["ever_grown"] <= final["exchanged"]
    assert all(0 < share < 1 for share in final["compared"].values())


def test_the_decided_scale_gives_rigl_60_updates():
    run = configuration(DenseToSparseOptions(), "rigl", 0.1, 0)
    assert schedule_of(run, 1200) == {"every": 15, "end": 900}


def test_str_ends_sparse_and_its_mask_is_what_is_above_the_threshold(sources):
    measured, learned = sources["str"]
    assert 0 < measured.final["density"] < 0.9
    densities = [epoch["density"] for epoch in measured.epochs]
    assert densities[0] > densities[-1] == measured.final["density"]
    assert measured.final["schedule"] == {"decay": DECAY, "s0": -8.0}
    # What is learned has signs and magnitudes below the threshold, too.
    for name, mask in learned.masks.items():
        assert bool((learned.weights["10"][name] != 0).all())
        assert bool((learned.weights["final"][name][mask] != 0).all())


def test_every_source_records_epochs_layers_and_the_end(sources):
    for arm, (measured, learned) in sources.items():
        assert [epoch["epoch"] for epoch in measured.epochs] == [1, 2, 3]
        assert ["test_accuracy" in epoch for epoch in measured.epochs] == [False, False, True]
        assert ["sharpness" in epoch for epoch in measured.epochs] == [True, True, True]
        final = measured.final
        assert final["sharpness"] == measured.epochs[-1]["sharpness"] > 0
        assert final["init_to_end"] == measured.epochs[-1]["flips"]
        curve = [epoch["flips_cumulative"] for epoch in measured.epochs]
        assert curve == sorted(curve)
        assert final["start"] is None
        assert measured.epochs[-1]["train_loss"] < measured.epochs[0]["train_loss"]
        for layer in measured.layers:
            assert int(learned.masks[layer["name"]].sum()) == layer["survivors"]
        assert (final["inner_scaling"] is not None) == arm.endswith("sign_in")


def test_flips_are_counted_through_the_final_mask(sources):
    for arm in ("acdc", "str"):
        measured, learned = sources[arm]
        config = one(arm)
        generator = torch.Generator().manual_seed(config.stream("init"))
        before = build_network(
            "resnet8", (1, 8, 8), 10, width=OPTIONS.width, generator=generator
        ).state_dict()
        flipped = survivors = 0
        for name, mask in learned.masks.items():
            after = learned.weights["final"][name].sign()
            flipped += int(((before[name].sign() != after) & mask).sum())
            survivors += int(mask.sum())
        assert measured.final["init_to_end"] == pytest.approx(flipped / survivors)
        assert measured.final["compared"]["init_to_end"] == 1


def test_a_rigl_mask_that_is_open_for_an_update_is_closed_for_the_sharpness(data, monkeypatch):
    run = one("rigl", rigl_updates=2)
    # The update of step 11 comes right after the first epoch.
    assert schedule_of(run, steps_of(run, data))["every"] == 11
    seen = []

    def looked_at(model, *_):
        forms = [each for each in model.modules() if isinstance(each, pol.MaskedWeight)]
        seen.append(all(each.enforce for each in forms))
        return 1.0

    monkeypatch.setattr(watch, "sharpness_of", looked_at)
    train_arm(run, data)
    assert seen == [True] * 3


def test_what_is_learned_survives_the_disk(sources, tmp_path):
    _, learned = sources["rigl"]
    path = learned_path(tmp_path, one("rigl"))
    assert read_learned(path) is None
    write_learned(path, learned)
    again = read_learned(path)
    assert again.weights.keys() == learned.weights.keys() == {"10", "30", "final"}
    for name, mask in learned.masks.items():
        assert torch.equal(again.masks[name], mask)
        for moment in ("10", "30", "final"):
            assert torch.equal(again.weights[moment][name], learned.weights[moment][name])
    path.write_bytes(path.read_bytes()[:200])
    assert read_learned(path) is None


MOMENTS = {"sign10": "10", "sign30": "30", "sign_final": "final", "mag10": "10"}


@pytest.mark.parametrize(
    "start", ["sign10", "sign30", "sign_final", "mag10", "mag_final", "random"]
)
def test_a_start_takes_from_its_source_what_it_names(start):
    # Another sign and magnitude at each moment.
    weights = {
        "10": torch.tensor([[-10.0, 10, 10, 0]]),
        "30": torch.tensor([[30.0, -30, 30, 30]]),
        "final": torch.tensor([[50.0, 50, -50, 50]]),
    }
    masks = {"weight": torch.tensor([[True, True, False, True]])}
    learned = Learned(masks, {moment: {"weight": value} for moment, value in weights.items()})
    model = torch.nn.Linear(4, 1, bias=False)
    fresh = torch.tensor([[1.0, 2, 3, -4]])
    with torch.no_grad():
        model.weight.copy_(fresh)
    report = start_from(model, one(f"acdc/{start}"), learned)
    given = model.weight.detach()
    if start == "random":
        assert torch.equal(given, torch.tensor([[1.0, 2, 0, -4]]))
    elif start.startswith("sign"):
        signs = {"sign10": [-1, 2, 0, -4], "sign30": [1, -2, 0, 4], "sign_final": [1, 2, 0, 4]}
        assert given.tolist() == [signs[start]]
    else:
        magnitudes = {"mag10": [10, 10, 0, 0], "mag_final": [50, 50, 0, 50]}
        assert given.abs().tolist() == [magnitudes[start]]
    assert report.missing == (1 if start in ("sign10", "mag10") else 0)


@pytest.mark.parametrize("method", ["acdc", "rigl", "str"])
@pytest.mark.parametrize("start", ["sign10", "mag_final", "random+sign_in"])
def test_a_start_trains_with_the_learned_mask(method, start, sources, data):
    _, learned = sources[method]
    measured, kept = train_arm(one(f"{method}/{start}", epochs=1), data, learned=learned)
    assert all(torch.equal(kept.masks[name], mask) for name, mask in learned.masks.items())
    survivors = sum(int(mask.sum()) for mask in learned.masks.values())
    assert measured.final["start"]["survivors"] == survivors
    assert measured.final["mask_updates"] == 0
    assert (measured.final["inner_scaling"] is not None) == start.endswith("sign_in")
    if (method, start) == ("rigl", "sign10"):
        unsigned = sum(
            int(((learned.weights["10"][name] == 0) & mask).sum())
            for name, mask in learned.masks.items()
        )
        assert measured.final["start"]["missing"] == unsigned > 0


@pytest.mark.parametrize("arm", ["snip", "synflow", "random+sign_in"])
def test_masks_at_initialisation_train(arm, data):
    measured, _ = train_arm(one(arm, epochs=1), data)
    assert measured.final["density"] == pytest.approx(0.1, abs=1e-3)
    assert measured.final["schedule"] == {}
    assert measured.final["ever_grown"] is None


def test_rigl_begins_with_the_mask_of_the_random_arm(data, sources):
    measured, learned = sources["rigl"]
    _, random = train_arm(one("random", epochs=1), data)
    counts = {layer["name"]: layer["survivors"] for layer in measured.layers}
    assert counts == {name: int(mask.sum()) for name, mask in random.masks.items()}
    assert any(not torch.equal(learned.masks[name], random.masks[name]) for name in counts)


@pytest.mark.parametrize("arm", ["acdc", "rigl", "str"])
def test_the_same_run_has_the_same_bits(arm, sources, data):
    first, learned = sources[arm]
    again, relearned = train_arm(one(arm), data, decay=DECAY if arm == "str" else None)

    def timeless(measured):
        return [{k: v for k, v in e.items() if k != "sharpness_seconds"} for e in measured.epochs]

    assert timeless(first) == timeless(again)
    assert (first.final, first.layers) == (again.final, again.layers)
    for name, weight in learned.weights["final"].items():
        assert torch.equal(relearned.weights["final"][name], weight)


def test_runs_that_are_too_short_are_refused():
    with pytest.raises(ValueError, match="steps=10, expected more"):
        schedule_of(one("acdc"), 10)
    with pytest.raises(ValueError, match="--rigl-updates 7, but RigL updates in 6 steps only"):
        schedule_of(one("rigl"), 8)


def test_str_is_refused_without_a_decay_and_a_start_without_its_source(data):
    with pytest.raises(ValueError, match="STR needs the weight decay of s"):
        train_arm(one("str"), data)
    with pytest.raises(ValueError, match="acdc/sign10 starts from what acdc learned"):
        train_arm(one("acdc/sign10"), data)
