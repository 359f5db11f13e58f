"""What texts say about installing and citing the package, and where their links lead."""

import re
from urllib.parse import urlsplit

import pytest

import polarity
from tests.packaging.texts import ROOT, URL, text, texts

tomllib = pytest.importorskip("tomllib")  # since Python 3.11

# Another project has the name on the index.
ANOTHER_PROJECT = [
    r"pip3?\s+install\s[^\n`#]*(?<![\w./-])polarity(?![\w./-])",
    r"(?<!torch-)(?<!\w)polarity\[[a-z]",
]


def project():
    return tomllib.loads(text("pyproject.toml"))["project"]


def found(pattern):
    """Every match in every text but this one, with the file and line in which it is."""
    return [
        (match, f"{name}, line {content.count(chr(10), 0, match.start()) + 1}: {match[0]}")
        for name, content in texts()
        if not name.endswith("packaging/test_texts.py")
        for match in re.finditer(pattern, content)
    ]


@pytest.mark.parametrize("pattern", ANOTHER_PROJECT)
def test_no_text_installs_the_other_project_called_polarity(pattern):
    assert [where for _, where in found(pattern)] == []


@pytest.mark.parametrize(
    ("line", "other"),
    [
        ("pip install polarity", True),
        ("pip install -U polarity", True),
        ('pip install "polarity[bench]"', True),
        ("needs polarity[analysis]", True),
        ("pip install torch-polarity", False),
        ('pip install "torch-polarity[bench]"', False),
        ("pip install torch-polarity  # imported as polarity", False),
        ("pip install -e /work/polarity/src", False),
        ("polarity['x']", False),
    ],
)
def test_the_patterns_tell_the_two_projects_apart(line, other):
    assert any(re.search(pattern, line) for pattern in ANOTHER_PROJECT) is other


def test_install_hints_name_extras_that_exist():
    hints = found(r"torch-polarity\[([\w,-]+)\]")
    extras = project()["optional-dependencies"]
    wrong = [where for match, where in hints for each in match[1].split(",") if each not in extras]
    assert len(hints) > 5
    assert wrong == []


def links(page):
    """Every target of a link or picture: Markdown's inline and reference forms, and HTML's."""
    without_code = re.sub(r"^```.*?^```", "", page, flags=re.DOTALL | re.MULTILINE)
    inline = re.findall(r"\]\(\s*<?([^)\s>]+)", without_code)
    named = re.findall(r"^\[[^\]]+\]:\s*(\S+)", without_code, flags=re.MULTILINE)
    return inline + named + re.findall(r"""(?:href|src|srcset)=["']([^"']+)""", without_code)


def test_every_kind_of_link_is_found():
    page = "[a](b) ![c](d 'e') [f]\n\n[f]: g\n<img src='h'>\n```md\n[x](y)\n```\n[![i](j)](k)\n"
    assert sorted(links(page)) == ["b", "d", "g", "h", "j", "k"]


def test_every_link_of_the_readme_is_absolute_or_an_anchor():
    # The package index shows README.md far from the files around it.
    readme = text("README.md")
    targets = links(readme)
    headings = re.findall(r"^#+\s+(.*)$", readme, flags=re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", each).lower().replace(" ", "-") for each in headings}
    assert len(targets) > 10
    assert [each for each in targets if not each.startswith(("https://", "#"))] == []
    assert {each[1:] for each in targets if each.startswith("#")} <= anchors


def in_repository(target):
    """The path in the repository that a link leads to; None where it leads elsewhere."""
    for start in (f"{URL}/", "https://raw.githubusercontent.com/polarity-dev/polarity/"):
        if target.startswith(start):
            path = urlsplit(target[len(start) :]).path
            return re.sub(r"^((blob|tree|raw)/)?main/", "", path)
    return None


# Pages of the project that are no files.
PAGES = {"issues", "discussions", "releases", "security", "actions", "actions/workflows/ci.yml"}


@pytest.mark.parametrize("page", ["README.md", "CITATION.cff", "pyproject.toml"])
def test_links_into_the_repository_lead_to_files_that_exist(page):
    urls = re.findall(r"https://[^\s\"'<>)\]]+", text(page))
    paths = [path for url in urls if (path := in_repository(url))]
    files = [path.removesuffix("/badge.svg") for path in paths]
    assert [path for path in files if path not in PAGES and not (ROOT / path).exists()] == []


def test_the_changelog_has_a_dated_entry_for_this_version():
    log = text("CHANGELOG.md")
    entries = re.findall(r"^## \[(.+?)\](?: - (\d{4}-\d\d-\d\d))?$", log, flags=re.MULTILINE)
    assert entries[0] == ("Unreleased", "")
    version, date = entries[1]
    assert version == polarity.__version__
    assert date
    assert f"[{version}]: {URL}/releases/tag/v{version}" in log


def test_the_readme_lists_what_make_help_lists():
    targets = re.findall(r"^([a-z-]+):.*## (.+)$", text("Makefile"), re.MULTILINE)
    shown = re.findall(
        r"^make ([a-z-]+) +(.+)$", text("README.md").split("```text")[1], re.MULTILINE
    )
    assert shown[: len(targets)] == targets
    assert len(shown) == len(targets)


def test_the_demo_trains_although_the_results_of_its_runs_are_committed():
    (demo,) = re.findall(r"python -m benchmarks (fragility .*)$", text("Makefile"), re.MULTILINE)
    assert "--repeat" in demo.split()
