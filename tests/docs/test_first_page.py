"""README and the documentation's first page: the same lines, and numbers from the result files."""

import re
from pathlib import Path

import pytest

from benchmarks.harness.results import load_results
from benchmarks.papers.sign_in.dense_to_sparse.first_page import (
    MAGNITUDES,
    SIGNS,
    caption,
    gains,
    shown,
)
from benchmarks.papers.sign_in.dense_to_sparse.summary import comparisons

ROOT = Path(__file__).parents[2]
PAGES = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/index.md")}
each_page = pytest.mark.parametrize("page", PAGES.values(), ids=list(PAGES))


@pytest.fixture(scope="module")
def group():
    results = load_results(ROOT / "benchmarks" / "results", ["dense_to_sparse"])
    return shown(comparisons(results))


@each_page
def test_the_one_result_is_that_of_the_committed_runs(page, group):
    """If new runs are committed, the sentence under the figure has to follow them."""
    first, second, third = (f"{each.mean:.1f}" for each in gains(group, SIGNS))
    plain = page.replace("**", "")
    assert f"end {first}, {second} and {third} points above a random start" in plain


@each_page
def test_no_start_with_learned_magnitudes_ends_above_the_random_one(page, group):
    assert "With the learned magnitudes and random signs, none ends above it." in page
    assert [each.mean for each in gains(group, MAGNITUDES) if each.mean > 0] == []


@each_page
def test_the_caption_says_scale_and_seeds(page, group):
    assert caption(group) in page


@each_page
def test_the_figure_is_committed(page):
    names = re.findall(r"[\w./:-]*first_page[\w-]*\.png", page)
    assert names
    for name in names:
        local = name.removeprefix(
            "https://raw.githubusercontent.com/polarity-dev/polarity/main/docs/"
        )
        assert (ROOT / "docs" / local).is_file()


def test_the_figure_of_readme_has_an_absolute_address():
    # The package index shows README without the files around it.
    images = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", PAGES["README.md"])
    assert [each for each in images if not each.startswith("https://")] == []


def test_both_pages_show_the_same_lines():
    first = [re.search(r"```python\n(.*?)```", page, re.DOTALL)[1] for page in PAGES.values()]
    assert first[0] == first[1]


def test_badges_say_what_is_true():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    badges = re.findall(r"img.shields.io/badge/(\S+?)-blue", PAGES["README.md"])
    assert badges == ["licence-Apache--2.0", "python-3.10+", "pytorch-2.6+", "typed-mypy%20strict"]
    for line in (
        'license = "Apache-2.0"',
        'requires-python = ">=3.10"',
        '"torch>=2.6"',
        "[tool.mypy]\nstrict = true",
    ):
        assert line in project
    assert (ROOT / "src" / "polarity" / "py.typed").is_file()
