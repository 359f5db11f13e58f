"""Names, hashes and random streams of runs; grids of runs."""

import json
from dataclasses import asdict
from itertools import product

import pytest

from benchmarks.papers.signs.captions import caption
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
        for seed, purpose in product(range(50), ("init", "batches", "signs"))
    }
    assert len(seeds) == 150
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
        ("digits", "zero_crossing", "fc", 10),
    ],
)
def test_defaults_are_the_papers(dataset, experiment, arch, epochs):
    kind = FragilityOptions if experiment == "fragility" else ZeroCrossingOptions
    (config,) = configurations(kind(dataset=dataset, strategies=("mask1",), epsilon=(0.1,)))
    assert config.experiment == experiment
    assert (config.arch, config.epochs) == (arch, epochs)
    assert (config.rounds, config.prune_base, config.mix) == (10, 0.8, 0.7)


def test_caption_names_every_shortcut(tiny):
    facts = {"train": 270, "held_out": 30, "test": 100}
    facts |= {"train_available": 60_000, "test_available": 10_000}
    text = caption(tiny(dataset="mnist"), facts)
    for part in ("300 of 60000 training", "30 of 300", "100 of 10000", "3 rounds", "1 epochs"):
        assert part in text
    full = tiny(dataset="mnist", rounds=10, epochs=10)
    facts = {"train": 60_000, "held_out": 0, "test": 10_000}
    facts |= {"train_available": 60_000, "test_available": 10_000}
    assert caption(full, facts) == "the paper's scale"
    assert "proxy" in caption(tiny(), facts)


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
