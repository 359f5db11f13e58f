"""The example scripts run as a user runs them, stay short, and use public names only."""

import ast
import io
import os
import re
import subprocess
import sys
import tokenize
from importlib.util import find_spec
from pathlib import Path

import pytest

import polarity
from tests.helpers import torchrun
from tests.ranks.sharded import needs_fsdp_on_cpu

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLES = sorted((DOCS / "examples").glob("*.py"))
TUTORIALS = sorted((DOCS / "tutorials").glob("*.md"))
ALLOWED = {
    *("matplotlib", "numpy", "polarity", "sklearn", "timm", "torch", "torchvision"),
    *sys.stdlib_module_names,
}
# Under torchrun, without a figure: it has a test of its own.
RANKS = "many_ranks"
# These two run by default. The others too run in every build of the documentation.
QUICK = {"fragility", "lottery_ticket"}

each_example = pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
each_run = pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=[] if path.stem in QUICK else [pytest.mark.slow])
        for path in EXAMPLES
        if path.stem != RANKS
    ],
)
each_tutorial = pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)


def test_there_are_ten_examples():
    assert {path.stem for path in EXAMPLES} == {
        "dense_to_sparse",
        "first_ticket_resnet18",
        "fragility",
        "learning_rate_rewinding",
        "lottery_ticket",
        "many_ranks",
        "pai_shootout",
        "survivors",
        "vit_timm",
        "winning_sign",
    }


@each_run
def test_an_example_runs_to_its_figure(path, tmp_path):
    """Run the script in a process of its own: figures hold data, and say scale and seeds."""
    if "from timm" in path.read_text(encoding="utf-8") and find_spec("timm") is None:
        pytest.skip("timm is not installed")
    driver = (
        "import runpy, sys, matplotlib.pyplot as plt\n"
        "runpy.run_path(sys.argv[1], run_name='__main__')\n"
        "figures = [plt.figure(number) for number in plt.get_fignums()]\n"
        "axes = [axis for figure in figures for axis in figure.axes]\n"
        "assert axes and all(axis.lines for axis in axes), 'no figure, or an empty one'\n"
        "for figure in figures:\n"
        "    words = figure.get_suptitle()\n"
        "    assert 'seed' in words and 'epochs' in words, f'no scale or seeds: {words!r}'\n"
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
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert not list(tmp_path.iterdir()), "an example wrote files"


@pytest.mark.slow
@needs_fsdp_on_cpu
def test_the_example_of_many_ranks_runs_under_torchrun(tmp_path):
    printed = torchrun([str(DOCS / "examples" / f"{RANKS}.py")], tmp_path)
    assert "densities: 1.0000 0.5000 0.2500 0.1250" in printed
    assert float(printed.split()[-1]) > 0.5  # of ten digits
    assert not list(tmp_path.iterdir()), "an example wrote files"


@each_example
def test_an_example_is_at_most_120_lines(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 120


def test_the_example_of_dense_to_sparse_training_is_40_lines_of_code():
    """Imports and figure included; blank lines, comments and docstrings are no code."""
    text = (DOCS / "examples" / "dense_to_sparse.py").read_text(encoding="utf-8")
    kinds = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in (*kinds, tokenize.ENDMARKER):
            code.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Module, ast.FunctionDef)) and ast.get_docstring(node):
            code.difference_update(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    assert len(code) <= 40


@each_tutorial
def test_a_tutorial_and_the_examples_it_names_link_to_each_other(path):
    named = re.findall(r"\]\(\.\./gallery/(\w+)\)", path.read_text(encoding="utf-8"))
    assert named, "no link to an example"
    for stem in named:
        script = (DOCS / "examples" / f"{stem}.py").read_text(encoding="utf-8")
        assert f":doc:`/tutorials/{path.stem}`" in script, stem


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
