"""The texts of the repository that a reader may copy a command or a link from."""

from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
URL = "https://github.com/polarity-dev/polarity"

_SUFFIXES = {".cff", ".ipynb", ".md", ".py", ".rst", ".toml", ".txt", ".yaml", ".yml"}
_NAMES = {"Makefile", "run", "ecosystem"}
# Built, installed and run: nothing that is written by hand.
_ELSEWHERE = {"__pycache__", "_build", "build", "dist", "gallery", "htmlcov", "results", "runs"}


def texts() -> Iterator[tuple[str, str]]:
    """Yield the path of every text below the repository's root, and what it says."""
    yield from _below(ROOT)


def _below(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            hidden = path.name.startswith(".") and path.name not in (".ci", ".github")
            if not hidden and path.name not in _ELSEWHERE:
                yield from _below(path)
        elif path.suffix in _SUFFIXES or path.name in _NAMES:
            yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")
