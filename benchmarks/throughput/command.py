"""`python -m benchmarks throughput`: run the suite, print the ratios, write them down."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..pages.section import commit as short_commit
from .reasons import reasons_for

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results" / "throughput"


@dataclass(frozen=True)
class ThroughputOptions:
    """Time the library compared with what a user would pick instead.

    Attributes:
        quick: smallest sizes and two rounds: a sign of life, not a measurement.
        device: cpu or cuda.
        threads: threads of one operation.
        only: pytest's `-k`: which tests to run.
        results: folder of the result file; the other runs in it stay on the page.
        docs: folder of the page `throughput.md`.
    """

    quick: bool = False
    device: str = "cpu"
    threads: int = 1
    only: str = ""
    results: Path = RESULTS
    docs: Path = Path("docs/results")


def main(options: ThroughputOptions) -> int:
    """Run pytest on the suite in a process of its own, and write file and page."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "benchmark.json"
        command = [
            *(sys.executable, "-m", "pytest", str(HERE), "-q", "--benchmark-only"),
            *("-p", "no:cacheprovider", "--benchmark-columns=median", f"--benchmark-json={raw}"),
            *(f"--device={options.device}", f"--threads={options.threads}"),
            *(["--quick"] if options.quick else []),
            *(["-k", options.only] if options.only else []),
        ]
        # Without these glibc gives large blocks back at random, and page faults drown the rest.
        # Libraries with threads of their own (sparselab) get the same number.
        steady = {"OMP_NUM_THREADS": str(options.threads)}
        steady |= {"MALLOC_TRIM_THRESHOLD_": "8000000000", "MALLOC_MMAP_THRESHOLD_": "4000000000"}
        code = subprocess.run(command, cwd=HERE.parents[1], env=os.environ | steady).returncode
        if not raw.is_file() or not raw.read_text():
            print("no measurement was made", file=sys.stderr)
            return code or 1
        measured = json.loads(raw.read_text())
    result = condense(measured, options)
    path = options.results / f"{options.device}-{options.threads}-threads.json"
    if not options.quick:
        result["rows"] = _merged(path, result["rows"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=1) + "\n")
        print(write_page(options.results, options.docs))
    print(table(result["rows"]))
    print(targets(result["rows"]))
    return code


def condense(measured: dict[str, Any], options: ThroughputOptions) -> dict[str, Any]:
    """Return what the page needs of pytest-benchmark's report."""
    from ..harness.results import git_commit, machine, versions

    commit = git_commit()
    rows = [
        {
            "test": each["name"],
            "group": each["group"] or each["name"],
            "median_seconds": each["stats"]["median"],
            "rounds": each["stats"]["rounds"],
            "commit": commit,
            **each["extra_info"],
        }
        for each in measured["benchmarks"]
    ]
    return {
        "rows": rows,
        "machine": machine(options.device),
        "versions": versions(),
        "threads": options.threads,
    }


def _merged(path: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of an earlier run that were not measured again stay, with their own commit."""
    if not path.is_file():
        return rows
    new = {row["test"] for row in rows}
    earlier = json.loads(path.read_text())["rows"]
    return [row for row in earlier if row["test"] not in new] + rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the ratios group by group: time of the first over time of the second."""
    groups = sorted({row["group"] for row in rows})
    return "\n".join(_group(name, [row for row in rows if row["group"] == name]) for name in groups)


def _group(name: str, rows: Sequence[dict[str, Any]]) -> str:
    from ..pages.markdown import markdown

    if not any("ratio" in row for row in rows):
        keys = [key for key in rows[0] if key.endswith("_per_weight")]
        numbers = [(row["what"], *(_short(row.get(key)) for key in keys)) for row in rows]
        titles = tuple(key.removesuffix("_per_weight").replace("_", " ") for key in keys)
        timed = any("nanoseconds" in key for key in keys)
        note = f"{'Nanoseconds and extra bytes' if timed else 'Bytes'} of memory for each weight."
        return f"### {name}\n\n{note}\n\n{markdown(('weights', *titles), numbers)}\n"
    head = ("what", "ratio", "quartiles", "compared with", "target", "also")
    cells = [_cells(row) for row in sorted(rows, key=lambda row: row.get("target") is None)]
    used = [at for at in range(len(head)) if at == 0 or any(row[at] for row in cells)]
    columns = tuple(head[at] for at in used)
    return f"### {name}\n\n{markdown(columns, [tuple(row[at] for at in used) for row in cells])}\n"


def targets(rows: Sequence[dict[str, Any]]) -> str:
    """The rows that have a target, and whether it is reached."""
    from ..pages.markdown import markdown

    aimed = sorted(
        (row for row in rows if row.get("target") is not None), key=lambda row: row["group"]
    )
    head = ("what", "compared with", "ratio", "target", "reached")
    return markdown(
        head,
        [
            (
                f"{row['group']}: {row['what']}",
                row["against"],
                _ratio(row["ratio"]),
                _ratio(row["target"]),
                "yes" if row["ratio"] <= row["target"] else "no",
            )
            for row in aimed
        ],
    )


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    ratio, target = row.get("ratio"), row.get("target")
    what = row.get("what", row["test"])
    if ratio is None:
        return (what, "", "", "", "", _extra(row))
    low, high = row["ratio_quartiles"]
    return (
        what,
        _ratio(ratio),
        f"{_ratio(low)} to {_ratio(high)}",
        row["against"],
        "" if target is None else _ratio(target),
        _extra(row),
    )


def _ratio(value: float) -> str:
    """Return a ratio as a number, or below a half as how many times faster."""
    return f"{value:.3f}" if value > 0.5 else f"{1 / value:.3g}x faster"


def _extra(row: dict[str, Any]) -> str:
    known = {
        *("test", "group", "median_seconds", "rounds", "commit", "what", "against", "ratio"),
        *("ratio_quartiles", "target", "device", "threads", "load", "workload", "density"),
        "clock",
    }
    return ", ".join(
        f"{k.replace('_', ' ')} {_short(v)}"
        for k, v in row.items()
        if k not in known and v is not None
    )


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def write_page(results: Path, docs: Path) -> Path:
    """Writes `throughput.md` from every result file of a folder and gives its path."""
    parts = [
        "# Throughput\n\n`python -m benchmarks throughput` times the library and what one would "
        "pick instead in turns, and keeps the median of the rounds' ratios: the time of the first "
        "over the time of the second. One thread on a CPU is timed by the processor time that it "
        "took. Absolute times are left out, because the machine is shared. The command sets "
        "glibc's thresholds so that large blocks of memory are kept "
        "(`MALLOC_TRIM_THRESHOLD_`, `MALLOC_MMAP_THRESHOLD_`), for the library and its peers "
        "alike: otherwise page faults drown small differences.\n"
    ]
    for path in sorted(results.glob("*.json")):
        result = json.loads(path.read_text())
        where, packages = result["machine"], result["versions"]
        described = ", ".join(f"{key} {value}" for key, value in where.items() if value)
        commits = sorted({short_commit(row.get("commit"), 7) for row in result["rows"]})
        parts.append(
            f"## {path.stem}\n\n{described}; torch {packages.get('torch')}, "
            f"{result['threads']} thread{'s' if result['threads'] > 1 else ''} per operation; "
            f"commit {', '.join(commits)}.\n\n{targets(result['rows'])}\n"
        )
        missed = [
            row["group"]
            for row in result["rows"]
            if row.get("target") is not None and row["ratio"] > row["target"]
        ]
        if texts := reasons_for(missed):
            parts.append("### Where a target is missed\n")
            parts += [f"{text}\n" for text in texts]
        parts.append(table(result["rows"]))
    docs.mkdir(parents=True, exist_ok=True)
    path = docs / "throughput.md"
    path.write_text("\n".join(parts))
    return path
