"""Options and markers of the test run, and the code blocks of the documentation as tests."""

import os
from collections.abc import Generator
from doctest import ELLIPSIS
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# Before torch: threads that wait for each other make small tensors slow, and busy cores slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import pytest
import torch
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

SLOW, GPU = "takes minutes; run with --slow", "needs a CUDA device"

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
    parser.addoption(
        "--no-skips", action="store_true", help="fail what is skipped, but for minutes and CUDA"
    )


def pytest_configure(config: pytest.Config) -> None:
    # Of laws that draw their cases and do not say how many.
    examples = 200 if config.getoption("--slow") else 40
    hypothesis.settings.register_profile("polarity", deadline=None, max_examples=examples)
    hypothesis.settings.load_profile("polarity")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    # Every test draws what it draws when it runs alone, in any order and in any process.
    torch.manual_seed(0)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, Any]:
    return failed_if_skipped((yield), item.config)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, Any]:
    return failed_if_skipped((yield), collector.config)


def failed_if_skipped(report: Any, config: pytest.Config) -> Any:
    """With --no-skips, fail what something missing would leave out: a package, for instance."""
    if config.getoption("--no-skips") and report.skipped and not hasattr(report, "wasxfail"):
        reason = str(report.longrepr[-1])
        if not reason.endswith((SLOW, GPU)):
            report.outcome, report.longrepr = "failed", f"--no-skips: {reason}"
    return report


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    slow, gpu = pytest.mark.skip(reason=SLOW), pytest.mark.skip(reason=GPU)
    for item in items:
        if "slow" in item.keywords and not config.getoption("--slow"):
            item.add_marker(slow)
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(gpu)
