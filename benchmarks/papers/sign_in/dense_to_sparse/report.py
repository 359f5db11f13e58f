"""What the command prints: the arms with their mean accuracies."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness.results import Result
from benchmarks.pages.section import Section
from benchmarks.papers.sign_in.dense_to_sparse.config import SEARCH


def describe(results: Sequence[Result], out: Path | None = None) -> Section:
    """List arms and densities with the number of seeds, mean test accuracy and mean density."""
    groups: dict[tuple[str, float], list[Result]] = defaultdict(list)
    lines = []
    for result in results:
        config = result["config"]
        if config["arm"] == SEARCH:
            lines += [
                f"decay {t['decay']:.4g}: density {t['density']:.4f}" for t in result["trials"]
            ]
        else:
            groups[config["arm"], config["density"]].append(result)
    for (arm, density), group in groups.items():
        accuracy = sum(each["final"]["test_accuracy"] for each in group) / len(group)
        reached = sum(each["final"]["density"] for each in group) / len(group)
        lines.append(f"{arm} at {density:g}: {accuracy:.2f} % (n = {len(group)}, {reached:.4f})")
    return Section("\n".join(lines))
