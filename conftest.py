"""Options and markers of the test run, and the code blocks of the documentation as tests."""

import os
from doctest import ELLIPSIS
from importlib.util import find_spec
from pathlib import Path

# Before torch: threads that wait for each other make small tensors slow, and busy cores slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

# Configuration, and scripts that tests/docs runs as a user would; neither is a module of tests.
collect_ignore = ["docs/conf.py", "docs/examples", "docs/gallery", "docs/_build"]
# Integrations whose package is not installed have no examples to run.
collect_ignore += [
    f"src/polarity/integrations/{module}"
    for module, package in (("lightning.py", "lightning"), ("transformers", "transformers"))
    if find_spec(package) is None
]

pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(doctest_optionflags=ELLIPSIS), SkipParser()],
    path=str(Path(__file__).parent),
    patterns=["*.md"],
    excludes=["docs/results/*", "CONTRIBUTING.md"],  # generated pages; templates
).pytest()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests that take minutes")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    # Every test draws what it draws when it runs alone, in any order and in any process.
    torch.manual_seed(0)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    slow = pytest.mark.skip(reason="takes minutes; run with --slow")
    gpu = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if "slow" in item.keywords and not config.getoption("--slow"):
            item.add_marker(slow)
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(gpu)
