"""One page for each public name; types keep their names in signatures, and a page explains them."""

import ast
import inspect
import re
import textwrap
from collections import Counter
from functools import cache
from typing import Any

import pytest
from torch import nn

import polarity
from tests.docs.api_pages import (
    DOCS,
    SOURCE,
    explained,
    found,
    listed,
    public_modules,
    public_names,
)

# In a class, what else than public methods takes arguments of users.
_CALLED = ("__init__", "__call__")


def test_every_public_name_has_exactly_one_page() -> None:
    count = Counter(listed())
    assert [name for name in public_names() if count[name] != 1] == []


def test_no_name_is_listed_twice() -> None:
    assert [name for name, times in Counter(listed()).items() if times > 1] == []


def test_every_entry_of_the_api_exists() -> None:
    for name in set(listed()) - set(explained()):
        if not name.startswith("polarity.integrations."):
            assert found(name) is not None


def test_the_package_and_its_public_modules_are_looked_at() -> None:
    assert set(public_modules()) >= {"densities", "scores", "dense_to_sparse", "deploy"}
    assert {"polarity.prune", "polarity.scores.Score", "polarity.deploy.compress"} <= set(
        public_names()
    )


@cache
def aliases() -> dict[str, list[ast.expr]]:
    """Return every type alias of the package: what it stands for, in each file that defines it."""
    every: dict[str, list[ast.expr]] = {}
    for path in SOURCE.rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) == "TypeAlias":
                assert node.value is not None
                every.setdefault(ast.unparse(node.target), []).append(node.value)
    return every


def functions(thing: object) -> list[object]:
    """Return a function, or the methods of a class that a user calls."""
    if inspect.isfunction(thing):
        return [thing]
    own = [kind for kind in getattr(thing, "__mro__", ()) if kind.__module__[:8] == "polarity"]
    return [
        getattr(value, "__func__", value)
        for kind in own
        for name, value in vars(kind).items()
        if not name.startswith("_") or name in _CALLED
    ]


def in_signature(function: object) -> set[str]:
    """Return the names in the annotations of a function, as its source has them."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]  # type: ignore[arg-type]
    except (OSError, TypeError):
        return set()
    if not isinstance(tree, ast.FunctionDef):
        return set()
    every = [each.annotation for each in ast.walk(tree.args) if isinstance(each, ast.arg)]
    names = [node for each in (*every, tree.returns) if each for node in ast.walk(each)]
    return {node.id for node in names if isinstance(node, ast.Name)}


def test_every_type_that_a_public_signature_names_is_explained() -> None:
    known = {name.rpartition(".")[2] for name in explained()}
    every = set(aliases())
    for name in public_names():
        if not name.startswith(("polarity.integrations.", "polarity.plot.")):
            for function in functions(found(name)):
                assert in_signature(function) & every <= known, (name, function)


def canonical(name: str) -> str:
    """Return what the page says that a type stands for."""
    text = (DOCS / "types.md").read_text(encoding="utf-8")
    line = re.search(rf"py:type:: {re.escape(name)}\n   :canonical: (.+)", text)
    assert line is not None
    return line[1]


@pytest.mark.parametrize("name", explained())
def test_a_type_stands_for_what_its_page_says(name: str) -> None:
    (value,) = {ast.unparse(each) for each in aliases()[name.rpartition(".")[2]]}
    (predicate,) = map(ast.unparse, aliases()["Predicate"])
    value = value.replace("Predicate", predicate)
    value = re.sub(r"'(Schedule\b[^']*)'", r"\1", value)  # not defined yet, where it is named
    told = re.sub(
        r"\b(?:torch|nn|optim|lr_scheduler|polarity|signs|perturb)\.", "", canonical(name)
    )
    value = re.sub(r"\b(?:torch|nn|optim|lr_scheduler)\.", "", value)
    assert members(ast.parse(told, mode="eval").body) == members(ast.parse(value, mode="eval").body)


def members(node: ast.expr) -> set[str]:
    """Return what a union is made of; Sphinx 8 wants no two types to read alike."""
    if isinstance(node, ast.BinOp):
        return members(node.left) | members(node.right)
    return {ast.unparse(node)}


@pytest.mark.parametrize(
    "selector",
    [
        "0.weight",
        "0.*",
        nn.Linear,
        lambda name, parameter: parameter.ndim > 1,
        ("1.weight", nn.Linear),
    ],
    ids=["name", "glob", "type", "function", "several"],
)
def test_a_selector_chooses_what_its_page_says(selector: Any) -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    chosen = polarity.find_targets(model, selector)
    assert list(chosen) == (
        ["0.weight", "1.weight"] if isinstance(selector, tuple) else ["0.weight"]
    )


def test_a_name_or_glob_that_matches_nothing_is_an_error_that_lists_the_candidates() -> None:
    for selector in ("head.weight", "head.*"):
        with pytest.raises(ValueError, match=r"0\.weight"):
            polarity.find_targets(nn.Sequential(nn.Linear(3, 2)), selector)
