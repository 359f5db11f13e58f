"""Many runs: skipping, resuming, processes, and failures that stay alone."""

import json
from dataclasses import asdict

import pytest

from benchmarks.harness.place import Place
from benchmarks.harness.results import load_results, result_path
from benchmarks.papers.signs import sweep as module
from benchmarks.papers.signs.checkpoints import checkpoint_path
from benchmarks.papers.signs.grid import expand
from benchmarks.papers.signs.sweep import sweep


@pytest.fixture
def configs(tiny):
    points = [(), (("epsilon", 0.5),)]
    return expand(tiny(rounds=1), ["mask0", "mask1"], points, [0])


def outcomes_of(folder):
    return {
        result["run_id"]: [(r["test_accuracy"], r["signs"]) for r in result["rounds"]]
        for result in load_results(folder, ["fragility"])
    }


def test_each_run_leaves_one_complete_file(configs, tmp_path):
    sweep(configs, Place(tmp_path, quiet=True))
    assert len(list(tmp_path.glob("*.json"))) == len(configs)
    assert not list((tmp_path / "checkpoints").iterdir())
    result = json.loads(result_path(tmp_path, configs[0]).read_text())
    assert result["config"] == json.loads(json.dumps(asdict(configs[0])))
    assert set(result["versions"]) == {
        "polarity",
        "torch",
        "torchvision",
        "numpy",
        "python",
        "draws",
    }
    assert result["machine"]["cores"] >= 1
    assert result["dataset"]["held_out"] == 30
    assert result["final"]["test_accuracy"] == result["rounds"][-1]["test_accuracy"]
    assert result["seconds"] == pytest.approx(sum(r["seconds"] for r in result["rounds"]))


def test_finished_runs_are_not_run_again(configs, tmp_path, capsys):
    sweep(configs[:2], Place(tmp_path, quiet=True))
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")}
    outcomes = sweep(configs, Place(tmp_path))
    assert len(outcomes) == 2
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    assert len(load_results(tmp_path, ["fragility"])) == 4
    # Not a terminal: one line per run instead of bars.
    assert "2 of 4 runs are already there" in capsys.readouterr().err
    assert sweep(configs, Place(tmp_path, quiet=True)) == []


def test_an_interrupted_sweep_goes_on_to_the_same_results(configs, tmp_path, monkeypatch):
    whole, broken = Place(tmp_path / "whole", quiet=True), Place(tmp_path / "broken", quiet=True)
    sweep(configs, whole)

    plain_run, calls = module.train_rounds, []

    def interrupted(config, data, *, on_round=None, **options):
        calls.append(config)

        def watch(record):
            if len(calls) == 3:
                raise KeyboardInterrupt

        return plain_run(config, data, on_round=watch, **options)

    monkeypatch.setattr(module, "train_rounds", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sweep(configs, broken)
    monkeypatch.undo()
    assert len(load_results(broken.out, ["fragility"])) == 2
    assert checkpoint_path(broken.out, configs[2]).is_file()

    sweep(configs, broken)
    assert outcomes_of(broken.out) == outcomes_of(whole.out)
    resumed = json.loads(result_path(broken.out, configs[2]).read_text())
    assert resumed["resumed_after"] == 0


def test_two_processes_give_what_one_gives(configs, tmp_path):
    one = Place(tmp_path / "one", jobs=1, quiet=True)
    two = Place(tmp_path / "two", jobs=2, quiet=True)
    sweep(configs, one)
    sweep(configs, two)
    assert outcomes_of(one.out) == outcomes_of(two.out)


def test_a_failing_run_leaves_the_others_alone(configs, tmp_path, monkeypatch):
    plain_run = module.train_rounds

    def sometimes(config, data, **options):
        if config.strategy == "mask0" and not config.perturbation:
            raise RuntimeError("out of luck")
        return plain_run(config, data, **options)

    monkeypatch.setattr(module, "train_rounds", sometimes)
    outcomes = sweep(configs, Place(tmp_path, quiet=True))
    failed = [outcome for outcome in outcomes if outcome.failure]
    assert len(failed) == 1
    assert "out of luck" in failed[0].failure
    assert len(load_results(tmp_path, ["fragility"])) == 3


def test_impossible_perturbations_surface_before_anything_trains(configs, tiny, tmp_path):
    wrong = tiny(perturbation=(("epsilon", 1.5),))
    with pytest.raises(ValueError, match=r"epsilon"):
        sweep([*configs, wrong], Place(tmp_path, quiet=True))
    assert not list(tmp_path.iterdir())


def test_missing_data_surfaces_before_anything_trains(tiny, tmp_path):
    with pytest.raises(FileNotFoundError, match="--data-root"):
        sweep([tiny(dataset="mnist")], Place(tmp_path, data_root=tmp_path, quiet=True))


def test_checkpoints_are_kept_on_request(configs, tmp_path):
    sweep(configs[:1], Place(tmp_path, keep_checkpoints=True, quiet=True))
    assert checkpoint_path(tmp_path, configs[0]).is_file()


def test_a_checkpoint_that_was_cut_short_is_begun_again(configs, tmp_path):
    place = Place(tmp_path, quiet=True)
    path = checkpoint_path(tmp_path, configs[0])
    path.parent.mkdir()
    path.write_bytes(b"cut short")
    (outcome,) = sweep(configs[:1], place)
    assert outcome.failure is None
    assert json.loads(result_path(tmp_path, configs[0]).read_text())["resumed_after"] is None
