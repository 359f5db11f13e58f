"""Sections of Markdown with their figures, the lines on provenance, and pages made of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..harness.results import Result, load_results

_DIRTY = "-dirty"
_UNCOMMITTED = "computed by code that was not committed"
_DATASETS = {
    "digits": "scikit-learn's digits",
    "mnist": "MNIST",
    "fashion_mnist": "Fashion-MNIST",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "tiny_imagenet": "Tiny-ImageNet",
    "imagenet": "ImageNet",
}


@dataclass
class Section:
    """A piece of Markdown and the plots that it shows."""

    text: str
    plots: list[Path] = field(default_factory=list)


def write_paper(
    folder: Path,
    out: Path,
    experiment: str,
    introduction: str | None,
    describe: Callable[..., Section],
) -> list[Path]:
    """Write the page and the figures of an experiment where there are results.

    Args:
        folder: folder of result files; folders below it are read too.
        out: folder of the page and the figures it shows.
        experiment: name of the experiment, of its page, and of its result files' beginning.
        introduction: stands first on the page.
        describe: makes a section of results, with figures in a folder, and with `details`.

    Returns:
        The page, if there is one.
    """
    results = load_results(folder, [experiment])
    if not results:
        return []
    section = describe(results, out, details=True)
    return [write_page(out / f"{experiment}.md", introduction, section)]


def write_page(path: Path, introduction: str | None, section: Section) -> Path:
    """Write a paper's page, its introduction first, and give its path."""
    text = f"# {(introduction or '').strip()}\n\n{section.text}\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def seeds(results: Iterable[Result]) -> list[int]:
    """Return every seed that has a result."""
    return sorted({result["config"]["seed"] for result in results})


def provenance(results: Sequence[Result], duration: str | None = None) -> list[str]:
    """Make the lines on the commands, versions, machines and times behind some results.

    Args:
        results: contents of result files.
        duration: how long they took, where the range over the runs does not tell.
    """
    versions = distinct(
        ", ".join(f"{name} {number}" for name, number in result["versions"].items())
        for result in results
    )
    machines = distinct(
        f"{machine['cpu']}{_capability(machine)}, {machine['cores']} cores, threads per run "
        f"{machine['threads']}, device {machine['device']}"
        for machine in (result["machine"] for result in results)
    )
    commits = distinct(commit(result.get("git_commit")) for result in results)
    times = [result["seconds"] for result in results]
    commands = distinct(command for result in results if (command := result.get("command")))
    days = sorted(result["started"][:10] for result in results)
    period = days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"
    return [
        *([f"- Command: {' / '.join(f'`{command}`' for command in commands)}"] if commands else []),
        f"- Versions: {' / '.join(versions)}; commit {' / '.join(commits)}",
        f"- Machine: {' / '.join(machines)}",
        f"- Time: {duration or f'{min(times):.0f} to {max(times):.0f} s per run'}, {period}",
    ]


def commit(found: str | None, digits: int = 40) -> str:
    """Write the commit that a result states, and whether the code was really that commit's."""
    if not found:
        return "unknown"
    short = found.removesuffix(_DIRTY)[:digits]
    return f"{short} ({_UNCOMMITTED})" if found.endswith(_DIRTY) else short


def uncommitted(results: Iterable[Result]) -> str:
    """Say that results were computed by code that no commit holds, where that is so."""
    found = [str(result.get("git_commit") or "") for result in results]
    return _UNCOMMITTED if any(each.endswith(_DIRTY) for each in found) else ""


def _capability(machine: dict[str, Any]) -> str:
    """Name the instructions that kernels were chosen by, where a result states them."""
    return f" ({machine['cpu_capability']})" if "cpu_capability" in machine else ""


def distinct(values: Iterable[str]) -> list[str]:
    """Return each value once, in the order of first appearance."""
    return list(dict.fromkeys(values))


def runs_and_seeds(results: Sequence[Result]) -> str:
    """Say how many runs there are and which seeds they have."""
    return f"{len(results)} runs, seeds {', '.join(map(str, seeds(results)))}"


def images(data: Mapping[str, Any]) -> str:
    """Name a data set as a result states it, with the size and number of its images."""
    size = f"{data['shape'][-2]}×{data['shape'][-1]}"
    if data.get("pooled_from"):
        size += " (averaged)"
    name = _DATASETS.get(data["name"], data["name"])
    return f"{name} at {size}, {data['train']:,} training images"


def seeds_text(count: int) -> str:
    """Write a number of seeds."""
    return "1 seed" if count == 1 else f"{count} seeds"


def spread_text(many: int, few: int | None = None) -> str:
    """Write a number of seeds, or the least and the most, and say what bands and whiskers are."""
    if few is None or few == many:
        return seeds_text(many) + (", mean ± std" if many > 1 else "")
    return f"{few} to {spread_text(many)}{' where there are several' if few == 1 else ''}"


def subset(used: int, available: int, images: str) -> list[str]:
    """Say that only some of the images were used, where that is so."""
    return [f"a random subset of {used} of {available} {images}"] if used < available else []


def figure_stem(names: Sequence[str], settings: str) -> str:
    """Begin the file names of a group's figures; a digest stands for all of its settings."""
    return "-".join([*names, hashlib.sha256(settings.encode()).hexdigest()[:6]])


def folded(title: str, text: str) -> list[str]:
    """Put a long piece of a page behind its title."""
    return [f"<details>\n<summary>{title}</summary>", text, "</details>"]
