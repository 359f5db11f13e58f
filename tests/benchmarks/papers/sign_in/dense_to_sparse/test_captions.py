"""What a page says of its settings: which differ from the paper's, and of how many seeds."""

from benchmarks.papers.sign_in.dense_to_sparse.captions import (
    differences,
    scale,
    settings,
    settings_table,
)
from benchmarks.papers.sign_in.dense_to_sparse.plots import draw
from benchmarks.papers.sign_in.dense_to_sparse.report import describe
from benchmarks.papers.sign_in.dense_to_sparse.summary import VARIED, comparisons
from tests.benchmarks.papers.sign_in.dense_to_sparse.synthetic import (
    cells,
    config,
    group_of,
    record,
    sweep,
)


def test_captions_are_made_of_every_field_of_the_configuration():
    group = group_of(sweep((0,)))
    assert scale(group) == (
        "CIFAR-10 at 16×16 (averaged), 5,000 training images, resnet8 of width 16, 30 epochs"
    )
    named = {name for name, _, _ in settings(group)}
    fields = {field.replace("_", " ") for field in group.config}
    assert fields - named == {"arm", "seed", "density", "experiment"}
    rows = {row["setting"]: row for row in cells(settings_table(group))}
    assert rows["lr"] == {"setting": "lr", "ours": "0.2", "paper": "0.25"}
    assert rows["momentum"]["paper"] == "not given"
    assert rows["train size"]["ours"] == "5,000 of 50,000"
    assert rows["test size"]["ours"] == "all"
    both = "0.0001 (without Sign-In) or 0 (with Sign-In)"
    assert rows["weight decay"]["ours"] == both
    assert rows["rigl updates"]["ours"] == "60 (RigL)"
    assert rows["densities"]["ours"] == "balanced (RigL, Random)"


def test_a_figure_says_how_many_seeds_its_arms_have(tmp_path):
    runs = sweep(range(3)) + sweep((3, 4), [("acdc", 0.1), ("acdc/random", 0.1)])
    figures = draw(group_of(runs), tmp_path, "drawn")
    assert all("density 0.1; 3 or 5 seeds." in each.caption for each in figures.values())
    (alone, *_) = draw(group_of(sweep((0,), [("rigl", 0.1)])), tmp_path, "alone").values()
    assert "density 0.1; 1 seed." in alone.caption


def test_what_differs_from_the_paper_is_named_and_what_does_not_is_not():
    told = differences(group_of(sweep((0,))))
    assert "lr 0.2, the paper's 0.25" in told
    assert "dataset cifar10, the paper's ImageNet" in told
    assert "train size 5,000 of 50,000, the paper's all" in told
    # β = 1 in both, and of momentum the paper says nothing.
    assert "beta" not in told
    assert "momentum" not in told
    settled = config("acdc", lr=0.25)
    (group,) = comparisons([{**record("acdc"), "config": {**record("acdc")["config"], "lr": 0.25}}])
    assert settled.lr == 0.25
    assert "lr 0.25" not in differences(group)


def test_a_field_that_this_page_does_not_know_is_shown_and_parts_the_groups():
    first, second = record("acdc"), record("acdc", seed=1)
    second["config"]["dropout"] = first["config"]["dropout"] = 0.5
    assert ("dropout", "0.5", "not given") in settings(group_of([first, second]))
    second["config"]["dropout"] = 0.1
    assert len(comparisons([first, second])) == 2
    text = describe([first, second], None).text
    assert text.count("### Verdicts") == 2


def test_varied_fields_are_fields_of_the_configuration():
    assert set(VARIED) <= record("acdc")["config"].keys()
