"""The page of papers: what cites one of the four is there, and addresses are those of CITATION."""

import re

import pytest

from tests.docs.api_pages import DOCS, explained, found, listed, public_names

PAGE = (DOCS / "papers.md").read_text(encoding="utf-8")
CITATION = (DOCS.parent / "CITATION.cff").read_text(encoding="utf-8")
TITLES = {
    "Fragility of Polarity": "The Fragility of Polarity",
    "Beyond the Zero-Crossing": "Beyond the Zero-Crossing",
    "Find a Winning Sign": "Find a Winning Sign",
    "Sign-In to the Lottery": "Sign-In to the Lottery",
}
SECTIONS = {part.split("\n")[0]: part for part in PAGE.split("\n## ")[1:]}
CITING = [
    (name, paper)
    for name in {*public_names(), *listed()} - {*explained()}
    if not name.startswith("polarity.integrations.")
    for paper in TITLES
    if paper.lower() in (getattr(found(name), "__doc__", "") or "").partition("Source:")[2].lower()
]


def test_there_is_a_section_for_each_of_the_four():
    assert list(SECTIONS) == list(TITLES.values())
    for title in SECTIONS:
        assert f"*{title}" in PAGE
        assert title in CITATION


@pytest.mark.parametrize(("name", "paper"), sorted(CITING))
def test_what_cites_a_paper_is_in_its_section(name, paper):
    assert f"`{name}`" in SECTIONS[TITLES[paper]]


def test_every_name_on_the_page_has_a_page():
    names = set(re.findall(r"\{py:\w+\}`([\w.]+)`", PAGE))
    assert len(names) > 30
    assert names <= set(listed())


def test_addresses_are_those_of_the_citation():
    """Where CITATION.cff gives addresses of papers, the page has these and no others."""
    known = set(re.findall(r"https://(?:arxiv|openreview)\.\S+?(?=[\"\s])", CITATION))
    told = set(re.findall(r"https://(?:arxiv|openreview)[^)\s]+", PAGE))
    assert len(told) == 3
    assert not known or known == told


def test_an_arxiv_link_says_where_it_leads():
    links = re.findall(r"\[arXiv:([\d.]+)\]\(https://arxiv.org/abs/([\d.]+)\)", PAGE)
    assert len(links) == 2
    assert [link for link in links if link[0] != link[1]] == []
