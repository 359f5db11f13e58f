"""The command: options, the plan, tables, the page from files, and mistakes in one line."""

import json
from dataclasses import asdict, replace

import pytest
import torch

from benchmarks.harness.command_line import RunOptions
from benchmarks.papers.winning_sign.command import WinningSignOptions, configuration, main
from benchmarks.papers.winning_sign.config import AwsConfig
from benchmarks.papers.winning_sign.grid import plan
from benchmarks.papers.winning_sign.recipes import AWS
from benchmarks.papers.winning_sign.report import accuracy_table, difference_table, write_pages
from benchmarks.papers.winning_sign.run import Pipeline
from benchmarks.papers.winning_sign.summary import settings
from tests.benchmarks.papers.winning_sign.tiny import CPU, config


def test_options_become_a_setting():
    base, at, barrier_at = configuration(WinningSignOptions(seeds=(4,), where=CPU))
    assert (at, barrier_at, base.seed) == ((5, 8, 11, 14), 11, 4)
    assert 0.8**barrier_at == pytest.approx(0.0859, abs=1e-4)
    _, at, barrier_at = configuration(WinningSignOptions(rounds=6, where=CPU))
    assert (at, barrier_at) == ((5, 6), 6)
    with pytest.raises(ValueError, match="round 9"):
        configuration(WinningSignOptions(rounds=6, at=(9,), where=CPU))


def test_a_plan_holds_each_run_once_and_everything_the_six_way_table_needs():
    runs = plan(config(), ("six", "norms", "gem_miner"), (1, 3), 3).runs
    assert len({run.run_id for run in runs}) == len(runs)
    finals = {(run.subject, run.round) for run in runs if run.kind == "final"}
    six = ("lrr", "aws", "init+lrr_sign", "init+aws_sign", "init+lrr_mask")
    assert ("dense", 0) in finals
    assert {(name, k) for name in six for k in (1, 3)} <= finals
    assert {run.round for run in runs if run.kind == "barrier"} == {3}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "cifar100"}, "cifar100"),
        ({"recipe": "paper"}, "digits-mixer"),
        ({"rounds": 0}, "--rounds"),
        ({"seeds": ()}, "seed"),
        ({"arch": "mobilenet_v2"}, "three channels"),
    ],
)
def test_mistakes_are_told_in_one_line(changes, message, tmp_path, refused):
    def command(out):
        where = RunOptions(out=out, data_root=tmp_path / "nowhere")
        options = WinningSignOptions(dataset="digits", arch="mixer", where=where)
        return main(replace(options, **changes))

    refused(command, message)


def test_the_command_prints_the_table_resumes_and_its_page_is_made_from_files(tmp_path, capsys):
    out = tmp_path / "runs"
    options = WinningSignOptions(
        dataset="digits",
        arch="mixer",
        rounds=2,
        at=(2,),
        warmup_epochs=1,
        final_epochs=1,
        train_size=200,
        test_size=100,
        recalibrate=50,
        seeds=(0, 1),
        parts=("six",),
        where=RunOptions(device="cpu", out=out, plot=False),
    )
    assert main(options) == 0
    shown = capsys.readouterr()
    for label in ("dense network", "LRR", "init + AWS sign", "init + LRR mask", "±"):
        assert label in shown.out
    assert "Error barriers" in shown.out
    written = {path: path.stat().st_mtime_ns for path in out.glob("*.json")}
    assert len(written) == shown.err.count(" s)")
    assert main(options) == 0
    assert capsys.readouterr().err == ""
    assert {path: path.stat().st_mtime_ns for path in out.glob("*.json")} == written

    (page,) = write_pages(out, tmp_path / "docs")
    text = page.read_text(encoding="utf-8")
    assert "dataset digits, the paper's imagenet; network mixer, the paper's mixer_s16" in text
    assert text.index("### Verdicts") < text.index("### Test accuracy")
    for figure in ("figure3", "paths"):
        (png,) = (tmp_path / "docs").glob(f"*-{figure}.png")
        assert png.name in text
        assert png.read_bytes()[:4] == b"\x89PNG"
    assert write_pages(tmp_path / "nothing", tmp_path / "docs") == []


def test_tables_of_made_up_results(tmp_path):
    accuracies = {
        ("dense", 0): (90.0, 92.0),
        ("aws", 3): (88.0, 90.0),
        ("init+aws_sign", 3): (87.0, 88.0),
        ("init+lrr_sign", 3): (80.0, 85.0),
    }
    results = []
    for (name, k), values in accuracies.items():
        for seed, value in enumerate(values):
            task = replace(config(), seed=seed).task("final", name, k)
            stored = json.loads(json.dumps(asdict(task)))
            assert AwsConfig.from_json(stored) == task
            density = 1.0 if k == 0 else 0.512
            results.append({"config": stored, "test_accuracy": value, "density": density})
    (outcomes,) = settings(results)
    table = accuracy_table(outcomes)
    assert "| dense network   | -              | -                   | 91.00 ± 1.41 | 1" in table
    assert "87.50 ± 0.71" in table
    # Seed by seed 7 and 3: mean 5. The three sparse rows gain 2, 1 and 5 from seed 0 to 1; what is
    # left of the six runs after the means of rows and seeds has a sum of squares of 13/3 and two
    # degrees of freedom: the half interval is 4.303 · √(2 · 13/6) / √2.
    row = next(line for line in difference_table(outcomes).splitlines() if "+5.00" in line)
    assert "(init + AWS sign) − (init + LRR sign)" in row
    assert "+5.00 [-1.33, +11.33]" in row


@pytest.mark.slow
def test_paper_scale_networks_go_through_the_pipeline(tmp_path):
    """MobileNetV2 by its CIFAR-100 recipe, shortened to a step each, on random images."""
    from benchmarks.harness.data import Dataset

    generator = torch.Generator().manual_seed(0)
    images = torch.randn(8, 3, 32, 32, generator=generator)
    labels = torch.arange(8) % 4
    data = Dataset("cifar100", 4, images, labels, images[:0], labels[:0], images, labels, 8, 8)
    recipe = AWS["cifar100-mobilenet_v2"]
    final = recipe.final.scaled(1)
    recipe = replace(recipe, warmup_epochs=1, round_epochs=1, rounds=1, final=final)
    base = AwsConfig(recipe, seed=0, recalibrate=8)
    result = Pipeline(data, tmp_path).result(base.task("final", "init+aws_sign", 1))
    assert result["survivors"] == round(0.8 * result["total"])
    assert isinstance(result["test_accuracy"], float)
