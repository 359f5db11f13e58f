"""What the sources of the API pages list, and what the package makes public."""

import ast
import importlib
import inspect
import re
from pathlib import Path

import polarity

DOCS = Path(__file__).parents[2] / "docs"
SOURCE = Path(polarity.__file__).parent


def listed() -> list[str]:
    """Return the full name of every entry of docs/api.md, and of docs/types.md."""
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    names = re.findall(r"^   ~?((?:[A-Za-z_]\w*\.)*\w+)$", text, re.MULTILINE)
    names += re.findall(r"^\.\. py:data:: (\w+\.\w+)$", text, re.MULTILINE)
    return [f"polarity.{name}" for name in names] + explained()


def explained() -> list[str]:
    """Return the types that docs/types.md explains."""
    return re.findall(r"py:type:: ([\w.]+)", (DOCS / "types.md").read_text(encoding="utf-8"))


def public_modules() -> list[str]:
    """Return the public modules below the package, and those that need another package."""
    found = [name for name in polarity.__all__ if inspect.ismodule(getattr(polarity, name))]
    further = [*SOURCE.glob("plot/__init__.py"), *SOURCE.glob("integrations/[!_]*")]
    for path in further:
        if path.name == "__init__.py":
            path = path.parent
        if path.suffix == ".py" or (path / "__init__.py").is_file():
            found.append(".".join(path.with_suffix("").relative_to(SOURCE).parts))
    return sorted(found)


def public_names() -> list[str]:
    """Return the full name of all that the package and its public modules have in `__all__`."""
    modules = public_modules()
    names = [f"polarity.{name}" for name in polarity.__all__ if name not in modules]
    return names + [f"polarity.{each}.{name}" for each in modules for name in exported(each)]


def exported(module: str) -> list[str]:
    """Return `__all__` of a module, read from its file: it may need what is not installed."""
    path = SOURCE.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    raise AssertionError(f"{path} has no __all__")


def found(name: str) -> object:
    """Return what a full name leads to."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            there: object = importlib.import_module(".".join(parts[:length]))
        except ImportError:
            continue
        for part in parts[length:]:
            there = getattr(there, part)
        return there
    raise ImportError(name)
