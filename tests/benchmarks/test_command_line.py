"""The command line as a user meets it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.__main__ import main
from benchmarks.harness import command_line
from benchmarks.harness.instructions import INSTRUCTIONS, limit_to_avx2

ROOT = Path(__file__).parents[2]
WITH_JOBS = [
    *("fragility", "zero-crossing", "winning-sign", "sign-in", "dense-to-sparse", "survivors")
]
TINY = ("--rounds", "1", "--epochs", "1", "--train-size", "300", "--test-size", "100")


def benchmarks(*arguments):
    # Works with an installed polarity and with a bare checkout.
    paths = [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    surroundings = {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "COLUMNS": "200",
        # On a busy machine two threads that wait for each other take longer than one.
        "LOKY_MAX_CPU_COUNT": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **surroundings},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("command", ["fragility", "zero_crossing", "zero-crossing"])
def test_help_shows_every_option_and_its_source(command, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit, match=r"^0$"):
        main([command, "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for option in ("epsilon", "delta", "phi", "seeds", "jobs", "keep-rest", "holdout"):
        assert f"--{option}" in shown
    assert "Zhou et al. 2019" in shown
    assert "0.107" in shown


def test_help_of_the_whole():
    shown = benchmarks("--help").stdout
    for command in ("fragility", "zero-crossing", "report"):
        assert command in shown


@pytest.mark.skipif(
    "AVX" not in torch.backends.cpu.get_cpu_capability(), reason="a processor without AVX2"
)
def test_with_avx2_a_run_says_that_it_computed_with_its_instructions_alone(tmp_path):
    options = (*TINY, "--epsilon", "0", "--strategies", "mask1", "--out", tmp_path)
    benchmarks("fragility", "--dataset", "digits", *options, "--avx2")
    (result,) = (json.loads(path.read_text()) for path in tmp_path.glob("*.json"))
    assert result["machine"]["cpu_capability"] == "AVX2"
    assert result["machine"]["instructions"] == INSTRUCTIONS


def test_avx2_is_refused_where_torch_computes_with_others_already(monkeypatch):
    for name in INSTRUCTIONS:
        monkeypatch.setenv(name, "as it was")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    with pytest.raises(ValueError, match="--avx2, but torch computes with AVX512 here"):
        limit_to_avx2()


def test_a_sweep_and_its_report(tmp_path):
    out = tmp_path / "runs"
    options = (*TINY, "--epsilon", "0", "0.5", "--strategies", "mask1", "--out", out)
    done = benchmarks("fragility", "--dataset", "digits", *options)
    assert "| ε" in done.stdout
    (plot, _) = (line.split()[1] for line in done.stdout.splitlines() if line.startswith("plot:"))
    assert Path(plot).is_file()
    assert "[2/2]" in done.stderr

    benchmarks("report", "--results", out, "--out", tmp_path / "report")
    assert "| ε" in (tmp_path / "report" / "fragility.md").read_text()


def test_negative_thresholds_are_numbers_not_options(tmp_path, capsys):
    options = (*TINY, "--phi", "-5e-05", "-0.1", "--strategies", "mask0", "--no-plot", "--quiet")
    assert main(["zero_crossing", *options, "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr()
    assert "-5e-05" in shown.out
    assert shown.err == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--epsilon", "1.5"), "epsilon"),
        (("--dataset", "mnist", "--data-root", "nowhere"), "--data-root"),
        (("--prune-base", "1.2"), "--prune-base"),
        (("--arch", "vgg16_pretrained"), "--weights"),
        (("--arch", "vgg16"), "vgg16 takes colour images"),
    ],
)
def test_mistakes_are_told_in_one_line(options, message, refused):
    refused(lambda out: main(["fragility", *options, "--out", str(out)]), message)


CLUSTER = [
    (("--backend", "dask"), "--backend dask needs the address of its --scheduler"),
    (("--backend", "ray"), "--backend ray needs the address of its --scheduler"),
    (("--scheduler", "tcp://host:1"), "--scheduler is for --backend dask and ray"),
]


@pytest.mark.parametrize(("options", "message"), CLUSTER, ids=["dask", "ray", "none"])
@pytest.mark.parametrize("command", WITH_JOBS)
def test_a_cluster_is_named_by_backend_and_address(command, options, message, tmp_path, capsys):
    assert main([command, *options, "--out", str(tmp_path / "runs")]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("backend", "package"), [("dask", "distributed"), ("ray", "ray")])
def test_a_missing_package_is_named_with_the_extra_that_brings_it(
    backend, package, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(command_line, "find_spec", lambda name: None)
    options = ("--backend", backend, "--scheduler", "tcp://host:1", "--out", str(tmp_path))
    assert main(["fragility", *options]) == 1
    hint = f'needs {package}: pip install "torch-polarity[bench,{backend}]"'
    assert hint in capsys.readouterr().err


def test_a_failing_run_gives_its_traceback_and_exit_code(tmp_path, monkeypatch, capsys):
    def broken(config, data, **options):
        raise RuntimeError("out of luck")

    monkeypatch.setattr("benchmarks.papers.signs.sweep.train_rounds", broken)
    options = (*TINY, "--epsilon", "0.5", "--strategies", "mask0", "mask1")
    assert main(["fragility", *options, "--out", str(tmp_path)]) == 1
    told = capsys.readouterr().err
    assert told.count("RuntimeError: out of luck") == 2
    assert "2 of 2 runs failed" in told


def test_report_without_results(tmp_path, capsys):
    assert main(["report", "--results", str(tmp_path)]) == 1
    assert "no result files" in capsys.readouterr().err
