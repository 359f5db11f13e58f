"""A pipeline that was cut off, damaged or committed goes on as if it had not been."""

import pytest
import torch

from benchmarks.harness.committed import found_result
from benchmarks.harness.json_lines import write_lines
from benchmarks.harness.place import Place
from benchmarks.harness.results import result_path
from benchmarks.papers.winning_sign.grid import Chain
from benchmarks.papers.winning_sign.run import Pipeline
from benchmarks.papers.winning_sign.states import state_path
from benchmarks.papers.winning_sign.sweep import sweep
from tests.benchmarks.papers.winning_sign.tiny import config


def _records(result):
    return [{k: v for k, v in record.items() if k != "seconds"} for record in result["records"]]


@pytest.mark.parametrize("finder", ["lrr", "aws", "imp", "wr", "gem_miner"])
def test_a_killed_finder_goes_on_as_if_it_had_not_been(digits, tmp_path, finder):
    task = config(arch="small_resnet").task("rounds", finder)
    whole = Pipeline(digits, tmp_path / "whole")
    expected = whole.result(task)
    cut = Pipeline(digits, tmp_path / "cut")
    cut.result(task)
    result_path(cut.out, task).unlink()
    for k in (2, 3):
        state_path(cut.out, task, k).unlink()
    resumed = cut.result(task)
    assert _records(resumed) == _records(expected)
    for name, value in whole.found(task, finder, 3).weights.items():
        assert torch.equal(cut.found(task, finder, 3).weights[name], value), name


def damaged(path, how):
    """Damage a state as a full disk or another program does."""
    content = path.read_bytes()
    other = b"\x02\x00\x00\x00\x00\x00\x00\x00{}"  # a sound file, of something else
    path.write_bytes({"cut": content[:-1], "text": b"no state", "other": other, "empty": b""}[how])
    return path


PLACES = [("lrr", 0), ("lrr", 1), ("lrr", 3), ("wr", 0)]
DAMAGES = ["cut", "text", "other", "empty"]


@pytest.mark.parametrize(
    ("how", "finder", "k"),
    [
        # Every damage and every place once; all pairs of them take long.
        pytest.param(how, *where, marks=() if number == place else pytest.mark.slow)
        for number, how in enumerate(DAMAGES)
        for place, where in enumerate(PLACES)
    ],
)
def test_a_damaged_round_is_named_and_set_aside_and_found_again(
    digits, tmp_path, capsys, finder, k, how
):
    pipeline, task = Pipeline(digits, tmp_path), config().task("rounds", finder)
    expected = pipeline.result(task)
    wanted = pipeline.found(task, finder, 3).weights
    path = damaged(state_path(tmp_path, task, k), how)
    result_path(tmp_path, task).unlink()
    assert _records(pipeline.result(task)) == _records(expected)
    told = capsys.readouterr().err
    assert told.startswith(f"{path} cannot be resumed from")
    assert path.with_name(f"{path.name}.damaged").is_file()
    found = pipeline.found(task, finder, 3).weights
    assert all(torch.equal(found[name], value) for name, value in wanted.items())


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_network_is_named_and_set_aside_and_trained_again(digits, tmp_path, capsys, how):
    pipeline, task = Pipeline(digits, tmp_path), config().task("final", "lrr", 2)
    wanted = pipeline.trained(task).weights
    for path in (state_path(tmp_path, task), state_path(tmp_path, task.task("rounds", "lrr"), 2)):
        damaged(path, how)
    trained = pipeline.trained(task).weights
    assert all(torch.equal(trained[name], value) for name, value in wanted.items())
    assert capsys.readouterr().err.count("cannot be resumed from") == 2


def test_results_stay_valid_when_their_networks_are_deleted(pipeline, tmp_path):
    base = config()
    first = pipeline.result(base.task("final", "lrr", 2))
    for path in (tmp_path / "states").iterdir():
        path.unlink()
    written = result_path(tmp_path, base.task("rounds", "lrr")).stat().st_mtime_ns
    assert pipeline.result(base.task("final", "lrr", 2)) == first
    assert not list((tmp_path / "states").iterdir())
    # What is needed again is found again, and nothing is written twice.
    pipeline.result(base.task("final", "init+lrr_sign", 2))
    assert result_path(tmp_path, base.task("rounds", "lrr")).stat().st_mtime_ns == written


def test_results_that_a_committed_file_holds_are_not_computed_again(
    pipeline, tmp_path, monkeypatch
):
    task = config().task("final", "dense")
    committed = tmp_path / "committed"
    write_lines(committed / "winning_sign.jsonl", [pipeline.result(task) | {"test_accuracy": -1.0}])
    result_path(tmp_path, task).unlink()
    monkeypatch.setattr(found_result, "__defaults__", (committed,))
    assert pipeline.result(task)["test_accuracy"] == -1.0
    assert not result_path(tmp_path, task).exists()
    # A sweep has nothing to do, and asks for no data.
    assert sweep([Chain((task,))], Place(tmp_path / "empty", data_root=tmp_path / "none")) == []
