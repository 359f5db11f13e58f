"""What a worker of a cluster has to have in common with its sweep; no cluster is needed."""

import os
import threading
import time
from dataclasses import replace

import pytest
import torch

from benchmarks.harness.cluster import Terms, _on_worker
from benchmarks.harness.instructions import INSTRUCTIONS
from benchmarks.harness.results import COMMAND, command_line, versions


@pytest.fixture
def terms(monkeypatch):
    for name in INSTRUCTIONS:
        monkeypatch.setenv(name, "")  # so that what a worker sets is taken back after the test
        monkeypatch.delenv(name)
    monkeypatch.setenv(COMMAND, "as it was")
    return Terms.of_this_process(1)


def computes_with(monkeypatch, capability):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)


def test_results_state_the_command_line_of_the_sweep(terms, monkeypatch):
    monkeypatch.setenv(COMMAND, "dask worker")
    assert _on_worker(lambda _: command_line(), 0, terms).value == "as it was"


def test_a_worker_with_other_versions_is_refused(terms):
    other = replace(terms, versions={**versions(), "torch": "1.0", "numpy": "0.1"})
    failure = _on_worker(lambda _: None, 0, other).failure
    here = versions()
    assert (
        f"the worker has torch {here['torch']}, numpy {here['numpy']}, and the sweep was started "
        "with torch 1.0, numpy 0.1: install the same on all machines"
    ) in failure


def test_workers_compute_under_the_limit_of_the_sweep(terms, monkeypatch):
    computes_with(monkeypatch, "AVX2")
    limited = replace(terms, variables=INSTRUCTIONS)

    def limits(_):
        return {name: os.environ.get(name) for name in INSTRUCTIONS}

    assert _on_worker(limits, 0, limited).value == INSTRUCTIONS
    # The next sweep is without the limit, and torch would compute with it.
    failure = _on_worker(limits, 0, terms).failure
    assert "the sweep was started under none: start the workers again" in failure


def test_a_worker_that_computes_with_other_instructions_is_refused_and_stays_as_it_was(
    terms, monkeypatch
):
    computes_with(monkeypatch, "AVX512")
    limited = replace(terms, variables=INSTRUCTIONS)
    failure = _on_worker(lambda _: None, 0, limited).failure
    assert "--avx2, but torch computes with AVX512 here" in failure
    assert _on_worker(lambda _: "worked", 0, terms).value == "worked"


def test_a_worker_is_left_as_it_was_found(terms):
    denormal = torch.full((2,), 1e-39)
    before = torch.get_num_threads()

    def found(_):
        return torch.get_num_threads(), bool((denormal * 0.5).any())

    threads = replace(terms, threads=before + 1)
    assert _on_worker(found, 0, threads).value == (before + 1, False)
    assert found(0) == (before, True)


def test_a_process_performs_one_run_at_a_time(terms):
    at_work = []

    def work(_):
        at_work.append(1)
        time.sleep(0.05)
        count = len(at_work)
        at_work.pop()
        return count

    ends = []
    threads = [
        threading.Thread(target=lambda: ends.append(_on_worker(work, 0, terms))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [end.value for end in ends] == [1] * 4
