"""A committed run is performed again, to the same bits."""

import pytest
import torch

from benchmarks.harness.committed import committed_results
from benchmarks.harness.results import machine, versions
from benchmarks.papers.signs.untrained.config import UntrainedConfig
from benchmarks.papers.signs.untrained.run import measure


def test_a_committed_run_repeats_bit_for_bit():
    runs = [r for r in committed_results("untrained").values() if r["config"]["arch"] == "fc"]
    if not runs:
        pytest.skip("no committed results: not a checkout")
    before = runs[0]
    today = (machine("cpu")["cpu_capability"], versions()["torch"], torch.get_num_threads())
    then = before["machine"]
    if (then["cpu_capability"], before["versions"]["torch"], then["threads"]) != today:
        pytest.skip("another kind of processor, or another version of PyTorch")
    again = measure(UntrainedConfig(**before["config"]))
    assert {name: before[name] for name in again} == again
