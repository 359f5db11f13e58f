"""Committed results: packed, read line by line, refused where nobody could repeat them, found."""

import json
from dataclasses import dataclass, field, replace

import pytest

from benchmarks.__main__ import main
from benchmarks.harness.command_line import RunOptions, conduct
from benchmarks.harness.committed import committed_results, found_result, pack, repeat_committed
from benchmarks.harness.json_lines import read_lines, write_lines
from benchmarks.harness.results import load_results, write_result
from benchmarks.pages.section import Section

COMMIT = "a" * 40


@dataclass
class Settings:
    """Settings of a run that is never performed."""

    run_id: str
    experiment: str = "tosses"
    digest: str = ""
    device: str = "cpu"
    more: dict = field(default_factory=dict)


def toss(name, **changes):
    return {
        "schema": 1,
        "experiment": "tosses",
        "run_id": f"tosses-{name}",
        "config": {"seed": 0},
        "git_commit": COMMIT,
        **changes,
    }


def stored(folder, *results):
    for result in results:
        write_result(folder / f"{result['run_id']}.json", result)
    return folder


def packed(folder, out):
    return main(["pack", "--results", str(folder), "--out", str(out)])


def test_packing_writes_a_record_a_line_sorted_by_run(tmp_path, capsys):
    runs = stored(tmp_path / "runs", toss("c"), toss("a", note="ä ± σ"))
    stored(runs / "below", toss("b"))
    stored(runs, toss("x", experiment="else"), {**toss("y"), "run_id": "another-y"})
    out = tmp_path / "results" / "tosses.jsonl"
    assert packed(runs, out) == 0
    assert "3 results, 3 of them from" in capsys.readouterr().out
    lines = out.read_bytes().split(b"\n")
    assert lines.pop() == b""
    assert [json.loads(line)["run_id"] for line in lines] == ["tosses-a", "tosses-b", "tosses-c"]
    assert "ä ± σ".encode() in lines[0]
    assert [path.name for path in out.parent.iterdir()] == ["tosses.jsonl"]


def test_what_is_packed_is_read_as_the_files_are(tmp_path):
    runs = stored(tmp_path / "runs", toss("b", seconds=0.1 + 0.2), toss("a"))
    out = tmp_path / "results" / "below" / "tosses.jsonl"
    pack(runs, out)
    assert load_results(tmp_path / "results", ["tosses"]) == load_results(runs, ["tosses"])
    assert load_results(tmp_path / "results", ["else"]) == []
    before = out.read_bytes()
    pack(runs, out)
    assert out.read_bytes() == before


def test_packing_again_keeps_what_the_folder_does_not_have(tmp_path, capsys):
    out = tmp_path / "tosses.jsonl"
    pack(stored(tmp_path / "first", toss("a", heads=1), toss("b", heads=1)), out)
    later = stored(tmp_path / "later", toss("b", heads=2), toss("c", heads=2))
    assert packed(later, out) == 0
    assert "3 results, 2 of them from" in capsys.readouterr().out
    assert [line["heads"] for line in read_lines(out)] == [1, 2, 2]


@pytest.mark.parametrize("commit", [f"{COMMIT}-dirty", None])
def test_results_of_code_that_is_not_committed_are_not_packed(commit, tmp_path, capsys):
    runs = stored(tmp_path / "runs", toss("a"), toss("b", git_commit=commit))
    out = tmp_path / "tosses.jsonl"
    assert packed(runs, out) == 1
    told = capsys.readouterr().err
    assert f"tosses-b ({commit or 'commit unknown'})" in told
    assert "tosses-a" not in told
    assert told.count("\n") == 1
    assert not out.exists()


def test_results_of_different_commits_are_not_packed_and_the_odd_ones_are_named(tmp_path, capsys):
    runs = stored(tmp_path / "runs", toss("a"), toss("b"), toss("c", git_commit="b" * 40))
    out = tmp_path / "tosses.jsonl"
    assert packed(runs, out) == 1
    told = capsys.readouterr().err
    assert f"tosses-c in {runs / 'tosses-c.json'} ({'b' * 40})" in told
    assert "tosses-a" not in told
    assert not out.exists()
    # Nor are they mixed with those that are there.
    (runs / "tosses-c.json").unlink()
    assert packed(runs, out) == 0
    before = out.read_bytes()
    capsys.readouterr()
    other = stored(tmp_path / "other", *(toss(x, git_commit="b" * 40) for x in "cde"))
    assert packed(other, out) == 1
    assert f"tosses-a in {out} ({COMMIT})" in capsys.readouterr().err
    assert out.read_bytes() == before


def test_packing_refuses_what_is_no_result_or_twice_there_or_not_there(tmp_path, capsys):
    out = tmp_path / "tosses.jsonl"
    runs = stored(tmp_path / "runs", toss("a"))
    damaged = runs / "tosses-b.json"
    for content, told in (
        ("{", f"{damaged} is not a result file"),
        (json.dumps(toss("a")), f"{damaged} is not the result of the run that it is named after"),
    ):
        damaged.write_text(content)
        assert packed(runs, out) == 1
        assert told in capsys.readouterr().err
    damaged.unlink()
    stored(runs / "below", toss("a"))
    assert packed(runs, out) == 1
    assert "more than one result" in capsys.readouterr().err
    assert packed(tmp_path / "nothing", out) == 1
    assert "no results of tosses" in capsys.readouterr().err
    assert packed(runs, tmp_path / "tosses.json") == 1
    assert "must be named EXPERIMENT.jsonl" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('{"schema": 1, "exp', "is not a result"),
        ("[" * 100_000, "is not a result"),
        ("[]", "is not the result of a run: it must hold schema, experiment, run_id, config"),
        ('{"schema": 1}', "is not the result of a run"),
        (json.dumps(toss("a")), "holds tosses-a, as line 1 does"),
        (json.dumps(toss("b", experiment="else")), "is a result of else"),
    ],
    ids=["cut", "deep", "list", "short", "twice", "other"],
)
def test_a_damaged_line_is_named_with_its_file_and_number(line, fault, tmp_path, capsys):
    path = tmp_path / "tosses.jsonl"
    path.write_text(f"{json.dumps(toss('a'))}\n\n{line}\n")
    with pytest.raises(ValueError, match=r"tosses\.jsonl, line 3, ") as raised:
        read_lines(path)
    assert fault in str(raised.value)
    with pytest.raises(ValueError, match=r"tosses\.jsonl, line 3, "):
        load_results(tmp_path, ["tosses"])
    before = path.read_bytes()
    assert packed(stored(tmp_path / "runs", toss("c")), path) == 1
    assert "line 3" in capsys.readouterr().err
    assert path.read_bytes() == before


@pytest.mark.parametrize("commit", [f"{COMMIT}-dirty", None])
def test_the_report_refuses_dirty_lines_and_reads_dirty_files(commit, tmp_path, capsys):
    dirty = toss("a", git_commit=commit)
    write_lines(tmp_path / "tosses.jsonl", [dirty])
    with pytest.raises(ValueError, match=r"tosses\.jsonl must hold results of committed code"):
        load_results(tmp_path, ["tosses"])
    assert load_results(stored(tmp_path / "runs", dirty), ["tosses"]) == [dirty]


def test_a_run_in_both_forms_is_refused(tmp_path):
    write_lines(tmp_path / "tosses.jsonl", [toss("a"), toss("b")])
    stored(tmp_path, toss("b"))
    with pytest.raises(ValueError, match=r"a file of their own .*: tosses-b; remove one"):
        load_results(tmp_path, ["tosses"])


def test_a_finished_run_is_found_in_its_own_file_and_among_the_committed(tmp_path):
    runs, committed = tmp_path / "runs", tmp_path / "committed"
    write_lines(committed / "tosses.jsonl", [toss("a", heads=1), toss("b", heads=1)])
    stored(runs, toss("b", heads=2))

    def heads(name):
        found = found_result(runs, Settings(f"tosses-{name}"), committed)
        return None if found is None else found["heads"]

    assert [heads("a"), heads("b"), heads("c")] == [1, 2, None]
    assert found_result(runs, Settings("tosses-a"), tmp_path / "nothing") is None
    # A file that was written again is read again.
    write_lines(committed / "tosses.jsonl", [toss("a", heads=3), toss("c", heads=3)])
    assert committed_results("tosses", committed).keys() == {"tosses-a", "tosses-c"}
    (committed / "tosses.jsonl").write_text("{")
    with pytest.raises(ValueError, match="line 1"):
        heads("c")


def test_committed_runs_are_performed_again_where_that_is_asked_for(tmp_path):
    runs, committed = tmp_path / "runs", tmp_path / "committed"
    write_lines(committed / "tosses.jsonl", [toss("a"), toss("b")])
    write_result(runs / "tosses-b.json", toss("b"))
    try:
        repeat_committed(True)
        assert found_result(runs, Settings("tosses-a"), committed) is None
        # What the sweep itself has finished is not begun again.
        assert found_result(runs, Settings("tosses-b"), committed) is not None
    finally:
        repeat_committed(False)
    assert found_result(runs, Settings("tosses-a"), committed) is not None


def test_a_sweep_shows_the_committed_results_of_its_runs(tmp_path, monkeypatch, capsys):
    write_lines(tmp_path / "committed" / "tosses.jsonl", [toss("a"), toss("z")])
    monkeypatch.setattr(
        "benchmarks.harness.command_line.found_result",
        lambda out, config: found_result(out, config, tmp_path / "committed"),
    )
    runs = stored(tmp_path / "runs", toss("b"))
    configs = [Settings(f"tosses-{name}") for name in "abc"]
    seen = []

    def describe(results, plots):
        seen.extend(result["run_id"] for result in results)
        return Section("told")

    where = RunOptions(device="cpu", out=runs, quiet=True)
    assert conduct(where, [], lambda: (configs, []), describe) == 0
    assert seen == ["tosses-a", "tosses-b"]
    seen.clear()
    assert conduct(replace(where, repeat=True), [], lambda: (configs, []), describe) == 0
    assert seen == ["tosses-b"]
    seen.clear()
    assert conduct(where, [], lambda: (configs, []), describe) == 0
    assert seen == ["tosses-a", "tosses-b"]


def test_workers_of_a_cluster_are_not_asked_to_repeat_committed_runs(tmp_path, capsys):
    where = RunOptions(device="cpu", out=tmp_path, backend="dask", repeat=True)
    assert conduct(where, [], lambda: ([], []), lambda results, plots: Section("")) == 1
    assert "--repeat is for --backend loky" in capsys.readouterr().err
