"""Where runs on a cluster keep their files, and how results come back; no cluster is needed."""

from pathlib import Path

import pytest

from benchmarks.harness import away
from benchmarks.harness.away import Away, perform_away
from benchmarks.harness.place import Place
from benchmarks.harness.sweep import Outcome
from benchmarks.harness.workers import attempt


def complete(run, place, bars):
    """Leave a result, and a checkpoint that tells who was in the folder before."""
    assert bars is None
    place.out.mkdir(parents=True, exist_ok=True)
    earlier = sorted(path.name for path in place.out.iterdir())
    (place.out / f"{run}.json").write_text(f'{{"run_id": "{run}"}}')
    (place.out / f"{run}.safetensors").touch()
    return place.out, earlier


def test_a_worker_that_sees_the_folder_works_there(tmp_path):
    (tmp_path / "mark").touch()
    end = Away(complete, Place(tmp_path), tmp_path / "mark")("a")
    assert end.value == (tmp_path, ["mark"])
    assert end.results == {}
    assert (tmp_path / "a.json").exists()


def test_any_other_worker_has_a_folder_for_the_sweep_and_returns_each_result_once(tmp_path):
    perform = Away(complete, Place(tmp_path / "out"), tmp_path / "mark")
    first, second = perform("a"), perform("b")
    (folder, _), (same, found) = first.value, second.value
    assert first.results == {"a.json": {"run_id": "a"}}
    assert second.results == {"b.json": {"run_id": "b"}}
    # What runs share, such as round 0, is found by the next one.
    assert same == folder
    assert found == ["a.safetensors"]
    assert not (tmp_path / "out").exists()

    other, found = Away(complete, perform.place, tmp_path / "next")("c").value
    assert other != folder
    assert found == []
    assert not folder.exists()


@pytest.fixture
def sent(monkeypatch):
    """The work of sweeps, which this process does in place of a cluster."""
    works = []

    def perform_here(work, runs, **how):
        works.append((work, how))
        yield from (attempt(work, run) for run in runs)

    monkeypatch.setattr(away, "perform_on_cluster", perform_here)
    return works


def test_the_folder_has_a_mark_while_the_sweep_lasts(sent, tmp_path):
    place = Place(tmp_path / "new", backend="dask", scheduler="tcp://host:1", jobs=3)
    (end,) = perform_away(complete, ["a"], place, threads=2)
    ((work, how),) = sent
    assert end.value == (tmp_path / "new", [work.mark.name])
    assert not work.mark.exists()
    assert how == {"backend": "dask", "scheduler": "tcp://host:1", "jobs": 3, "threads": 2}


def test_workers_get_whole_paths_and_download_nothing(sent, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    list(perform_away(complete, [], Place(Path("out"), Path("data"), True), threads=None))
    list(perform_away(complete, [], Place(Path("out"), None), threads=None))
    first, second = (work.place for work, _ in sent)
    assert first.out == tmp_path / "out"
    assert first.data_root == tmp_path / "data"
    assert not first.download
    # $POLARITY_DATA and ./data of the worker.
    assert second.data_root is None


def test_results_are_in_the_folder_when_a_run_is_told_to_have_ended(sent, tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "exists", lambda path: False)  # as where no folder is in common
    ends = perform_away(complete, ["a", "b"], Place(tmp_path / "out"), threads=None)
    next(ends)
    assert [path.name for path in (tmp_path / "out").glob("*.json")] == ["a.json"]
    next(ends)
    assert len(list((tmp_path / "out").glob("*.json"))) == 2
    assert not list((tmp_path / "out").glob("*.safetensors"))


def test_the_progress_tells_how_a_run_ended():
    assert Outcome("a", 91.234, 12.3).ended == "91.23 % (12 s)"
    assert Outcome("a", failure="Traceback").ended == "failed"
    # A seed of winning-sign has no accuracy of its own.
    assert Outcome("a").ended == "done"
