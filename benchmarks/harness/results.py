"""Result files: one JSON per run, with everything needed to judge it and to run it again."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.papers.signs.captions import caption
from benchmarks.papers.signs.config import RunConfig

SCHEMA = 1
Result = dict[str, Any]


def result_path(out: Path, config: RunConfig) -> Path:
    """Where the result of a run lies."""
    return out / f"{config.run_id}.json"


def checkpoint_path(out: Path, config: RunConfig) -> Path:
    """Where the state of an unfinished run lies."""
    return out / "checkpoints" / f"{config.run_id}.safetensors"


def make_result(
    config: RunConfig,
    dataset: dict[str, Any],
    records: list[dict[str, Any]],
    *,
    started: datetime,
    resumed_after: int | None = None,
) -> Result:
    """Puts the records of a run together with its provenance.

    Args:
        config: Settings of the run.
        dataset: `Dataset.facts()`.
        records: One record per round.
        started: When this process began to work on the run.
        resumed_after: Last round that an earlier process had finished, if one had.

    Returns:
        What the result file holds.
    """
    last = records[-1]
    return {
        "schema": SCHEMA,
        "experiment": config.experiment,
        "run_id": config.run_id,
        "config": config.as_json(),
        "config_digest": config.digest,
        "caption": caption(config, dataset),
        "dataset": dataset,
        "final": {key: last[key] for key in ("round", "density", "val_accuracy", "test_accuracy")},
        "rounds": records,
        "started": started.isoformat(timespec="seconds"),
        "resumed_after": resumed_after,
        "seconds": sum(record["seconds"] for record in records),
        "versions": versions(),
        "machine": machine(config.device),
        "git_commit": git_commit(),
    }


def write_result(path: Path, result: Result) -> None:
    """Writes a result in one go: a killed process leaves no half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    text = json.dumps(result, indent=1, allow_nan=False, ensure_ascii=False)
    unfinished.write_text(text + "\n", encoding="utf-8")
    os.replace(unfinished, path)


def read_result(path: Path) -> Result:
    """Reads one result file."""
    result: Result = json.loads(path.read_text(encoding="utf-8"))
    return result


def load_results(folder: str | Path) -> list[Result]:
    """Reads every result file of a folder and the folders below it, in the order of their names."""
    found = []
    for path in sorted(Path(folder).rglob("*.json")):
        result = read_result(path)
        if isinstance(result, dict) and result.get("schema") == SCHEMA and "rounds" in result:
            found.append(result)
    return found


def now() -> datetime:
    """The time with its zone, as result files state it."""
    return datetime.now(timezone.utc)


def versions() -> dict[str, str]:
    """Versions of everything that takes part in the arithmetic."""
    import polarity

    found = {"polarity": str(polarity.__version__), "python": platform.python_version()}
    for package in ("torch", "torchvision", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def machine(device: str) -> dict[str, Any]:
    """What the run was computed on."""
    import torch

    on_gpu = torch.device(device).type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else "cpu",
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def git_commit() -> str | None:
    """The commit of the checkout that the benchmarks lie in, with a mark where it was changed.

    Result files and pages that a command is just writing change nothing about what was measured.
    """
    try:
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
        # Many runs end at once, and none of them shall hold the lock of the user's index.
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
