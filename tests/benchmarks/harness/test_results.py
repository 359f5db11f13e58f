"""Result and state files: written whole, read back, and named where they are broken."""

import subprocess
import sys

import pytest
import torch

import polarity as pol
from benchmarks.harness.results import (
    load_results,
    provenance,
    read_result,
    remember_command,
    write_result,
)
from benchmarks.harness.states import read_metadata, read_state_file, write_state_file


def test_results_are_found_below_a_folder_by_their_experiment(tmp_path):
    for name, experiment, schema in (
        ("sign_in-b", "sign_in", 1),
        ("below/sign_in-a", "sign_in", 1),
        ("sign_in-old", "sign_in", 0),
        ("sign_in-like", "another", 1),
        ("fragility-a", "fragility", 1),
    ):
        content = {"schema": schema, "experiment": experiment, "run_id": name}
        write_result(tmp_path / f"{name}.json", content)
    found = [result["run_id"] for result in load_results(tmp_path, ["sign_in"])]
    assert found == ["below/sign_in-a", "sign_in-b"]
    assert len(load_results(tmp_path, ["sign_in", "fragility"])) == 3


def test_a_broken_result_file_is_named(tmp_path):
    path = tmp_path / "sign_in-x.json"
    path.write_text('{"schema": 1, "exp')
    with pytest.raises(ValueError, match=r"sign_in-x\.json is not a result file.*delete it"):
        read_result(path)
    with pytest.raises(ValueError, match=r"sign_in-x\.json"):
        load_results(tmp_path, ["sign_in"])


def test_groups_of_tensors_survive_the_disk(tmp_path):
    path = tmp_path / "new" / "x.safetensors"
    weights = {"a/b": torch.arange(6.0).view(2, 3).t(), "c": torch.tensor([True])}
    write_state_file(path, {"model": weights, "other": {}}, {"records": [{"k": 1}]})
    groups, metadata = read_state_file(path, ("model", "other"))
    assert metadata == read_metadata(path) == {"records": [{"k": 1}]}
    assert groups["other"] == {}
    assert groups["model"].keys() == weights.keys()
    assert all(torch.equal(groups["model"][name], weights[name]) for name in weights)
    assert [file.name for file in path.parent.iterdir()] == ["x.safetensors"]


def test_a_state_that_was_cut_short_counts_as_missing(tmp_path):
    path = tmp_path / "x.safetensors"
    assert read_metadata(path) is None
    write_state_file(path, {"model": {"a": torch.zeros(100)}}, {"records": []})
    path.write_bytes(path.read_bytes()[:50])
    assert read_metadata(path) is None


def test_provenance_names_command_capability_and_draws(monkeypatch):
    monkeypatch.setenv("POLARITY_BENCHMARKS_COMMAND", "another")
    remember_command(["sign-in", "--out", "a folder"])
    found = provenance("cpu")
    assert found["command"] == "python -m benchmarks sign-in --out 'a folder'"
    assert found["machine"]["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    assert found["versions"]["draws"] == str(pol.__draws_version__)
    # Workers are processes that this one starts.
    show = "from benchmarks.harness.results import command_line; print(command_line())"
    done = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == found["command"]


def test_without_a_command_none_is_stated(monkeypatch):
    monkeypatch.delenv("POLARITY_BENCHMARKS_COMMAND", raising=False)
    assert provenance("cpu")["command"] is None
