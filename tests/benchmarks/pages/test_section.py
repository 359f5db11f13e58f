"""Provenance lines and pages."""

from benchmarks.pages.markdown import markdown
from benchmarks.pages.section import Section, provenance, write_page


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


def test_a_page_is_its_introduction_and_its_section(tmp_path):
    path = write_page(tmp_path / "new" / "page.md", "\nA paper.\n", Section("## Tables"))
    assert path.read_text() == "# A paper.\n\n## Tables\n"


def test_the_source_of_a_table_is_aligned():
    assert markdown(["a", "long"], [["wide", "1"]]).splitlines() == [
        "| a    | long |",
        "|------|------|",
        "| wide | 1    |",
    ]
