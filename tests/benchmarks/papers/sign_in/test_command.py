"""The command of Sign-In: settings of the paper, a sweep that resumes, and mistakes in one line."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.harness.committed import found_result
from benchmarks.harness.json_lines import write_lines
from benchmarks.papers.sign_in.command import SignInOptions, configurations
from tests.benchmarks.papers.sign_in.small import CPU, SMALL

WORDS = ["--width", "8", "--epochs", "1", "--batch-size", "64", "--densities", "0.2", "--quiet"]
WORDS += ["--train-size", "200", "--test-size", "50", "--sharpness-images", "0", "--device", "cpu"]


def test_the_defaults_are_the_papers_settings():
    runs = configurations(SignInOptions(dataset="cifar10", where=CPU))
    assert len(runs) == 3 * 3 * 3
    random, sign_in, mv = runs[:3]
    assert (random.method, sign_in.method, mv.method) == ("random", "random+sign_in", "random+mv")
    assert {each.density for each in runs} == {0.2, 0.1, 0.05}
    for each in runs[:3]:
        assert (each.arch, each.lr, each.epochs, each.batch_size) == ("resnet20", 0.2, 150, 512)
        assert (each.schedule, each.optimizer, each.momentum) == ("triangular", "sgd", 0.9)
        assert (each.densities, each.augment) == ("balanced", True)
    # Table 7 overrides the weight decay of Table 6, and T2 is 75.
    assert (random.weight_decay, random.frobenius_decay, random.beta) == (1e-4, None, None)
    assert (sign_in.weight_decay, sign_in.frobenius_decay, sign_in.beta) == (0.0, 1e-4, 1.0)
    assert (sign_in.rescale_until, sign_in.rescale_period) == (75, 1)
    assert (mv.weight_decay, mv.frobenius_decay, mv.rescale_period) == (0.0, 1e-4, None)


def test_a_sweep_over_p_shares_the_runs_that_do_not_rescale():
    runs = configurations(replace(SMALL, rescale_periods=(1, 2, 5)))
    assert [(each.method, each.rescale_period) for each in runs] == [
        ("random", None),
        ("random+sign_in", 1),
        ("random+sign_in", 2),
        ("random+sign_in", 5),
        ("random+mv", None),
    ]
    assert len({each.run_id for each in runs}) == 5


def test_sweep_resumes_reports_and_prints(tmp_path, capsys):
    out = tmp_path / "runs"
    words = [*WORDS, "--seeds", "0", "--dataset", "digits", "--out", str(out)]
    assert main(["sign_in", *words, "--methods", "random", "random+mv"]) == 0
    shown = capsys.readouterr().out
    assert "| Random + m⊙v" in shown
    plots = [line.split()[1] for line in shown.splitlines() if line.startswith("plot:")]
    assert len(plots) == 5
    assert all(Path(plot).stat().st_size > 5000 for plot in plots)
    stamps = {path.name: path.stat().st_mtime_ns for path in out.glob("*.json")}
    assert len(stamps) == 2

    # One result is lost, two runs are new: three are performed, one is not.
    lost = next(name for name in stamps if "mv" in name)
    before = json.loads((out / lost).read_text())
    (out / lost).unlink()
    methods = ["--methods", "random", "random+sign_in", "random+mv"]
    assert main(["sign_in", *words, *methods, "--rescale-periods", "1", "2", "--no-plot"]) == 0
    assert len(list(out.glob("*.json"))) == 4
    kept = next(name for name in stamps if name != lost)
    assert (out / kept).stat().st_mtime_ns == stamps[kept]
    again = json.loads((out / lost).read_text())
    for key in ("config", "layers", "final"):
        assert again[key] == before[key]

    assert main(["report", "--results", str(out), "--out", str(tmp_path / "pages")]) == 0
    page = (tmp_path / "pages" / "sign_in.md").read_text()
    assert page.startswith("# Sign-In to the Lottery")
    assert "Rescale period p: Random + Sign-In at density 0.2" in page
    for line in page.splitlines():
        if line.startswith("!["):
            assert (tmp_path / "pages" / line.split("(")[-1].rstrip(")")).is_file()


def test_runs_that_a_committed_file_holds_are_not_performed_again(tmp_path, monkeypatch, capsys):
    words = [*WORDS, "--seeds", "0", "--dataset", "digits", "--methods", "random", "--no-plot"]
    assert main(["sign_in", *words, "--out", str(tmp_path / "first")]) == 0
    (path,) = (tmp_path / "first").glob("*.json")
    write_lines(tmp_path / "sign_in.jsonl", [json.loads(path.read_text())])
    monkeypatch.setattr(found_result, "__defaults__", (tmp_path,))
    assert main(["sign_in", *words, "--out", str(tmp_path / "second")]) == 0
    assert list((tmp_path / "second").glob("*.json")) == []
    assert "| Random" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--densities", "0"), "--densities"),
        (("--rescale-periods", "0"), "at least 1"),
        (("--beta", "0"), "--beta"),
        (("--arch", "resnet18", "--width", "8"), "one width"),
        (("--dataset", "mnist", "--data-root", "nowhere"), "--data-root"),
    ],
)
def test_mistakes_are_told_in_one_line(words, message, refused):
    refused(lambda out: main(["sign_in", *words, "--out", str(out)]), message)


def test_the_theory_section_is_a_part_of_its_paper(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["sign_in", "theory", "--help"])
    assert stopped.value.code == 0
    assert "theory section" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        main(["sign_in", "--help"])
    assert stopped.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for option in ("methods", "rescale-periods", "rescale-until", "recipe", "bf16", "sharpness"):
        assert f"--{option}" in shown
    assert "The paper never gives p" in shown


@pytest.mark.parametrize(
    ("name", "dataset", "arch"),
    [("cifar10-resnet20", "cifar10", "resnet20"), ("cifar100-resnet18", "cifar100", "resnet18")],
)
def test_a_recipes_name_stands_for_its_data_set_and_network(name, dataset, arch):
    runs = configurations(SignInOptions(recipe=name, where=CPU))
    assert {(run.dataset, run.arch) for run in runs} == {(dataset, arch)}


@pytest.mark.parametrize("more", [("--dataset", "cifar10"), ("--arch", "resnet8")])
def test_a_recipe_with_another_data_set_or_network_is_refused(more, tmp_path, capsys):
    ask = ["sign-in", "--recipe", "cifar100-resnet18", *more, "--out", str(tmp_path / "runs")]
    assert main(ask) == 1
    said = capsys.readouterr().err
    assert "--recipe cifar100-resnet18 trains resnet18 on cifar100, not" in said
    assert "leave --dataset and --arch out" in said
    assert not (tmp_path / "runs").exists()
