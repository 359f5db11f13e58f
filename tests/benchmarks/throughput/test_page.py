"""The page of the timing suite: every row, and for every missed target a reason."""

import json
from pathlib import Path
from typing import Any

from benchmarks.pages.verdicts import HOLDS, UNTESTABLE
from benchmarks.throughput.claims import stated
from benchmarks.throughput.command import targets, write_page
from benchmarks.throughput.reasons import REASONS


def row(
    what: str, ratio: float, target: float | None = None, group: str = "masks"
) -> dict[str, Any]:
    return {
        "test": f"test[{what}]",
        "group": group,
        "what": what,
        "against": "dense step",
        "ratio": ratio,
        "ratio_quartiles": [0.9 * ratio, 1.1 * ratio],
        "target": target,
        "commit": "0123456789",
        "samples_per_second": 12,
    }


def page(folder: Path, rows: list[dict[str, Any]]) -> str:
    result = {
        "rows": rows,
        "machine": {"cpu": "abacus"},
        "versions": {"torch": "9.9"},
        "threads": 1,
    }
    (folder / "cpu-1-threads.json").write_text(json.dumps(result))
    return write_page(folder, folder).read_text()


def test_a_target_is_reached_at_its_very_ratio_and_not_beyond() -> None:
    lines = targets([row("a", 1.03, 1.03), row("b", 1.031, 1.03), row("c", 9.0)]).splitlines()
    assert [line.split("|")[-2].strip() for line in lines[2:]] == ["yes", "no"]


def test_fast_is_said_as_times_faster(tmp_path: Path) -> None:
    text = page(tmp_path, [row("a", 0.02, 1 / 30), row("b", 0.75)])
    assert "50x faster" in text
    assert "30x faster" in text
    assert "0.750" in text
    assert "samples per second 12" in text
    assert "abacus" in text


def test_timings_of_uncommitted_code_are_marked(tmp_path: Path) -> None:
    text = page(tmp_path, [row("a", 1.0) | {"commit": f"{'a' * 40}-dirty"}, row("b", 1.0)])
    assert "commit 0123456, aaaaaaa (computed by code that was not committed)." in text


def test_the_claim_on_cost_is_decided_by_a_resnet_50_on_a_gpu_alone(tmp_path: Path) -> None:
    def verdict(device: str, network: str, ratio: float) -> str:
        name = f"training step with Sign-In: {network}"
        rows = [row("polarity Sign-In", ratio, group=name), row("other", 9.0, group=name)]
        machine = {"cpu": "abacus", "device": device}
        content = {"rows": rows, "machine": machine, "versions": {}, "threads": 1}
        (tmp_path / "cpu-1-threads.json").write_text(json.dumps(content))
        (claim,) = stated(tmp_path)
        return claim.verdict

    assert verdict("cpu", "ResNet-20, batch 128", 1.01) == UNTESTABLE
    assert verdict("H100", "ResNet-50, batch 128", 0.97) == HOLDS
    assert verdict("H100", "ResNet-50, batch 128", 1.2) == UNTESTABLE


def test_reasons_stand_only_where_a_target_is_missed(tmp_path: Path) -> None:
    name = "training step with masks: MLP, batch 128"
    missed = page(tmp_path, [row("a", 1.2, 1.03, group=name)])
    reached = page(tmp_path, [row("a", 1.0, 1.03, group=name)])
    heading = "Where a target is missed"
    assert heading in missed
    assert heading not in reached
    assert " ".join(REASONS["training step with masks"].split()) in missed


def test_every_target_of_the_committed_results_that_is_missed_has_its_reason() -> None:
    folder = Path(__file__).parents[3] / "benchmarks" / "results" / "throughput"
    files = list(folder.glob("*.json"))
    assert files
    for file in files:
        for each in json.loads(file.read_text())["rows"]:
            if each.get("target") is not None and each["ratio"] > each["target"]:
                assert any(each["group"].startswith(start) for start in REASONS), each["group"]


def test_memory_without_times_is_told_as_bytes_alone(tmp_path: Path) -> None:
    memory = {"test": "t", "group": "memory", "what": "masks", "commit": "0123456789"}
    kept = {**memory, "stays_bytes_per_weight": 12.0}
    timed = {**memory, "group": "growth", "attach_nanoseconds_per_weight": 3.0}
    text = page(tmp_path, [kept, timed])
    assert text.count("\nBytes of memory for each weight.") == 1
    assert text.count("\nNanoseconds and extra bytes of memory for each weight.") == 1
