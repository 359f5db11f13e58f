"""The two names of the benchmarks in a checkout; `tests/packaging` has those of a wheel."""

from pathlib import Path

import polarity_bench.harness.home as under_the_commands_name
import polarity_bench.harness.results as results

from benchmarks.harness import home
from benchmarks.harness.results import git_commit

ROOT = Path(__file__).parents[3]


def test_in_an_editable_installation_the_command_runs_the_checkout():
    assert under_the_commands_name.__file__ == home.__file__
    assert under_the_commands_name.IN_CHECKOUT
    assert under_the_commands_name.results_folder("theory") == ROOT / "benchmarks/results/theory"
    assert under_the_commands_name.pages_folder("theory") == ROOT / "docs/results"
    assert results.git_commit() == git_commit()


def test_results_state_the_command_that_was_typed(monkeypatch):
    for program, module in (("python -m benchmarks", home), ("polarity-bench", results)):
        assert program == module.PROGRAM
    monkeypatch.setenv("POLARITY_BENCHMARKS_COMMAND", "another")
    results.remember_command(["fragility", "--out", "a folder"])
    assert results.command_line() == "polarity-bench fragility --out 'a folder'"


def test_an_installed_package_has_no_commit_inside_another_repository(monkeypatch):
    asked = []

    def untracked(*arguments):
        asked.append(arguments[0])
        if arguments[0] == "ls-files":
            raise OSError("not a file of this repository")
        return "0123"

    monkeypatch.setattr("benchmarks.harness.results._git", untracked)
    assert git_commit() is None
    assert asked == ["ls-files"]
