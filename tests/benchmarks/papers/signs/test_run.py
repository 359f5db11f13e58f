"""One run: what it records, and that an interrupted one goes on bit for bit."""

from dataclasses import replace

import pytest
import torch

from benchmarks.harness.data import Dataset
from benchmarks.papers.signs.checkpoints import last_round, read_checkpoint
from benchmarks.papers.signs.run import train_rounds
from benchmarks.papers.signs.tickets import DeltaLargest


class Killed(Exception):
    pass


def kill_after(last):
    def watch(record):
        if record["round"] == last:
            raise Killed

    return watch


def without_times(records):
    return [{k: v for k, v in record.items() if k != "seconds"} for record in records]


def test_ten_rounds_end_at_the_papers_density(tiny, digits):
    records = train_rounds(tiny(rounds=10), digits)
    assert [record["round"] for record in records] == list(range(11))
    last = records[-1]
    assert last["survivors"] == round(0.8**10 * last["total"])
    assert last["density"] == pytest.approx(0.107, abs=1e-3)


def test_every_round_states_its_signs_and_layers(tiny, digits):
    first, second = train_rounds(
        tiny(rounds=1, perturbation=(("epsilon", 0.3),), strategy="mask1"), digits
    )
    assert first["signs"] is None
    assert first["density"] == 1
    assert second["signs"]["agree_init"] == pytest.approx(0.7, abs=1e-3)
    assert sum(layer["survivors"] for layer in second["layers"]) == second["survivors"]
    for layer in second["layers"]:
        assert layer["flipped"] == round(0.3 * layer["survivors"])
        assert layer["density"] == layer["survivors"] / layer["total"]
        assert layer["sigma"] > 0


def test_without_held_out_images_there_is_no_held_out_accuracy(tiny, digits):
    bare = replace(digits, val_x=digits.val_x[:0], val_y=digits.val_y[:0])
    assert train_rounds(tiny(rounds=0), bare)[0]["val_accuracy"] is None


def test_same_settings_same_records(tiny, digits):
    first, again = (without_times(train_rounds(tiny(), digits)) for _ in range(2))
    assert first == again


def test_seeds_differ_and_the_dense_network_knows_no_strategy(tiny, digits):
    dense = {
        (seed, strategy): train_rounds(tiny(seed=seed, strategy=strategy, rounds=0), digits)[0][
            "train_loss"
        ]
        for seed in (0, 1)
        for strategy in ("mask0", "standard")
    }
    assert dense[0, "mask0"] == dense[0, "standard"]
    assert dense[0, "mask0"] != dense[1, "mask0"]


def test_the_rest_is_restored_unless_kept(tiny, digits):
    restored, kept = (
        train_rounds(tiny(rounds=1, keep_rest=keep), digits)[1] for keep in (False, True)
    )
    assert restored["signs"] == kept["signs"]
    assert restored["train_loss"] != kept["train_loss"]


@pytest.mark.parametrize("strategy", ["mask1", "mask0", "gradual", "standard"])
@pytest.mark.parametrize("killed_after", [0, 2])
def test_a_killed_run_goes_on_bit_for_bit(tiny, digits, tmp_path, strategy, killed_after):
    config = tiny(strategy=strategy)
    straight, broken = tmp_path / "straight.safetensors", tmp_path / "broken.safetensors"
    expected = train_rounds(config, digits, checkpoint=straight)

    with pytest.raises(Killed):
        train_rounds(config, digits, checkpoint=broken, on_round=kill_after(killed_after))
    assert last_round(broken) == killed_after
    begun = []
    records = train_rounds(config, digits, checkpoint=broken, on_epoch=lambda k, _: begun.append(k))

    assert begun == list(range(killed_after + 1, 4))
    assert without_times(records) == without_times(expected)
    ours, theirs = read_checkpoint(broken, config), read_checkpoint(straight, config)
    for a, b in ((ours.model, theirs.model), (ours.generators, theirs.generators)):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_checkpoint_of_other_settings_is_refused(tiny, digits, tmp_path):
    path = tmp_path / "run.safetensors"
    train_rounds(tiny(rounds=0), digits, checkpoint=path)
    with pytest.raises(ValueError, match="other settings"):
        train_rounds(tiny(rounds=0, lr=0.1), digits, checkpoint=path)


def test_batch_normalised_networks_resume_and_restore_their_statistics(tiny, tmp_path):
    config = tiny(arch="vgg16_bn", dataset="cifar10", rounds=1, batch_size=20)
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(60, 3, 32, 32, generator=draw)
    labels = torch.arange(60) % 10
    parts = {"train_x": images[:40], "train_y": labels[:40], "val_x": images[40:50]}
    parts |= {"val_y": labels[40:50], "test_x": images[50:], "test_y": labels[50:]}
    data = Dataset("cifar10", 10, **parts, train_available=50, test_available=10)
    path = tmp_path / "run.safetensors"
    with pytest.raises(Killed):
        train_rounds(config, data, checkpoint=path, on_round=kill_after(0))
    resumed = train_rounds(config, data, checkpoint=path)
    assert without_times(resumed) == without_times(train_rounds(config, data))
    # Two batches per round: statistics that were restored have seen two, kept ones four.
    seen = read_checkpoint(path, config).model["features.1.num_batches_tracked"]
    assert int(seen) == 2


def test_runs_of_a_seed_share_round_0_bit_for_bit(tiny, digits, tmp_path):
    shared = tmp_path / "dense.safetensors"
    first = tiny(strategy="standard", perturbation=(("epsilon", 0.5),))
    train_rounds(first, digits, dense=shared)
    second = tiny(strategy="mask1", survivors="random")
    begun = []
    ours = train_rounds(second, digits, dense=shared, on_epoch=lambda k, _: begun.append(k))
    assert begun == [1, 2, 3]
    assert without_times(ours) == without_times(train_rounds(second, digits))
    assert first.dense_digest == second.dense_digest


@pytest.mark.parametrize(
    ("change", "shares"),
    [
        *(({name: value}, True) for name, value in (("mix", 0.5), ("rounds", 1), ("seed", 0))),
        *(({name: value}, False) for name, value in (("lr", 0.1), ("seed", 1), ("width", 8))),
    ],
)
def test_round_0_is_shared_where_its_settings_are_the_same(tiny, change, shares):
    assert (tiny(**change).dense_digest == tiny().dense_digest) == shares


def test_a_damaged_state_of_round_0_is_set_aside(tiny, digits, tmp_path):
    shared = tmp_path / "dense.safetensors"
    shared.write_bytes(b"cut short")
    ours = train_rounds(tiny(), digits, dense=shared)
    assert without_times(ours) == without_times(train_rounds(tiny(), digits))


def test_standard_is_tested_with_its_mask_too(tiny, digits):
    records = train_rounds(tiny(strategy="standard"), digits)
    assert "test_accuracy_masked" not in records[0]
    assert all("test_accuracy_masked" in record for record in records[1:])
    assert records[-1]["test_accuracy_masked"] != records[-1]["test_accuracy"]
    assert "test_accuracy_masked" not in train_rounds(tiny(strategy="mask0"), digits)[-1]


def test_random_survivors_are_as_many_in_each_layer_and_others(tiny, digits):
    config = tiny(rounds=1)
    dense = train_rounds(tiny(rounds=0), digits)
    found = {
        kind: train_rounds(replace(config, survivors=kind), digits)[1]["layers"]
        for kind in ("magnitude", "random")
    }
    assert dense
    counts = {kind: [layer["survivors"] for layer in rows] for kind, rows in found.items()}
    assert counts["random"] == counts["magnitude"]
    # Magnitude keeps the largest: a random mask keeps much smaller ones too.
    for ours, theirs in zip(found["random"], found["magnitude"], strict=True):
        assert ours["smallest"] < theirs["smallest"] / 2


def test_rewind_gives_survivors_their_initial_values(tiny, digits, tmp_path):
    config = tiny(strategy="rewind", perturbation=(), rounds=1, epochs=0)
    path = tmp_path / "run.safetensors"
    record = train_rounds(config, digits, checkpoint=path)[1]
    assert record["signs"] is None
    state = read_checkpoint(path, config)
    for name, layer in (("1.weight", "1"), ("3.weight", "3")):
        mask = state.model[f"{layer}.parametrizations.weight.0.mask"].bool()
        stored = state.model[f"{layer}.parametrizations.weight.original"]
        assert 0 < mask.count_nonzero() < mask.numel()
        assert torch.equal(stored, torch.where(mask, state.start[name], 0.0))


def test_delta_largest_draws_the_signs_of_the_largest_anew():
    magnitudes = torch.tensor([5.0, 0.1, 4.0, 0.2])
    ones = torch.ones(4, dtype=torch.int8)
    drawn = [
        DeltaLargest(0.5)(ones, magnitudes, torch.Generator().manual_seed(seed))
        for seed in range(20)
    ]
    assert all(signs[1] == signs[3] == 1 for signs in drawn)
    assert {tuple(signs[[0, 2]].tolist()) for signs in drawn} == {
        (1, 1), (1, -1), (-1, 1), (-1, -1),
    }  # fmt: skip


def test_the_smallest_survivor_of_a_layer_is_recorded(tiny, digits):
    record = train_rounds(tiny(rounds=1, prune_scope="global"), digits)[1]
    smallest = [layer["smallest"] for layer in record["layers"]]
    # Pruned globally: no survivor of any layer is below the threshold.
    assert min(smallest) > 0
    assert max(smallest) < 10 * min(smallest)
