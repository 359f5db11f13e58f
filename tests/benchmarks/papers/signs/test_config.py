"""Names, hashes and random streams of runs; grids of runs."""

import json
from dataclasses import asdict, fields
from itertools import product

import pytest

from benchmarks.papers.signs.captions import AXES, caption
from benchmarks.papers.signs.command import (
    FragilityOptions,
    ZeroCrossingOptions,
    configurations,
)
from benchmarks.papers.signs.config import RunConfig, perturbation_label
from benchmarks.papers.signs.grid import expand, perturbation_grid


def test_run_id_can_be_read(tiny):
    run_id = tiny(perturbation=(("phi", -5e-05),), seed=3).run_id
    assert run_id.startswith("fragility-digits-fc-gradual-phi-5e-05-seed3-")


def test_settings_survive_json(tiny):
    config = tiny()
    assert RunConfig.from_json(json.loads(json.dumps(asdict(config)))) == config


@pytest.mark.parametrize(
    "change",
    [
        {"lr": 1e-3},
        {"epochs": 2},
        {"prune_scope": "layer"},
        {"sign_scope": "global"},
        {"keep_rest": True},
        {"train_size": None},
        {"device": "cuda"},
        {"init": "torch"},
        {"holdout": 0.2},
        {"survivors": "random"},
        {"resolution": 4},
        {"width": 8},
    ],
)
def test_different_settings_never_share_a_name(tiny, change):
    assert tiny(**change).run_id != tiny().run_id


def test_weights_count_by_content(tiny, tmp_path):
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).write_bytes(content)
    a, b, c = (tiny(weights=str(tmp_path / name)).digest for name in "abc")
    assert a == b != c


def test_streams_are_distinct(tiny):
    seeds = {
        tiny(seed=seed).stream(purpose)
        for seed, purpose in product(range(50), ("init", "batches", "signs", "masks"))
    }
    assert len(seeds) == 200
    assert tiny(seed=1).stream("init") == tiny(seed=1, strategy="mask0").stream("init")


def test_labels():
    assert perturbation_label(()) == "unperturbed"
    assert perturbation_label((("phi", 0.1), ("epsilon", 0.2))) == "phi0.1+epsilon0.2"


def test_each_kind_is_swept_alone_and_zero_is_shared():
    points = perturbation_grid(epsilon=(0.0, 0.5), delta=(0.0, 0.3))
    assert points == [(), (("epsilon", 0.5),), (("delta", 0.3),)]


def test_combined_takes_every_combination_in_order():
    points = perturbation_grid(phi=(0.0, 1e-3), epsilon=(0.1, 0.2), delta=(0.5,), combined=True)
    assert len(points) == 4
    assert points[0] == (("epsilon", 0.1), ("delta", 0.5))
    assert points[-1] == (("phi", 1e-3), ("epsilon", 0.2), ("delta", 0.5))


def test_expansion_is_complete_and_without_repetition(tiny):
    runs = expand(tiny(), ["mask0", "mask1"], [(), (("phi", 0.1),)], [0, 1, 1])
    assert len(runs) == 8
    assert len({run.run_id for run in runs}) == 8


@pytest.mark.parametrize(
    ("dataset", "experiment", "arch", "epochs"),
    [
        ("mnist", "fragility", "fc", 10),
        ("cifar10", "fragility", "conv2", 10),
        ("cifar10", "zero_crossing", "conv2", 80),
        ("cifar100", "fragility", "vgg16", 50),
        ("cifar100", "zero_crossing", "vgg16_pretrained", 50),
        ("digits", "zero_crossing", "fc", 10),
    ],
)
def test_defaults_are_the_papers(dataset, experiment, arch, epochs):
    kind = FragilityOptions if experiment == "fragility" else ZeroCrossingOptions
    (config,) = configurations(kind(dataset=dataset, strategies=("mask1",), epsilon=(0.1,)))
    assert config.experiment == experiment
    assert (config.arch, config.epochs) == (arch, epochs)
    assert (config.rounds, config.prune_base, config.mix) == (10, 0.8, 0.7)


FACTS = {
    **{"train": 54_000, "held_out": 6_000, "test": 10_000, "shape": [1, 28, 28]},
    **{"train_available": 60_000, "test_available": 10_000, "pooled_from": None},
}


def test_a_caption_names_what_departs_from_the_paper_and_what_the_paper_leaves_open(tiny):
    text = caption(tiny(dataset="mnist"), {**FACTS, "train": 270, "held_out": 30, "test": 100})
    departs, chosen = text.split("; not given by the paper: ")
    assert departs == (
        "rounds 3, the paper's 10; epochs per round 1, the paper's 10; training images 300 of "
        "60,000, drawn at random, the paper's all; test images 100 of 10,000, drawn at random, the "
        "paper's all"
    )
    for part in ("optimizer adam", "learning rate 0.0012", "30 training images", "init"):
        assert part in chosen
    whole = caption(tiny(dataset="mnist", rounds=10, epochs=10), FACTS)
    assert whole.startswith("as the paper gives it; not given by the paper: ")
    assert "proxy" in caption(tiny(), FACTS)
    # A network from scratch is not the pretrained one, and one of other width is not VGG-16.
    other = tiny(experiment="zero_crossing", dataset="cifar100", arch="vgg16")
    assert "arch vgg16, the paper's vgg16 pretrained" in caption(other, FACTS)
    assert "width of VGG 8" in caption(tiny(dataset="cifar10", arch="vgg16", width=8), FACTS)


OTHER_VALUES = {
    **{"dataset": "cifar10", "arch": "conv2", "rounds": 4, "prune_base": 0.7, "epochs": 2},
    **{"optimizer": "sgd", "lr": 0.1, "momentum": 0.8, "weight_decay": 1e-4, "batch_size": 30},
    **{"prune_scope": "layer", "sign_scope": "global", "mix": 0.6, "init": "torch"},
    **{"keep_rest": True, "weights": "file.pt", "device": "cuda", "bf16": True},
    **{"survivors": "random", "width": 8},
}
# What a caption takes from the images that were really used.
OTHER_FACTS = {
    **{"holdout": {"held_out": 5_999, "train": 54_001}, "train_size": {"train": 200}},
    **{"test_size": {"test": 50}, "resolution": {"shape": [1, 14, 14], "pooled_from": 28}},
}


@pytest.mark.parametrize(
    "name", [field.name for field in fields(RunConfig) if field.name not in AXES]
)
def test_a_caption_tells_of_every_field_that_differs(tiny, name):
    one = caption(tiny(dataset="mnist"), FACTS)
    if name in OTHER_FACTS:
        assert caption(tiny(dataset="mnist"), {**FACTS, **OTHER_FACTS[name]}) != one
        return
    value = OTHER_VALUES[name]
    other = caption(tiny(**{"dataset": "mnist", name: value}), FACTS)
    assert other != one
    # The section's title names the data set, and its paper has other networks for it.
    named = {"dataset": "conv2 or conv4 or conv6 or vgg16", "keep_rest": "yes", "bf16": "yes"}
    assert named.get(name, f"{value}") in other


def test_without_values_each_paper_sweeps_its_own_grid():
    fragility = configurations(FragilityOptions(strategies=("mask1",)))
    assert [config.perturbation for config in fragility] == [
        (),
        *((("epsilon", k / 10),) for k in range(1, 10)),
    ]
    crossing = configurations(ZeroCrossingOptions(strategies=("mask1",)))
    assert sorted(sum(size for _, size in config.perturbation) for config in crossing) == [
        -0.1, -1e-3, -5e-4, -1e-4, -5e-5, 0, 5e-5, 1e-4, 5e-4, 1e-3, 0.1,
    ]  # fmt: skip
