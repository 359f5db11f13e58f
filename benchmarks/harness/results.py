"""Result files: one JSON per run, with everything needed to judge it and to run it again.

What is committed of an experiment is one file of JSON lines: `committed.py`.
"""

from __future__ import annotations

import json
import math
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar, Protocol

from .home import PROGRAM
from .instructions import INSTRUCTIONS
from .json_lines import named, read_lines, refuse_dirty

SCHEMA = 1
# Worker processes inherit variables, and have command lines of their own.
COMMAND = "POLARITY_BENCHMARKS_COMMAND"
Result = dict[str, Any]


class Settings(Protocol):
    """What a run's settings say of themselves, whichever experiment they belong to."""

    @property
    def experiment(self) -> str: ...
    @property
    def run_id(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def device(self) -> str: ...

    __dataclass_fields__: ClassVar[dict[str, Any]]


def result_path(out: Path, config: Settings) -> Path:
    """Return the path of a run's result."""
    return out / f"{config.run_id}.json"


def new_result(
    config: Settings,
    dataset: dict[str, Any],
    content: dict[str, Any],
    *,
    started: datetime,
    seconds: float,
) -> Result:
    """Put what a run measured together with its settings and provenance.

    Args:
        config: settings of the run.
        dataset: `Dataset.facts()`.
        content: what was measured, by key.
        started: when this process began to work on the run.
        seconds: how long the run took, earlier processes included.

    Returns:
        What the result file holds.
    """
    return {
        "schema": SCHEMA,
        "experiment": config.experiment,
        "run_id": config.run_id,
        "config": asdict(config),
        "config_digest": config.digest,
        "dataset": dataset,
        **content,
        "started": started.isoformat(timespec="seconds"),
        "seconds": seconds,
        **provenance(config.device),
    }


def provenance(device: str) -> dict[str, Any]:
    """State what a result was computed with: command, versions, machine and commit."""
    return {
        "command": command_line(),
        "versions": versions(),
        "machine": machine(device),
        "git_commit": git_commit(),
    }


def remember_command(arguments: Iterable[str]) -> None:
    """Keep the command line for the results of this process and of those that it starts."""
    os.environ[COMMAND] = f"{PROGRAM} {shlex.join(arguments)}"


def command_line() -> str | None:
    """Return the command line that was remembered; None outside of the benchmarks' command."""
    return os.environ.get(COMMAND)


def write_result(path: Path, result: Result) -> None:
    """Write a result in one go: a killed process leaves no half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    text = json.dumps(result, indent=1, allow_nan=False, ensure_ascii=False)
    unfinished.write_text(text + "\n", encoding="utf-8")
    os.replace(unfinished, path)


def read_result(path: Path) -> Result:
    """Read one result file.

    Raises:
        ValueError: the file is no JSON object: cut short, or written by something else.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(result, dict):
            raise ValueError(f"it holds a {type(result).__name__}")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a result file ({error}); delete it to run again") from None
    return result


def stored_result(path: Path) -> Result | None:
    """Return the result of a finished run; None where it is missing, or damaged and set aside."""
    if not path.is_file():
        return None
    try:
        result = read_result(path)
    except ValueError:
        set_aside(path, "is not a result file")
        return None
    if not {"schema", "experiment", "run_id", "config"} <= result.keys():
        set_aside(path, "is not the result of a run")
        return None
    if result["run_id"] != path.stem:
        set_aside(path, f"is the result of another run, {result['run_id']}")
        return None
    return result


def set_aside(path: Path, fault: str) -> None:
    """Rename a file that cannot be used, and say so: nothing is lost, and its run begins again."""
    numbers = (f".{number}" if number else "" for number in range(10_000))
    aside = next(
        each for n in numbers if not (each := path.with_name(f"{path.name}.damaged{n}")).exists()
    )
    os.replace(path, aside)
    print(f"{path} {fault}: set aside as {aside.name}, begun again", file=sys.stderr, flush=True)


def load_results(folder: Path, experiments: Iterable[str]) -> list[Result]:
    """Read every result of some experiments in a folder and those below it, by order of names.

    Results lie in files of their own, `EXPERIMENT-….json`, or in one file, `EXPERIMENT.jsonl`.

    Raises:
        ValueError: a file or a line is damaged; a JSON-lines file, which is what is committed,
            holds a result of code that was not; or a run has a result in both forms.
    """
    wanted = set(experiments)
    beginnings = tuple(f"{experiment}-" for experiment in wanted)
    paths = (path for path in sorted(folder.rglob("*.json")) if path.name.startswith(beginnings))
    found = [read_result(path) for path in paths]
    for path in sorted(folder.rglob("*.jsonl")):
        if path.stem in wanted:
            lines = read_lines(path)
            refuse_dirty(lines, path)
            runs = {result.get("run_id") for result in found}
            if twice := [line["run_id"] for line in lines if line["run_id"] in runs]:
                raise ValueError(
                    f"{path} holds runs that have a file of their own in {folder} too: "
                    f"{named(twice)}; remove one of the two"
                )
            found += lines
    return [
        result
        for result in found
        if result.get("schema") == SCHEMA and result.get("experiment") in wanted
    ]


def finite(value: float) -> float | None:
    """Return a number as JSON can hold it: None where nothing was computed or it diverged."""
    return value if math.isfinite(value) else None


def now() -> datetime:
    """Return the time with its zone, as result files state it."""
    return datetime.now(timezone.utc)


def versions() -> dict[str, str]:
    """Return the versions of everything that takes part in the arithmetic.

    `draws` numbers the rule by which polarity makes random signs, masks and scores of a seed.
    """
    import polarity

    found = {
        "polarity": str(polarity.__version__),
        "draws": str(polarity.__draws_version__),
        "python": platform.python_version(),
    }
    for package in ("torch", "torchvision", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def machine(device: str) -> dict[str, Any]:
    """Describe what a run was computed on."""
    import torch

    on_gpu = torch.device(device).type == "cuda"
    limits = {name: os.environ[name] for name in INSTRUCTIONS if name in os.environ}
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else "cpu",
        "cpu": _cpu_model(),
        # Kernels are chosen by it: the same bits can be expected on the same capability only.
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        **({"instructions": limits} if limits else {}),
    }


def git_commit() -> str | None:
    """Return the commit of the checkout that holds the benchmarks, marked where it was changed.

    Result files and pages that a command is just writing change nothing about what was measured.
    None for an installed package: the repository around its environment is another one.
    """
    try:
        _git("ls-files", "--error-unmatch", Path(__file__).name)
        commit = _git("rev-parse", "HEAD")
        changed = _git(
            "diff", "--name-only", "HEAD", "--", ":/", ":!/benchmarks/results", ":!/docs"
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("-dirty" if changed else "") if commit else None


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=10,
        check=True,
        # Many runs end at once, and none of them may hold the lock of the user's index.
        env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
    )
    return done.stdout.strip()


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())
