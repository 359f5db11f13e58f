"""The page on survivors, from result files."""

import json

from benchmarks.__main__ import main
from benchmarks.survivors.report import describe, write_pages


def record(number, density, seconds, compact):
    dense, masks, survivors = seconds
    layers = [{"name": "0.weight", "compact": compact}]
    shared = {"test_accuracy": 97.0, "density": density}
    return {
        "round": number,
        "same_masks": 1.0,
        "dense": {**shared, "density": 1.0, "seconds": dense},
        "masks": {**shared, "seconds": masks},
        "survivors": {**shared, "seconds": survivors, "deciding_seconds": 0.5, "layers": layers},
    }


def result(seed, slow=1.0):
    config = {
        "dataset": "mnist", "arch": "fc", "seed": seed, "rounds": 2, "prune_base": 0.1, "epochs": 6,
        "optimizer": "adam", "lr": 1.2e-3, "batch_size": 128, "init": "glorot_normal",
        "device": "cpu", "experiment": "survivors",
    }  # fmt: skip
    rounds = [
        record(0, 1.0, (10.0, 12.0, 12.0), False),
        record(1, 0.1, (10.0, 12.0, 8.0 * slow), True),
        record(2, 0.01, (10.0, 13.0, 4.0), True),
    ]
    return {
        "schema": 1, "experiment": "survivors", "run_id": f"survivors-{seed}", "config": config,
        "dataset": {"name": "mnist", "shape": [1, 28, 28], "train": 60000},
        "caption": "6 epochs per round", "rounds": rounds, "versions": {"torch": "9"},
        "machine": {"cpu": "abacus", "cores": 2, "threads": 1, "device": "cpu"},
        "git_commit": "0123", "started": "2026-01-01", "seconds": 100.0,
    }  # fmt: skip


def test_the_page_says_from_which_density_survivors_are_faster():
    text = describe([result(0), result(1)], None).text
    assert "From density 0.100 (round 1) on a round of survivors is faster" in text
    assert "At density 0.010 it takes 0.40 of it, and a round with masks 1.30" in text
    assert "0.80 of the dense network's time with survivors and 1.23 with masks" in text
    assert "another 0.05" in text
    assert "6 epochs per round" in text


def test_the_page_says_where_survivors_are_not_faster():
    slow = result(0)
    slow["rounds"][-1]["survivors"]["seconds"] = 11.0
    assert "not faster than a dense one here" in describe([slow], None).text


def test_the_table_has_every_round_with_the_spread_over_seeds():
    rows = describe([result(0), result(1, slow=1.25)], None).text.splitlines()
    (one,) = (row for row in rows if row.startswith("| 1 "))
    assert "9.00 ± 1.41" in one
    assert "97.00 ± 0.00" in one
    assert [row.split("|")[3].strip() for row in rows[-3:]] == ["0", "1", "1"]


def test_the_page_shows_its_figure(tmp_path):
    (tmp_path / "survivors-0.json").write_text(json.dumps(result(0)))
    (page,) = write_pages(tmp_path, tmp_path / "out")
    (figure,) = (tmp_path / "out").glob("survivors-mnist-fc-*.png")
    assert f"({figure.name})" in page.read_text()
    assert "abacus" in page.read_text()


def test_the_command_runs_and_its_results_make_a_page(tmp_path, capsys):
    tiny = ("--rounds", "1", "--epochs", "1", "--train-size", "300", "--test-size", "100")
    runs = str(tmp_path / "runs")
    arguments = ["survivors", "--dataset", "digits", "--seeds", "0", *tiny, "--out", runs]
    assert main([*arguments, "--quiet", "--device", "cpu"]) == 0
    assert "survivors in common" in capsys.readouterr().out
    assert main(["report", "--results", runs, "--out", str(tmp_path / "report")]) == 0
    assert (tmp_path / "report" / "survivors.md").is_file()


def test_mistakes_are_told_in_one_line(tmp_path, capsys):
    out = ("--out", str(tmp_path / "runs"))
    for options, message in (
        (("--prune-base", "1.2"), "--prune-base"),
        (("--rounds", "-1"), "--rounds"),
        (("--bf16",), "--bf16"),
    ):
        assert main(["survivors", *options, *out]) == 1
        told = capsys.readouterr().err
        assert message in told
        assert told.startswith("error: ")
