"""One run: what it records, and that an interrupted one goes on bit for bit."""

from dataclasses import replace

import pytest
import torch

from benchmarks.harness.data import Dataset
from benchmarks.papers.signs.checkpoints import last_round, read_checkpoint
from benchmarks.papers.signs.run import train_rounds


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
