"""The example scripts run as a user runs them, stay short, and use public names only."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import polarity

EXAMPLES = sorted((Path(__file__).parents[2] / "docs" / "examples").glob("*.py"))
ALLOWED = {"matplotlib", "numpy", "polarity", "sklearn", "torch", *sys.stdlib_module_names}

each_example = pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)


def test_there_are_six_examples():
    assert {path.stem for path in EXAMPLES} >= {
        "dense_to_sparse",
        "fragility",
        "lottery_ticket",
        "sign_in",
        "survivors",
        "winning_sign",
    }


@each_example
def test_an_example_runs_to_its_figure(path, tmp_path):
    """Run the script in a process of its own; it must end in a figure that holds data."""
    driver = (
        "import runpy, sys, matplotlib.pyplot as plt\n"
        "runpy.run_path(sys.argv[1], run_name='__main__')\n"
        "axes = [axis for number in plt.get_fignums() for axis in plt.figure(number).axes]\n"
        "assert axes and all(axis.lines for axis in axes), 'no figure, or an empty one'\n"
    )
    # polarity from where this test has it, installed or not; no window; one thread.
    source = str(Path(polarity.__file__).parents[1])
    settings = {"PYTHONPATH": source, "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore:FigureCanvasAgg:UserWarning", "-c", driver, str(path)],
        env={**os.environ, **settings},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert not list(tmp_path.iterdir()), "an example wrote files"


@each_example
def test_an_example_is_under_a_hundred_lines(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) < 100


@each_example
def test_an_example_uses_public_names_only(path):
    """No import of a private module, and every attribute chain of `pol` is a public one."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module]
        else:
            modules = []
        for module in modules:
            assert module.split(".")[0] in ALLOWED, module
            assert module == "polarity" or not module.startswith("polarity."), module
        if isinstance(node, ast.Attribute):
            assert not node.attr.startswith("_"), node.attr
            if isinstance(node.value, ast.Name) and node.value.id == "pol":
                assert node.attr in polarity.__all__, f"pol.{node.attr}"
