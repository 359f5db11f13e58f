"""Sweeps on a local Dask cluster: results in one place, lost workers, interruptions, refusals."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from benchmarks.harness import away
from benchmarks.harness.cluster import perform_on_cluster
from benchmarks.harness.instructions import INSTRUCTIONS
from benchmarks.harness.place import Place
from benchmarks.harness.results import load_results, write_result
from benchmarks.harness.sweep import Outcome, perform_pending
from benchmarks.papers.signs.grid import expand
from benchmarks.papers.signs.sweep import sweep

distributed = pytest.importorskip("distributed")
dask = pytest.importorskip("dask")

from benchmarks.harness import dask_cluster  # noqa: E402

ROOT = Path(__file__).parents[3]


def a_cluster(workers=2, *, threads=1, losses=3, **how):
    """A cluster that gives a run up when it has lost more workers than `losses`; 3 is Dask's."""
    size = {"n_workers": workers, "threads_per_worker": threads}
    with dask.config.set({"distributed.scheduler.allowed-failures": losses}):
        return distributed.LocalCluster(**size, dashboard_address=":0", silence_logs=50, **how)


@pytest.fixture(scope="module")
def scheduler():
    """The address of a cluster whose workers live as long as this file's tests."""
    with a_cluster() as cluster:
        yield cluster.scheduler_address


def on_dask(scheduler, work, items, *, jobs=2, threads=1):
    on = {"backend": "dask", "scheduler": scheduler}
    return perform_on_cluster(work, items, jobs=jobs, threads=threads, **on)


def state(item):
    time.sleep(0.3)
    if item == "fail":
        raise RuntimeError("out of luck")
    return os.getpid(), torch.get_num_threads(), float(torch.full((), 1e-39) * 0.5)


def test_workers_compute_with_the_threads_asked_for_and_without_denormals(scheduler):
    ends = list(on_dask(scheduler, state, range(4), threads=3))
    assert sorted(end.item for end in ends) == [0, 1, 2, 3]
    pids, threads, denormals = zip(*(end.value for end in ends), strict=True)
    assert len(set(pids)) == 2
    assert os.getpid() not in pids
    assert set(threads) == {3}
    assert set(denormals) == {0.0}


def test_a_failure_is_an_end_and_leaves_the_others_alone(scheduler):
    ends = {end.item: end for end in on_dask(scheduler, state, ["a", "fail", "b"])}
    assert set(ends) == {"a", "fail", "b"}
    assert "RuntimeError: out of luck" in ends["fail"].failure
    assert ends["a"].value is not None
    assert ends["b"].value is not None


def capability(item):
    return torch.backends.cpu.get_cpu_capability()


def test_workers_keep_to_the_instructions_of_the_sweep(monkeypatch):
    with a_cluster(1) as cluster:
        for name, value in INSTRUCTIONS.items():
            monkeypatch.setenv(name, value)
        (limited,) = on_dask(cluster.scheduler_address, capability, [0])
        monkeypatch.undo()
        (free,) = on_dask(cluster.scheduler_address, capability, [0])
    assert limited.value == "AVX2"
    assert "start the workers again" in free.failure


def span(item):
    begun = time.time()
    time.sleep(0.2)
    return os.getpid(), begun, time.time()


def test_one_job_is_one_run_at_a_time_and_not_in_this_process(scheduler):
    spans = [end.value for end in on_dask(scheduler, span, range(4), jobs=1)]
    assert os.getpid() not in {pid for pid, _, _ in spans}
    spans.sort(key=lambda each: each[1])
    assert all(ended <= begun for (_, _, ended), (_, begun, _) in pairwise(spans))


@dataclass(frozen=True)
class Kill:
    """A run that kills the process that works on it, this many times."""

    run_id: str
    folder: Path
    times: int = 0


def killing(run):
    told = run.folder / f"attempts-{run.run_id}"
    with told.open("a") as file:
        file.write("x")
    if len(told.read_text()) <= run.times:
        os.kill(os.getpid(), signal.SIGKILL)
    return run.run_id


def complete(run, place, bars):
    value = killing(run)
    path = place.out / f"{value}.json"
    assert not path.exists(), "every result once"
    write_result(path, {"run_id": value, "pid": os.getpid()})
    return Outcome(value, 50.0)


def kept(scheduler, tmp_path, runs, **how):
    place = Place(tmp_path / "out", jobs=2, backend="dask", scheduler=scheduler, **how)
    outcomes = perform_pending(
        runs,
        place,
        finished=lambda run: (place.out / f"{run.run_id}.json").exists(),
        check=lambda run: None,
        complete=complete,
        threads=1,
    )
    found = {path.stem: json.loads(path.read_text()) for path in place.out.glob("*.json")}
    return {outcome.run_id: outcome for outcome in outcomes}, found


def test_the_run_of_a_lost_worker_is_done_again_and_every_result_is_there_once(tmp_path, capsys):
    runs = [Kill(name, tmp_path, name == "b") for name in "abcd"]
    with a_cluster() as cluster:
        outcomes, found = kept(cluster.scheduler_address, tmp_path, runs)
    assert set(outcomes) == set(found) == {*"abcd"}
    assert not any(outcome.failure for outcome in outcomes.values())
    assert (tmp_path / "attempts-b").read_text() == "xx"
    told = capsys.readouterr().err
    assert "[4/4]" in told
    assert told.count("b: 50.00 %") == 1
    assert not list((tmp_path / "out").glob(".*")), "a mark of the sweep stays behind"


def test_a_run_that_is_given_up_fails_alone(tmp_path, capsys):
    runs = [Kill("a", tmp_path, 9), *(Kill(name, tmp_path) for name in "bc")]
    with a_cluster(losses=0) as cluster:
        outcomes, found = kept(cluster.scheduler_address, tmp_path, runs)
    assert set(outcomes) == {*"abc"}
    assert set(found) == {*"bc"}
    assert "KilledWorker" in outcomes["a"].failure
    assert "a: failed" in capsys.readouterr().err


@pytest.fixture
def no_folder_in_common(monkeypatch, tmp_path):
    """Workers look for the sweep's folder where nothing is and nothing can be made."""
    (tmp_path / "a file").touch()

    class Nowhere:
        def __enter__(self):
            return tmp_path / "a file" / "mark"

        def __exit__(self, *error):
            pass

    monkeypatch.setattr(away, "_marked", lambda out: out.mkdir() or Nowhere())


@pytest.mark.usefixtures("no_folder_in_common")
def test_results_come_back_from_workers_that_do_not_see_the_folder(scheduler, tmp_path):
    runs = [Kill(name, tmp_path) for name in "abcd"]
    outcomes, found = kept(scheduler, tmp_path, runs, quiet=True)
    assert {name: outcome.failure for name, outcome in outcomes.items()} == dict.fromkeys("abcd")
    assert set(found) == {*"abcd"}
    assert os.getpid() not in {result["pid"] for result in found.values()}


def measured(folder):
    return {
        result["run_id"]: [(r["test_accuracy"], r["train_loss"]) for r in result["rounds"]]
        for result in load_results(folder, ["fragility"])
    }


@pytest.fixture
def configs(tiny):
    points = [(), (("epsilon", 0.5),)]
    return expand(tiny(rounds=1), ["mask0", "mask1"], points, [0])


@pytest.mark.parametrize("folder", ["in common", "apart"])
def test_a_cluster_gives_what_one_process_gives(folder, configs, scheduler, tmp_path, request):
    here = Place(tmp_path / "here", quiet=True)
    there = Place(tmp_path / "there", jobs=2, backend="dask", scheduler=scheduler, quiet=True)
    sweep(configs, here)
    if folder == "apart":
        request.getfixturevalue("no_folder_in_common")
    assert not any(outcome.failure for outcome in sweep(configs, there))
    assert measured(there.out) == measured(here.out)
    assert len(measured(here.out)) == 4
    # Checkpoints are of runs that are not over.
    assert not list(there.out.glob("checkpoints/*"))
    assert sweep(configs, there) == []


def test_data_are_read_on_the_worker(tiny, scheduler, tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.papers.signs.sweep._check", lambda first, place: None)
    place = Place(tmp_path, data_root=Path("nowhere"), jobs=2, backend="dask", quiet=True)
    place = replace(place, scheduler=scheduler)
    (outcome,) = sweep([tiny(dataset="mnist")], place)
    # As a whole path: the worker may have been started in another folder.
    assert str(Path("nowhere").absolute()) in outcome.failure
    assert "--data-root" in outcome.failure


LONG = ("fragility", "--dataset", "digits", "--epochs", "5000", "--epsilon", "0", "0.5")


def test_an_interruption_ends_the_sweep_and_frees_the_workers(tmp_path):
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}"}
    with a_cluster() as cluster, distributed.Client(cluster, set_as_default=False) as client:
        address = cluster.scheduler_address
        options = ("--backend", "dask", "--scheduler", address, "--jobs", "2")
        before = set(client.nthreads())
        started = subprocess.Popen(
            [sys.executable, "-m", "benchmarks", *LONG, *options, "--out", str(tmp_path)],
            cwd=ROOT,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            wait_until(lambda: all(client.processing().values()))
            time.sleep(1)
            started.send_signal(signal.SIGINT)
            _, told = started.communicate(timeout=180)
        finally:
            started.kill()
        assert started.returncode == 130
        assert "interrupted: the same command goes on from here" in told
        assert "Traceback" not in told
        assert not any(client.processing().values())
        assert not before & set(client.nthreads()), "a worker is still at its run"
        # The new ones are free for the next sweep.
        assert [end.failure for end in on_dask(address, span, range(2))] == [None] * 2
    assert not list(tmp_path.glob("*.json"))
    assert not list(tmp_path.glob(".*")), "a mark of the sweep stays behind"


def wait_until(condition, seconds=180):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_an_address_without_a_scheduler_is_refused(monkeypatch):
    monkeypatch.setattr(dask_cluster, "_SECONDS_TO_ANSWER", 1)
    with pytest.raises(ValueError, match=r"--scheduler tcp://127\.0\.0\.1:9: no Dask scheduler"):
        list(on_dask("tcp://127.0.0.1:9", span, [0]))
    with pytest.raises(ValueError, match="--scheduler 7: no Dask scheduler answers"):
        list(on_dask("7", span, [0]))


@pytest.mark.parametrize(
    ("workers", "threads", "message"),
    [(0, 1, "no worker has joined it in 1 seconds"), (1, 2, "start workers with --nthreads 1")],
    ids=["no worker", "several threads"],
)
def test_workers_that_cannot_perform_runs_are_refused(workers, threads, message, monkeypatch):
    monkeypatch.setattr(dask_cluster, "_SECONDS_TO_JOIN", 1)
    here = {"processes": False, "protocol": "tcp"}
    with (
        a_cluster(workers, threads=threads, **here) as other,
        pytest.raises(ValueError, match=message),
    ):
        list(on_dask(other.scheduler_address, span, [0]))


def wait(seconds):
    time.sleep(seconds)


@pytest.mark.filterwarnings("ignore:1 tasks which were still being processed:UserWarning")
def test_a_run_that_cannot_be_stopped_is_told(capsys):
    # A worker in this process has no nanny, which would start it again.
    with a_cluster(1, processes=False, protocol="tcp") as other:
        ends = on_dask(other.scheduler_address, wait, [0.1, 3], jobs=1)
        assert next(ends).item == 0.1
        time.sleep(0.5)
        ends.close()
    assert "runs that are under way go on to their end" in capsys.readouterr().err


def test_a_sweep_whose_scheduler_is_lost_ends_with_a_failure(monkeypatch):
    monkeypatch.setattr(dask_cluster, "_SECONDS_TO_ANSWER", 2)
    with a_cluster(1) as other:
        ends = on_dask(other.scheduler_address, wait, [0.1, 60], jobs=1)
        assert next(ends).item == 0.1
        other.close()
        (last,) = ends
    assert last.item is None
    assert "lost the connection to the scheduler" in last.failure
