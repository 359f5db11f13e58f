"""Figure 9: masks of fresh networks, the claims about them, and their section."""

import json
from dataclasses import asdict, fields, replace

import pytest
import torch

import polarity as pol
from benchmarks.__main__ import main
from benchmarks.models.networks import build_network
from benchmarks.pages.captions import caption
from benchmarks.papers.sign_in import report as sign_in
from benchmarks.papers.sign_in.layerwise import plots
from benchmarks.papers.sign_in.layerwise.claims import claims
from benchmarks.papers.sign_in.layerwise.config import MASKS, LayerwiseConfig
from benchmarks.papers.sign_in.layerwise.report import describe
from benchmarks.papers.sign_in.layerwise.run import layer_counts
from benchmarks.papers.sign_in.layerwise.stated import settings

SMALL = ("--arch", "resnet8", "--classes", "10", "--image-size", "16", "--score-images", "8")
CONFIG = LayerwiseConfig("resnet8", 10, 16, "balanced", 0.1, 0, None)


def fresh(config):
    draw = torch.Generator().manual_seed(config.stream("init"))
    shape = (3, config.image_size, config.image_size)
    return build_network(config.arch, shape, config.classes, generator=draw)


def filled(sizes, total):
    """Equal numbers in every layer, as far as a layer has them: found by trying levels."""
    level = next(n for n in range(total + 1) if sum(min(n, size) for size in sizes) >= total)
    return [min(level, size) for size in sizes]


def test_balanced_layers_have_equal_numbers_or_are_dense():
    layers = layer_counts(CONFIG)
    expected = filled([layer["total"] for layer in layers], 7736)
    assert sum(layer["survivors"] for layer in layers) == 7736
    for layer, count in zip(layers, expected, strict=True):
        # Where the numbers cannot be equal, they differ by one.
        assert abs(layer["survivors"] - count) <= 1


def test_magnitude_keeps_the_largest_weights_of_the_network():
    layers = layer_counts(replace(CONFIG, mask="magnitude"))
    weights = {f"{n}.weight": m.weight for n, m in fresh(CONFIG).named_modules() if weighted(m)}
    sizes = torch.cat([weight.detach().abs().flatten() for weight in weights.values()])
    border = sizes.sort(descending=True).values[7735]
    kept = {name: int((weight.abs() >= border).sum()) for name, weight in weights.items()}
    assert {layer["name"]: layer["survivors"] for layer in layers} == kept


def weighted(module):
    return isinstance(module, torch.nn.Conv2d | torch.nn.Linear)


@pytest.mark.parametrize(("mask", "steps"), [("synflow", 100), ("synflow_once", 1)])
def test_synflow_takes_its_published_steps_or_one(mask, steps):
    model = fresh(CONFIG)
    scores = pol.scores.synflow(model, torch.ones(1, 3, 16, 16), density=0.1, steps=steps)
    report = pol.prune(model, scores, density=0.1)
    found = [layer["survivors"] for layer in layer_counts(replace(CONFIG, mask=mask))]
    assert found == [row.after for row in report]


def test_snip_sees_the_same_noise_again_and_other_noise_with_another_seed():
    config = replace(CONFIG, mask="snip", score_images=20)
    first = layer_counts(config)
    assert layer_counts(config) == first
    assert layer_counts(replace(config, seed=1)) != first


def result(mask, seed, initial, later, arch="resnet50"):
    """A mask with three layers: densities in percent of the first stage, and of the last two."""
    layers = [
        {"name": "layer1.0.conv1.weight", "total": 1000, "survivors": 10 * initial},
        {"name": "layer4.0.conv1.weight", "total": 100_000, "survivors": int(1000 * later)},
        {"name": "fc.weight", "total": 1000, "survivors": 500},
    ]
    config = {
        "arch": arch, "classes": 1000, "image_size": 224, "mask": mask, "density": 0.1,
        "seed": seed, "score_images": None, "device": "cpu", "experiment": "layerwise",
    }  # fmt: skip
    return {
        "schema": 1, "experiment": "layerwise", "run_id": f"layerwise-{mask}-{seed}",
        "config": config, "dataset": {"name": "none"}, "layers": layers,
        "final": {"density": 0.1}, "versions": {"torch": "9"},
        "machine": {"cpu": "abacus", "cores": 2, "threads": 1, "device": "cpu"},
        "git_commit": "0123", "started": "2026-01-01", "seconds": 1.0,
    }  # fmt: skip


def several(mask, initial, later):
    return [result(mask, seed, initial, later) for seed in range(3)]


def verdicts(*results):
    return [claim.verdict for claim in claims([each for group in results for each in group])]


def test_a_balanced_mask_is_judged_by_its_sparsest_layers():
    assert verdicts(several("balanced", 100, 2.3))[:2] == ["holds", "holds"]
    assert verdicts(several("balanced", 9, 0.5))[:2] == ["does not hold", "does not hold"]


@pytest.mark.parametrize(
    ("initial", "later", "verdict", "where"),
    [
        (100, 0.2, "holds", "later"),
        (5, 3, "holds", "initial"),
        (20, 3, "does not hold", "later"),
    ],
)
def test_a_poor_mask_is_sparse_at_one_end_or_the_other(initial, later, verdict, where):
    (_, _, poor, control) = claims(several("snip", initial, later))
    assert poor.verdict == verdict
    assert control.verdict == verdict
    assert any(f"SNIP, noise images ({where} layers)" == case.name for case in poor.cases)


def test_masks_that_were_not_computed_are_not_judged():
    assert verdicts(several("erk", 20, 5)) == ["not run"] * 4


def test_the_control_leaves_the_projections_of_shortcuts_out():
    masks = several("synflow", 80, 3)
    for each in masks:
        shortcut = {"name": "layer1.0.downsample.0.weight", "total": 10, "survivors": 0}
        each["layers"].append(shortcut)
    assert verdicts(masks)[2:] == ["holds", "does not hold"]
    assert "projections of 1 shortcuts" in describe(masks, None).text


def test_the_table_counts_sparse_layers_and_empty_ones():
    text = describe([*several("snip", 40, 0), *several("balanced", 100, 2.3)], None).text
    (row,) = (line for line in text.splitlines() if line.startswith("| SNIP"))
    cells = [cell.strip() for cell in row.split("|")[2:-1]]
    assert cells == ["40.00 ± 0.00", "0.00 ± 0.00", "1", "layer4.0.conv1", "10.000"]


def test_the_figure_has_crosses_for_layers_without_survivors_and_no_points(monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(plots, "save", lambda figure, path: drawn.append(figure))
    seeds = [{"a": 0.5, "b": 0.0, "c": 0.1}, {"a": 0.7, "b": 0.2, "c": 0.1}]
    plots.plot_layers({"SNIP": seeds}, {"scores": ["SNIP"], "none": ["GraSP"]}, tmp_path, "")
    (axes,) = drawn[0].axes
    line, crosses = axes.lines
    assert line.get_xdata().tolist() == [1, 3]
    assert line.get_ydata().tolist() == pytest.approx([0.6, 0.1])
    assert list(crosses.get_xdata()) == [2]
    assert crosses.get_ydata()[0] < 0.1
    assert axes.get_title(loc="left") == "scores"


def test_the_scale_names_another_network_than_the_papers():
    assert "torchvision's ResNet-50, untrained" in describe(several("erk", 20, 5), None).text
    other = describe([result("erk", 0, 20, 5, arch="resnet8")], None).text
    assert "resnet8 (the paper: ResNet-50), untrained" in other


def test_the_command_computes_masks_once_and_their_section_is_on_the_page(tmp_path, capsys):
    runs, pages = tmp_path / "runs", tmp_path / "pages"
    ask = ["sign_in", "layerwise", *SMALL, "--seeds", "0", "--out", str(runs)]
    assert main(ask) == 0
    files = sorted(runs.glob("*.json"))
    assert len(files) == len(MASKS)
    assert all(json.loads(file.read_text())["command"].endswith(str(runs)) for file in files)
    before = [file.stat().st_mtime_ns for file in files]
    assert main(ask) == 0
    assert [file.stat().st_mtime_ns for file in files] == before
    capsys.readouterr()
    (page,) = sign_in.write_pages(runs, pages)
    text = page.read_text()
    assert page.name == "sign_in.md"
    assert "## The layerwise densities of masks that need no training (Figure 9 of" in text
    assert "conv1.weight" in text
    (figure,) = pages.glob("layerwise-resnet8-*.png")
    assert f"]({figure.name})" in text


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (("--density", "0"), "--density 0 is not above 0"),
        (("--score-images", "0"), "--score-images must be at least 1"),
        (("--bf16",), "nothing is trained"),
    ],
)
def test_what_cannot_be_computed_is_refused(more, complaint, tmp_path, capsys):
    assert main(["sign_in", "layerwise", *SMALL, *more, "--out", str(tmp_path / "runs")]) == 1
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


OTHER = LayerwiseConfig("resnet20", 100, 32, "snip", 0.05, 0, 16, "cuda")


@pytest.mark.parametrize(
    "name",
    [
        each.name
        for each in fields(LayerwiseConfig)
        if each.name not in ("mask", "seed", "experiment")
    ],
)
def test_the_scale_names_every_field_that_differs(name):
    base = LayerwiseConfig("resnet8", 10, 16, "snip", 0.1, 0, 8)
    other = replace(base, **{name: getattr(OTHER, name)})
    before, after = ({row.name: row.ours for row in settings_of(each)} for each in (base, other))
    differing = [key for key in before if before[key] != after[key]]
    assert len(differing) == 1
    text = caption(settings_of(other))
    assert f"{differing[0]} {after[differing[0]]}" in text
    assert text != caption(settings_of(base))


def settings_of(config):
    return settings([{"config": asdict(config)}])
