"""Provenance lines and pages."""

from benchmarks.pages.markdown import markdown
from benchmarks.pages.section import (
    Section,
    commit,
    images,
    provenance,
    spread_text,
    uncommitted,
    write_page,
)


def result(**changes):
    machine = {"cpu": "abacus", "cores": 2, "threads": 1, "device": "cpu"}
    return {
        "versions": {"polarity": "0", "torch": "2"},
        "machine": machine,
        "git_commit": None,
        "seconds": 3.0,
        "started": "2025-01-02T00:00:00+00:00",
        **changes,
    }


def test_provenance_names_each_version_once_and_the_range_of_times():
    later = result(seconds=5.0, started="2025-01-04T00:00:00+00:00", git_commit="abc")
    versions, machine, time = provenance([result(), later, result()])
    assert versions == "- Versions: polarity 0, torch 2; commit unknown / abc"
    assert machine == "- Machine: abacus, 2 cores, threads per run 1, device cpu"
    assert time == "- Time: 3 to 5 s per run, 2025-01-02 to 2025-01-04"
    assert provenance([result()], "2 h in all")[-1] == "- Time: 2 h in all, 2025-01-02"


def test_code_that_was_not_committed_is_marked_however_short_the_commit_is_written():
    dirty = f"{'a' * 40}-dirty"
    mark = "(computed by code that was not committed)"
    assert [commit(dirty), commit(dirty, 7)] == [f"{'a' * 40} {mark}", f"{'a' * 7} {mark}"]
    assert [commit("b" * 40, 7), commit(None)] == ["b" * 7, "unknown"]
    assert mark in provenance([result(git_commit=dirty)])[0]
    assert uncommitted([result(), result(git_commit=dirty)]) == mark.strip("()")
    assert uncommitted([result(), result(git_commit="b" * 40)]) == ""


def test_a_page_is_its_introduction_and_its_section(tmp_path):
    path = write_page(tmp_path / "new" / "page.md", "\nA paper.\n", Section("## Tables"))
    assert path.read_text() == "# A paper.\n\n## Tables\n"


def test_the_source_of_a_table_is_aligned():
    assert markdown(["a", "long"], [["wide", "1"]]).splitlines() == [
        "| a    | long |",
        "|------|------|",
        "| wide | 1    |",
    ]


def test_titles_name_data_set_size_and_seeds():
    data = {"name": "cifar10", "shape": [3, 16, 16], "train": 5000, "pooled_from": 32}
    assert images(data) == "CIFAR-10 at 16×16 (averaged), 5,000 training images"
    own = {"name": "flowers", "shape": [3, 32, 32], "train": 10}
    assert images(own) == "flowers at 32×32, 10 training images"
    assert [spread_text(count) for count in (1, 3)] == ["1 seed", "3 seeds, mean ± std"]
    assert spread_text(3, 2) == "2 to 3 seeds, mean ± std"
    assert spread_text(3, 1) == "1 to 3 seeds, mean ± std where there are several"
