"""What the benchmarks import: each other without circles, and of polarity the public names."""

import ast
from graphlib import CycleError, TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path
from types import ModuleType

import pytest

import polarity
from polarity import plot

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "benchmarks").rglob("*.py"))


def name_of(file):
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


FILE_OF = {name_of(file): file for file in FILES}
MODULES = {name: ast.parse(file.read_text(encoding="utf-8")) for name, file in FILE_OF.items()}


def imported(module):
    """Every module of the benchmarks that a module imports, inside functions and for types too."""
    for node in ast.walk(MODULES[module]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and (source := absolute(module, node)) in MODULES:
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                yield inner if inner in MODULES else source


def absolute(module, node):
    """The whole name of what a module imports from."""
    if not node.level:
        return node.module
    package = module if FILE_OF[module].name == "__init__.py" else module.rpartition(".")[0]
    return resolve_name("." * node.level + (node.module or ""), package)


def test_there_is_no_circle():
    graph = {module: set(imported(module)) for module in MODULES}
    assert sum(map(len, graph.values())) > 200
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as circle:
        pytest.fail(" -> ".join(circle.args[1]))


def test_they_import_each_other_by_relative_names():
    # The package has another name in a wheel: polarity_bench.
    absolute = [
        f"{module}: {ast.unparse(node)}"
        for module, tree in MODULES.items()
        for node in ast.walk(tree)
        if (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("benchmarks"))
        or (isinstance(node, ast.Import) and node.names[0].name.startswith("benchmarks"))
    ]
    assert absolute == []


def test_harness_and_pages_know_no_paper():
    for module in MODULES:
        if module.startswith(("benchmarks.harness", "benchmarks.pages", "benchmarks.models")):
            assert not [each for each in imported(module) if "papers" in each], module


@pytest.mark.parametrize("paper", ["signs", "sign_in", "winning_sign", "sign_in_theory"])
def test_papers_have_the_same_doors_and_do_not_know_each_other(paper):
    doors = {"command", "config", "run", "sweep", "report", "plots"}
    mine = f"benchmarks.papers.{paper}."
    assert {f"{mine}{door}" for door in doors} <= MODULES.keys()
    for module in MODULES:
        if module.startswith(mine):
            others = [each for each in imported(module) if each.startswith("benchmarks.papers.")]
            assert all(f"{each}.".startswith(mine) for each in others), module


@pytest.mark.parametrize("module", list(MODULES))
def test_of_polarity_only_public_names_are_used(module):
    called = set()
    for node in ast.walk(MODULES[module]):
        if ast.unparse(node) == "from polarity import plot":
            # `import polarity` does not bring it: it needs an extra.
            called.add("plot")
        elif isinstance(node, ast.ImportFrom):
            assert node.level or not (node.module or "").startswith("polarity"), ast.unparse(node)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "polarity":
                    assert alias.name == "polarity", ast.unparse(node)
                    called.add(alias.asname or "polarity")
    for node in ast.walk(MODULES[module]):
        if isinstance(node, ast.Attribute):
            path = ast.unparse(node).split(".")
            if path[0] in called and all(part.isidentifier() for part in path):
                check_public(path)


def check_public(path):
    value = plot if path[0] == "plot" else polarity
    for part in path[1:]:
        if not isinstance(value, ModuleType):
            return
        assert part in [*value.__all__, "__version__", "__draws_version__"], ".".join(path)
        value = getattr(value, part)


def test_a_name_of_the_figures_that_is_not_public_is_found():
    check_public(["plot", "style"])
    with pytest.raises(AssertionError, match=r"plot\.canvas"):
        check_public(["plot", "canvas"])
