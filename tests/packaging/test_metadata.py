"""Names, versions, links and papers: pyproject.toml, CITATION.cff and the workflow agree."""

import re

import pytest

import polarity
from tests.packaging.texts import URL, text

tomllib = pytest.importorskip("tomllib")  # since Python 3.11
yaml = pytest.importorskip("yaml")

PROJECT = tomllib.loads(text("pyproject.toml"))["project"]
CITATION = yaml.safe_load(text("CITATION.cff"))


def test_the_distribution_has_a_name_of_its_own():
    assert PROJECT["name"] == "torch-polarity"
    needed = [each for extra in PROJECT["optional-dependencies"].values() for each in extra]
    own = [each for each in needed if "polarity" in each]
    assert own
    assert [each for each in own if not each.startswith("torch-polarity[")] == []


def test_extras_of_itself_exist():
    extras = PROJECT["optional-dependencies"]
    for each in [each for extra in extras.values() for each in extra]:
        if each.startswith("torch-polarity["):
            assert set(each[len("torch-polarity[") : -1].split(",")) <= extras.keys()


def test_the_core_depends_on_three_packages():
    names = [re.match(r"[\w-]+", each)[0] for each in PROJECT["dependencies"]]
    assert names == ["torch", "numpy", "typing-extensions"]


def test_the_project_says_where_everything_is():
    urls = PROJECT["urls"]
    assert urls.keys() >= {"Homepage", "Documentation", "Source", "Changelog", "Issues"}
    assert urls["Source"] == URL
    assert [each for each in urls.values() if not each.startswith("https://")] == []


def test_the_classifiers_name_the_python_versions_of_the_workflow():
    workflow = yaml.safe_load(text(".github/workflows/ci.yml"))
    run = workflow["jobs"]["run"]["strategy"]["matrix"]["python"]
    named = [each.rpartition(" ")[2] for each in PROJECT["classifiers"] if "Python :: 3." in each]
    assert named == run
    assert PROJECT["requires-python"] == f">={run[0]}"


def test_the_citation_states_this_version_and_the_date_of_its_entry():
    log = text("CHANGELOG.md")
    assert str(CITATION["version"]) == polarity.__version__
    assert f"## [{CITATION['version']}] - {CITATION['date-released']}" in log
    assert CITATION["license"] == PROJECT["license"]
    assert CITATION["repository-code"] == URL


# Fields of version 1.2.0 of the Citation File Format that are used here, and what each holds.
FIELDS = {
    "type": str, "title": str, "authors": list, "notes": str, "year": int, "conference": dict,
    "collection-title": str, "url": str, "identifiers": list, "journal": str,
}  # fmt: skip
TYPES = {"article", "conference-paper", "unpublished"}


def test_the_citation_has_the_form_of_its_format():
    assert CITATION["cff-version"] == "1.2.0"
    assert {"message", "title", "authors", "type"} <= CITATION.keys()
    for paper in CITATION["references"]:
        assert {"type", "title", "authors"} <= paper.keys() <= FIELDS.keys()
        assert [name for name, value in paper.items() if not isinstance(value, FIELDS[name])] == []
        assert paper["type"] in TYPES
        for author in paper["authors"]:
            assert author.keys() in ({"name"}, {"family-names", "given-names"})


def test_all_four_papers_are_cited_with_what_they_say_of_themselves():
    papers = {paper["title"].split(":")[0]: paper for paper in CITATION["references"]}
    assert papers.keys() == {
        "The Fragility of Polarity",
        "Beyond the Zero-Crossing",
        "Find a Winning Sign",
        "Sign-In to the Lottery",
    }
    for paper in papers.values():
        # Two of them are manuscripts that name neither authors nor year.
        if paper["authors"] == [{"name": "Anonymous"}]:
            assert paper["notes"]
        else:
            assert paper["year"] == 2025
            assert paper["url"].startswith("https://")
            assert paper.keys() & {"conference", "journal"}
    names = [each["family-names"] for each in papers["Find a Winning Sign"]["authors"]]
    assert names == ["Oh", "Baik", "Lee"]
    names = [each["family-names"] for each in papers["Sign-In to the Lottery"]["authors"]]
    assert names == ["Gadhikar", "Jacobs", "Zhou", "Burkholz"]
