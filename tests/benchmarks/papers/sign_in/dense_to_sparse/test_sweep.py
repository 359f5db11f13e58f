"""The sweep: what it writes, what it finds again, and how it goes on after an interruption."""

import json
from dataclasses import replace

import pytest

from benchmarks.__main__ import main
from benchmarks.harness.command_line import RunOptions
from benchmarks.harness.data import load_dataset
from benchmarks.harness.place import Place
from benchmarks.papers.sign_in.dense_to_sparse import search as searching
from benchmarks.papers.sign_in.dense_to_sparse.command import DenseToSparseOptions, configurations
from benchmarks.papers.sign_in.dense_to_sparse.search import find_decay
from benchmarks.papers.sign_in.dense_to_sparse.sweep import sweep

WORDS = ["--dataset", "digits", "--resolution", "4", "--width", "8", "--epochs", "2", "--quiet"]
WORDS += [
    "--batch-size",
    "16",
    "--train-size",
    "160",
    "--lr",
    "0.05",
    "--test-size",
    "50",
    "--rigl-updates",
    "4",
]
WORDS += ["--sharpness-images", "0", "--search-runs", "2", "--search-between", "0.1", "0.4"]
WORDS += ["--device", "cpu", "--seeds", "0", "--more-seeds"]
OPTIONS = DenseToSparseOptions(
    dataset="digits",
    resolution=4,
    width=8,
    epochs=2,
    batch_size=16,
    lr=0.05,
    train_size=160,
    test_size=50,
    rigl_updates=4,
    sharpness_images=0,
    search_runs=2,
    search_between=(0.1, 0.4),
    seeds=(0,),
    more_seeds=(),
    where=RunOptions(device="cpu", quiet=True),
)
TIMES = ("started", "seconds")


def contents(out):
    return {path.name: json.loads(path.read_text()) for path in out.glob("*.json")}


def same(one, other):
    return all(one[key] == other[key] for key in one if key not in TIMES)


pytestmark = pytest.mark.filterwarnings("ignore:density=0.1 was not met")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with all runs of one seed."""
    out = tmp_path_factory.mktemp("runs")
    assert main(["dense-to-sparse", *WORDS, "--out", str(out), "--threads", "1"]) == 0
    return out


def test_the_whole_experiment_of_a_seed_runs(finished):
    results = contents(finished)
    configs = configurations(OPTIONS)
    assert results.keys() == {f"{each.run_id}.json" for each in configs}
    for config in configs:
        result = results[f"{config.run_id}.json"]
        assert result["config"]["arm"] == config.arm
        assert result["dataset"]["pooled_from"] == 8
        assert result["dataset"]["shape"] == [1, 4, 4]
        assert result["command"].startswith("python -m benchmarks dense-to-sparse --dataset digits")
        assert {"cpu", "cpu_capability"} <= result["machine"].keys()
        assert result["versions"]["draws"].isdigit()
    search = next(r for r in results.values() if r["config"]["arm"] == "str/find_decay")
    source = next(r for r in results.values() if r["config"]["arm"] == "str")
    assert [trial.keys() for trial in search["trials"]] == [{"decay", "density", "accuracy"}] * 2
    assert source["final"]["schedule"]["decay"] == search["decay"]
    # The decay was found on this seed: the same run ends at the same density.
    nearest = min(search["trials"], key=lambda trial: abs(trial["density"] - 0.1))
    assert nearest["decay"] == search["decay"]
    assert source["final"]["density"] == pytest.approx(nearest["density"])
    assert source["final"]["test_accuracy"] == nearest["accuracy"]


def test_finished_runs_are_skipped_and_lost_ones_come_out_the_same(finished, tmp_path, capsys):
    out = tmp_path / "copy"
    out.mkdir()
    before = contents(finished)
    lost = [name for name in before if "-acdc_sign10-" in name or "-str_mag10-" in name]
    assert len(lost) == 2
    for name, result in before.items():
        if name not in lost:
            (out / name).write_text(json.dumps(result))
    # No file says what a source learned: it is trained again.
    assert main(["dense-to-sparse", *WORDS, "--out", str(out), "--threads", "1"]) == 0
    after = contents(out)
    assert after.keys() == before.keys()
    for name in lost:
        for key in ("config", "epochs", "layers", "final"):
            assert after[name][key] == before[name][key]
    stamps = {path: path.stat().st_mtime_ns for path in out.glob("*.json")}
    assert main(["dense-to-sparse", *WORDS, "--out", str(out), "--threads", "1"]) == 0
    assert {path: path.stat().st_mtime_ns for path in out.glob("*.json")} == stamps
    assert "| Epoch 1 sign (k10)" in capsys.readouterr().out


def test_a_search_goes_on_after_its_last_trial(tmp_path, monkeypatch):
    (config,) = configurations(replace(OPTIONS, arms=("str/find_decay",)))
    data = load_dataset("digits", train_size=160, test_size=50, resolution=4, holdout=0)
    made = []

    def trial(config, data, decay, **_):
        made.append(decay)
        if len(made) == 3:
            raise KeyboardInterrupt
        return {"decay": decay, "density": 1 / (1 + 20 * decay), "accuracy": 50.0}

    monkeypatch.setattr(searching, "train_trial", trial)
    config = replace(config, search_between=(0.01, 2.0), search_runs=6)
    path = tmp_path / "learned" / "trials.json"
    with pytest.raises(KeyboardInterrupt):
        find_decay(config, data, path)
    found = find_decay(config, data, path)
    # The third was interrupted, and nothing else is made twice.
    assert len(made) == len(set(made)) + 1
    assert len(found["trials"]) == len(set(made))
    assert found["found"]
    assert abs(found["density"] - 0.1) <= 0.005
    fresh = find_decay(config, data, tmp_path / "other.json")
    assert fresh == found


def test_a_damaged_list_of_trials_is_set_aside(tmp_path, monkeypatch, capsys):
    (config,) = configurations(replace(OPTIONS, arms=("str/find_decay",)))
    path = tmp_path / "trials.json"
    path.write_text('[{"decay": 1')
    result = {"density": 0.1, "accuracy": 1.0}
    monkeypatch.setattr(
        searching, "train_trial", lambda c, d, decay, **_: result | {"decay": decay}
    )
    assert len(find_decay(config, None, path)["trials"]) == 1
    assert "set aside as trials.json.damaged" in capsys.readouterr().err


def test_runs_that_are_too_short_are_refused_before_anything_is_trained(tmp_path):
    configs = configurations(replace(OPTIONS, batch_size=160))
    with pytest.raises(ValueError, match="expected more"):
        sweep(configs, Place(tmp_path, quiet=True))
    assert not list(tmp_path.iterdir())
