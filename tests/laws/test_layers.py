"""Who may import whom: the layers of the library, its public doors, and no circles anywhere."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from importlib.util import resolve_name
from itertools import chain
from pathlib import Path
from types import ModuleType

import polarity

ROOT = Path(__file__).parents[2]

# From left to right: imports point to the left only. "_" is every top-level name that begins so.
LAYERS = [
    {"_"},
    {"parametrizations", "selection"},
    {"optimizers", "targets"},
    {"rewind", "densities"},
    {"attach"},
    {"scores", "signs", "tickets", "deploy", "survivors"},
    {"analysis", "pruning"},
    {"dense_to_sparse"},
    {"__init__"},
    {"integrations", "plot"},
]
LAYER_OF = {room: place for place, rooms in enumerate(LAYERS) for room in rooms}
TOP = {
    "_checks",
    "_csr",
    "_files",
    "_inputs",
    "_shards",
    "_progress",
    "_tables",
    "_reports",
    "_running",
    "_warnings",
    "_bits",
} | LAYER_OF.keys() - {"_"}
# Public namespaces that `import polarity` does not import, because each needs an extra.
OPTIONAL = ("plot",)
PUBLIC = {
    name: set(getattr(polarity, name).__all__)
    for name in polarity.__all__
    if isinstance(getattr(polarity, name), ModuleType)
} | {name: set(import_module(f"polarity.{name}").__all__) for name in OPTIONAL}

Graph = dict[str, set[str]]


def modules_in(folder: Path, top: Path) -> dict[str, Path]:
    """Return the modules below a folder by the names they are imported by from ``top``."""
    found = {}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(top).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


SOURCE = modules_in(ROOT / "src" / "polarity", ROOT / "src")
BENCHMARKS = modules_in(ROOT / "benchmarks", ROOT)
TESTS = modules_in(ROOT / "tests", ROOT)
EXAMPLES = modules_in(ROOT / "docs" / "examples", ROOT / "docs")


def package_of(path: Path) -> str:
    """Return the package of a file, from the top of the repository."""
    return ".".join(path.parent.relative_to(ROOT).parts)


@cache
def imported(path: Path) -> list[tuple[str, tuple[str, ...]]]:
    """Return what a file imports anywhere in it: a module, and the names taken from it.

    The benchmarks alone import relatively, because their package has another name in a wheel.
    """
    found: list[tuple[str, tuple[str, ...]]] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(alias.name, ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                assert path in BENCHMARKS.values(), f"{path}: a relative import"
                source = resolve_name("." * node.level + source, package_of(path))
            found.append((source, tuple(alias.name for alias in node.names)))
    return found


@cache
def named_in_strings(path: Path) -> list[str]:
    """Return every string of a file that could be the name of a module, as tables hold them."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            for name in re.findall(r"^(\w+(?:\.\w+)+|\.\w+(?:\.\w+)*)(?::\w+)?$", node.value):
                found.append(resolve_name(name, package_of(path)))
    return found


def imports_of(path: Path, modules: dict[str, Path]) -> set[str]:
    """Return which of ``modules`` a file imports by name; not the packages around them."""
    found = set()
    for module, names in imported(path):
        inside = {f"{module}.{name}" for name in names} & modules.keys()
        rest = len(inside) < len(names) or not names
        found |= inside | ({module} & modules.keys() if rest else set())
    return found | set(named_in_strings(path)) & modules.keys()


def graph_of(modules: dict[str, Path]) -> Graph:
    return {name: imports_of(path, modules) - {name} for name, path in modules.items()}


def circle_in(graph: Graph) -> list[str]:
    """Return one circle of a graph, or an empty list."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def room_of(module: str) -> str:
    """Return the room that a module of the library is in, as the layers name it."""
    _, *rest = module.split(".")
    return "__init__" if not rest else "_" if rest[0].startswith("_") else rest[0]


def test_every_module_is_found() -> None:
    assert {"polarity", "polarity.rewind", "polarity.attach.enforce"} <= SOURCE.keys()
    assert "benchmarks.__main__" in BENCHMARKS
    assert "tests.laws.test_layers" in TESTS
    assert graph_of(SOURCE)["polarity.attach.enforce"] >= {"polarity.targets.target"}
    assert graph_of(BENCHMARKS)["benchmarks.__main__"] >= {
        "benchmarks.zoo",
        "benchmarks.harness.home",
    }


def test_a_circle_is_found_and_a_tree_is_none() -> None:
    assert circle_in({"a": {"b"}, "b": {"c"}, "c": {"a"}})
    assert circle_in({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_the_top_of_the_library_holds_its_rooms_and_little_else() -> None:
    top = {
        path.stem
        for path in (ROOT / "src" / "polarity").iterdir()
        if path.name not in ("__pycache__", "py.typed")
    }
    assert top - TOP == set()


def test_imports_point_to_the_left() -> None:
    wrong = [
        f"{module} imports {other}"
        for module, others in graph_of(SOURCE).items()
        for other in others
        if LAYER_OF[room_of(other)] > LAYER_OF[room_of(module)]
    ]
    assert wrong == []


def test_rooms_import_each_other_without_circles() -> None:
    rooms: Graph = {}
    for module, others in graph_of(SOURCE).items():
        here = rooms.setdefault(room_of(module), set())
        here |= {room_of(other) for other in others} - {room_of(module)}
    assert circle_in(rooms) == []


def test_no_modules_of_the_library_import_each_other_in_a_circle() -> None:
    assert circle_in(graph_of(SOURCE)) == []


def test_no_benchmarks_import_each_other_in_a_circle() -> None:
    assert circle_in(graph_of(BENCHMARKS)) == []


def test_no_tests_import_each_other_in_a_circle() -> None:
    assert circle_in(graph_of(TESTS)) == []


def test_the_library_imports_neither_benchmarks_nor_tests() -> None:
    wrong = [
        f"{module} imports {name}"
        for module, path in SOURCE.items()
        for name in chain((name for name, _ in imported(path)), named_in_strings(path))
        if name.split(".")[0] in ("benchmarks", "tests")
    ]
    assert wrong == []


def test_the_front_door_defines_nothing() -> None:
    tree = ast.parse(SOURCE["polarity"].read_text(encoding="utf-8"))
    kinds = {type(node) for node in tree.body}
    assert kinds <= {ast.Expr, ast.ImportFrom, ast.Assign}


def is_public(path: str) -> bool:
    """Whether a dotted path below ``polarity`` leads through public names only."""
    _, *rest = path.split(".")
    names = [name for name in rest if not (name.startswith("__") and name.endswith("__"))]
    if not names:
        return True
    return names[0] in {*polarity.__all__, *OPTIONAL} and (
        names[0] not in PUBLIC or len(names) == 1 or names[1] in PUBLIC[names[0]]
    )


def used_of_polarity(path: Path) -> Iterator[str]:
    """Yield every dotted path below ``polarity`` that a file imports or reads an attribute of."""
    aliases = {}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "polarity":
                    yield alias.name
                    aliases[alias.asname or "polarity"] = alias.name if alias.asname else "polarity"
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "polarity":
            for alias in node.names:
                yield f"{node.module}.{alias.name}"
                aliases[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = aliases.get(node.value.id, "")
            if module == "polarity" or module.removeprefix("polarity.") in PUBLIC:
                yield f"{module}.{node.attr}"
    yield from (name for name in named_in_strings(path) if name.split(".")[0] == "polarity")


def test_a_private_path_is_told_from_a_public_one(tmp_path: Path) -> None:
    file = tmp_path / "example.py"
    lines = [
        "import polarity as pol",
        "import polarity.selection.cut",
        "from polarity import scores",
        "from polarity.scores import magnitude, score",
        "pol.prune, pol.densities.erk, scores.random, pol.__version__",
        "pol.attach, scores.score",
        "from polarity import plot",
        "from polarity.plot import style, layers",
        "plot.flips, plot.canvas",
    ]
    file.write_text("\n".join(lines))
    wrong = {path for path in used_of_polarity(file) if not is_public(path)}
    inside = {"polarity.selection.cut", "polarity.scores.score", "polarity.attach"}
    assert wrong == inside | {"polarity.plot.layers", "polarity.plot.canvas"}


def test_benchmarks_and_examples_use_public_names_only() -> None:
    wrong = [
        f"{name} uses {path}"
        for name, file in (BENCHMARKS | EXAMPLES).items()
        for path in used_of_polarity(file)
        if not is_public(path)
    ]
    assert wrong == []
