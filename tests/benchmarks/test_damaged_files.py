"""Every paper's command line where files are damaged and folders closed: named, and gone on."""

import json
import tempfile
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.harness.results import stored_result, write_result
from benchmarks.papers.sign_in_theory.command import TheoryOptions
from benchmarks.papers.sign_in_theory.command import main as theory
from benchmarks.papers.sign_in_theory.config import PARTS

ONE = ("--seeds", "0", "--train-size", "200", "--test-size", "100", "--device", "cpu")
QUIET = ("--no-plot", "--quiet")
SIGNS = ("--rounds", "2", "--epochs", "1", "--strategies", "mask0", *ONE, *QUIET)
COMMANDS: dict[str, tuple[str, ...]] = {
    "fragility": (*SIGNS, "--epsilon", "0.5", "--keep-checkpoints"),
    "zero_crossing": (*SIGNS, "--phi", "0", "--keep-checkpoints"),
    "winning_sign": (
        *("--dataset", "digits", "--arch", "mixer", "--rounds", "2", "--at", "2"),
        *("--warmup-epochs", "1", "--final-epochs", "1", "--recalibrate", "50", "--parts", "six"),
        *(*ONE, *QUIET),
    ),
    "sign_in": (
        *("--dataset", "digits", "--width", "8", "--methods", "random", "--densities", "0.2"),
        *("--epochs", "1", "--batch-size", "64", "--sharpness-images", "0", *ONE, *QUIET),
    ),
}
every_command = pytest.mark.parametrize("command", COMMANDS)
TIMES = {
    "seconds",
    "started",
    "command",
    "resumed_after",
    "git_commit",
    "epochs",
    "sharpness_seconds",
}


def run(command: str, out: Path) -> int:
    return main([command, *COMMANDS[command], "--out", str(out)])


def measured(thing):
    """Everything that a run measured but how long it took."""
    if isinstance(thing, dict):
        return {key: measured(value) for key, value in thing.items() if key not in TIMES}
    return [measured(each) for each in thing] if isinstance(thing, list) else thing


def results(out: Path) -> dict[str, object]:
    return {path.name: measured(json.loads(path.read_text())) for path in out.glob("*.json")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder of each command's results, computed once."""
    folders: dict[str, Path] = {}

    def of(command: str) -> Path:
        if command not in folders:
            folders[command] = tmp_path_factory.mktemp(command)
            assert run(command, folders[command]) == 0
        return folders[command]

    return of


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of a command's results, to be damaged."""

    def of(command: str) -> Path:
        for path in finished(command).rglob("*"):
            if path.is_file():
                to = tmp_path / path.relative_to(finished(command))
                to.parent.mkdir(exist_ok=True)
                to.write_bytes(path.read_bytes())
        return tmp_path

    return of


@every_command
@pytest.mark.parametrize("closed", ["below a file", "a file", "a system's", "read only", "below"])
def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_trained(
    command, closed, tmp_path, monkeypatch, capsys
):
    def trained(*_, **__):
        raise AssertionError("trained")

    monkeypatch.setattr("benchmarks.harness.sweep.perform", trained)
    (tmp_path / "file").touch()
    out = {
        "below a file": tmp_path / "file" / "runs",
        "a file": tmp_path / "file",
        "a system's": Path("/proc/sys/runs"),
    }.get(closed, tmp_path / "runs")
    if closed == "below":
        (out / "checkpoints").mkdir(parents=True)
        (out / "states").mkdir()
    if closed in ("read only", "below"):  # as a disk is, for root too
        opened = tempfile.NamedTemporaryFile

        def refused(*given, dir, **more):
            if closed == "read only" or Path(dir).name in ("checkpoints", "states"):
                raise OSError(30, "Read-only file system")
            return opened(*given, dir=dir, **more)

        monkeypatch.setattr(tempfile, "NamedTemporaryFile", refused)
    there = sorted(tmp_path.rglob("*"))
    assert run(command, out) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"error: --out {out}: not a folder that can be written to")
    assert told.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == there


@every_command
@pytest.mark.parametrize("content", ["{", '{"schema": 1}'])
def test_a_damaged_result_is_named_and_set_aside_and_its_run_performed_again(
    command, content, copied, finished, capsys
):
    out = copied(command)
    path = sorted(out.glob("*.json"))[-1]
    path.write_text(content)
    capsys.readouterr()
    assert run(command, out) == 0
    told = capsys.readouterr().err
    assert told.startswith(f"{path} is not ")
    assert f"set aside as {path.name}.damaged, begun again" in told
    assert path.with_name(f"{path.name}.damaged").read_text() == content
    assert results(out) == results(finished(command))


@pytest.mark.parametrize("command", ["fragility", "zero_crossing"])
@pytest.mark.parametrize("damage", ["cut", "header", "other", "empty", "text"])
def test_a_damaged_checkpoint_is_named_and_set_aside_and_its_run_begins_again(
    command, damage, copied, finished, capsys
):
    out = copied(command)
    (result,) = out.glob("*.json")
    result.unlink()
    # Round 0 of the sign experiments has a file of its own, which the runs of a seed share.
    (path,) = (p for p in (out / "checkpoints").iterdir() if not p.name.startswith("dense-"))
    harm(path, damage)
    capsys.readouterr()
    assert run(command, out) == 0
    told = capsys.readouterr().err
    assert told.startswith(f"{path} cannot be resumed from")
    assert told.count("\n") == 1
    assert path.with_name(f"{path.name}.damaged").is_file()
    assert results(out) == results(finished(command))
    assert json.loads(result.read_text())["resumed_after"] is None


def harm(path: Path, damage: str) -> None:
    content = path.read_bytes()
    path.write_bytes(
        {
            "cut": content[:-1],
            "header": content[:20],
            "other": b"\x02\x00\x00\x00\x00\x00\x00\x00{}",  # a sound file, of something else
            "empty": b"",
            "text": b"not a checkpoint",
        }[damage]
    )


def test_whatever_is_no_result_is_set_aside_and_replaces_nothing(tmp_path, capsys):
    path = tmp_path / "fragility-a.json"
    contents = [b"", b"{", b"[]", b"null", b"{}", b"3", b"[" * 100_000, b"\xff\xfe"]
    for content in contents:
        path.write_bytes(content)
        assert stored_result(path) is None
        assert "set aside as fragility-a.json.damaged" in capsys.readouterr().err
    endings = ["", *(f".{number}" for number in range(1, len(contents)))]
    for ending, content in zip(endings, contents, strict=True):
        assert path.with_name(f"{path.name}.damaged{ending}").read_bytes() == content
    sound = {"schema": 1, "experiment": "fragility", "run_id": "fragility-a", "config": {}}
    write_result(path, sound)
    assert stored_result(path) == sound
    assert stored_result(tmp_path / "nothing.json") is None


def test_a_result_under_the_name_of_another_run_is_set_aside(tmp_path, capsys):
    path = tmp_path / "fragility-a.json"
    other = {"schema": 1, "experiment": "fragility", "run_id": "fragility-b", "config": {}}
    write_result(path, other)
    assert stored_result(path) is None
    told = capsys.readouterr().err
    assert told.startswith(f"{path} is the result of another run, fragility-b: set aside as")
    assert json.loads((tmp_path / "fragility-a.json.damaged").read_text()) == other


@pytest.mark.parametrize("option", ["results", "out"])
def test_the_theory_section_tries_its_folders_before_it_computes(
    option, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("benchmarks.papers.sign_in_theory.sweep.sweep", None)
    (tmp_path / "file").touch()
    folders = {"results": tmp_path / "a", "out": tmp_path / "b", option: tmp_path / "file" / "c"}
    assert theory(TheoryOptions(quick=True, **folders)) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"error: --{option} {folders[option]}: not a folder")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file"]


def test_the_theory_section_names_a_damaged_result(tmp_path, capsys):
    for part in PARTS:
        (tmp_path / f"{part}.json").write_text("{")
    assert theory(TheoryOptions(report_only=True, results=tmp_path, out=tmp_path)) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"error: {tmp_path}")
    assert "is not a result file" in told
