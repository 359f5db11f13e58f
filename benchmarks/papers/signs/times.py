"""How long a run on MNIST took, next to what was planned for one."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from statistics import median

from ...harness.results import Result

# Seconds of a run on one core: the plan of these experiments (issue 16, its section on runs).
PLANNED = 210
# What a run of the plan is: eleven trainings of ten epochs, on all images.
_RUN = {"dataset": "mnist", "arch": "fc", "rounds": 10, "epochs": 10, "resolution": None}


def run_times(group: Sequence[Result]) -> list[str]:
    """State the times of runs of the planned size, a sentence for each way of performing them.

    Args:
        group: results with the same settings.
    """
    ways: dict[str, list[Result]] = defaultdict(list)
    for result in group:
        if _is_planned(result):
            ways[_way(result)].append(result)
    return [
        f"**Time of a run:** {_times(results)} {way}; planned were {PLANNED} s of one core "
        "(issue 16)."
        for way, results in ways.items()
    ]


def _is_planned(result: Result) -> bool:
    data = result["dataset"]
    whole = data["train"] + data["held_out"] == data["train_available"]
    return whole and all(result["config"].get(key) == value for key, value in _RUN.items())


def _times(results: Sequence[Result]) -> str:
    """Write the median and the range, and how much of a core or a device that is."""
    seconds = sorted(result["seconds"] for result in results)
    middle, first = median(seconds), results[0]
    shown = f"{middle:.0f} s"
    if len(seconds) > 1:
        shown += f" in the median of {len(seconds)} runs ({seconds[0]:.0f} to {seconds[-1]:.0f} s)"
    jobs = _jobs(first)
    if not _on_cpu(first):
        return f"{shown}, {middle / jobs:.1f} s of the device for each," if jobs else f"{shown}"
    threads = first["machine"]["threads"]
    # By the clock: what else the machine did is in it.
    return f"{shown}, at most {middle * threads:.0f} s of a core each,"


def _way(result: Result) -> str:
    """Say on what a run was computed, and how many ran at once, where it states that."""
    machine, jobs = result["machine"], _jobs(result)
    threads = "one thread" if machine["threads"] == 1 else f"{machine['threads']} threads"
    where = (
        f"on {machine['device']}" if not _on_cpu(result) else f"on {threads} of {machine['cpu']}"
    )
    if result.get("execution", {}).get("graphs"):
        where += ", steps replayed as CUDA graphs"
    at_once = {None: "how many ran at once is not recorded", 1: "one at a time"}
    return f"{where}, {at_once.get(jobs, f'up to {jobs} at once')}"


def _on_cpu(result: Result) -> bool:
    return bool(result["machine"]["device"] == "cpu")


def _jobs(result: Result) -> int | None:
    """Return how many processes worked at once; None where the command is not recorded."""
    command = result.get("command")
    if not command:
        return None
    found = re.search(r"--jobs[ =](\d+)", command)
    return int(found[1]) if found else 1
