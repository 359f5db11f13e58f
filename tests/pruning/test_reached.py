"""What a pruning call says of the weights that it did not reach."""

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn

import polarity as pol
from polarity.targets.reach import LeftOut, Reach
from tests.forms import random_masks
from tests.models import SmallGpt2, Tied, Twins, seeded


def three() -> nn.Sequential:
    return seeded(nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Linear(4, 5)))


def random_scores(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: torch.rand(target.shape) for name, target in pol.find_targets(model).items()}


CALLS: dict[str, Callable[..., pol.PruneReport]] = {
    "imp_prune": lambda model, **how: pol.imp_prune(model, 0.5, **how),
    "lrr_step": lambda model, **how: pol.lrr_step(
        model, 0.5, rewind=pol.RewindPoint.capture(model), **how
    ),
    "prune": lambda model, **how: pol.prune(model, pol.scores.magnitude, amount=0.5, **how),
}
each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@pytest.fixture
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@each_call
@pytest.mark.usefixtures("no_warnings")
def test_a_report_ends_with_how_many_matrix_entries_were_in_reach(call):
    report = call(three())
    assert str(report).splitlines()[-1] == "in reach: 52 of 52 matrix entries"
    assert report.to_dict()["reach"] == {
        "taken": 52,
        "total": 52,
        "left_out": [],
        "fraction": 1.0,
    }


def test_biases_and_vectors_do_not_count_and_tied_matrices_count_once():
    assert pol.imp_prune(Twins(), 0.5).reach == Reach(25, 25)
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    assert pol.imp_prune(net, 0.5, targets=["0.weight", "0.bias"]).reach == Reach(16, 16)


def test_a_gpt2_reports_its_reach_and_one_warning_names_the_largest_that_are_left_out():
    model = SmallGpt2(tokens=300)
    with pytest.warns(UserWarning, match="in reach") as seen:
        report = pol.imp_prune(model, density=0.3)
    assert (report.total, report.density) == (2 * 12 * 64, 461 / 1536)
    assert report.reach is not None
    assert (report.reach.taken, report.reach.total) == (1536, 1536 + 8 * 300 + 8 * 16)
    assert [each.name for each in report.reach.left_out] == [
        "transformer.wte.weight",
        "transformer.wpe.weight",
    ]
    (message,) = [str(each.message) for each in seen]
    assert "1536 of 4064 matrix entries are in reach of this call (37.8%)" in message
    assert "transformer.wte.weight (2400 entries) is an embedding, tied to lm_head" in message
    assert "targets='transformer.wte.weight' takes it" in message
    assert "exclude= to leave them out without this warning" in message
    assert seen[0].filename == __file__


def test_the_sign_report_has_the_line_too():
    model = seeded(Tied())
    start = pol.RewindPoint.capture(model)
    pol.imp_prune(model, 0.5, targets="*")
    report = pol.reinit_signs(model, init=start)
    assert str(report).splitlines()[-1] == "in reach: 25 of 60 matrix entries"
    assert report.to_dict()["reach"]["left_out"][0]["name"] == "encoder.weight"


def test_reports_without_a_reach_print_no_line():
    assert "in reach" not in str(pol.PruneReport(()))
    assert "in reach" not in str(pol.SignReport((), "mask1"))
    trained = {"w": torch.ones(2)}
    _, report = pol.signed_constants(trained, trained, {"w": torch.ones(2, dtype=torch.bool)})
    assert report.reach is None


@each_call
@pytest.mark.parametrize("how", [{"targets": "*"}, {"exclude": "encoder"}], ids=str)
@pytest.mark.usefixtures("no_warnings")
def test_no_warning_is_given_where_the_caller_selected(call, how):
    report = call(Tied(), **how)
    assert report.reach.fraction == 25 / 60


@each_call
@pytest.mark.usefixtures("no_warnings")
def test_no_warning_is_given_at_nine_tenths(call):
    call(nn.Sequential(nn.Linear(9, 10), nn.Embedding(5, 2)))


@each_call
def test_a_warning_is_given_below_nine_tenths(call):
    with pytest.warns(UserWarning, match=r"90 of 102 matrix entries are in reach .*1\.weight"):
        call(nn.Sequential(nn.Linear(9, 10), nn.Embedding(6, 2)))


def test_the_largest_of_many_are_named_the_largest_first():
    embeddings = [nn.Embedding(size, 2) for size in (3, 9, 4, 8)]
    report = pol.imp_prune(nn.Sequential(nn.Linear(2, 2), *embeddings), 0.5, exclude="1")
    assert [(each.name, each.entries) for each in report.reach.left_out] == [
        ("2.weight", 18),
        ("4.weight", 16),
        ("3.weight", 8),
    ]


@each_call
def test_a_second_call_prunes_what_is_attached_and_names_what_it_left_alone(call):
    model = three()
    pol.imp_prune(model[0], 0.2)
    with pytest.warns(UserWarning, match="no mask") as seen:
        report = call(model)
    (message,) = [str(each.message) for each in seen]
    assert message.startswith("2.weight and 3.weight can be pruned but have no mask")
    assert "mask_weights(model) first, or pass targets=" in message
    assert list(pol.masks(model)) == ["0.weight"]
    assert report.notes[0] == "left alone: 2.weight and 3.weight (no mask)"
    assert [each.reason for each in report.reach.left_out] == ["without a mask"] * 2
    assert str(report).splitlines()[-1] == "in reach: 16 of 52 matrix entries"


@each_call
@pytest.mark.usefixtures("no_warnings")
def test_the_remedies_of_that_warning_reach_them_all(call):
    model = three()
    pol.mask_weights(model[0])
    assert len(call(model, targets="*")) == 3
    model = three()
    pol.mask_weights(model[0])
    assert len(call(pol.mask_weights(model))) == 3


@each_call
def test_leaving_out_one_weight_does_not_hide_that_another_is_left_alone(call):
    model = three()
    pol.mask_weights(model[0])
    with pytest.warns(UserWarning, match=r"^2\.weight can be pruned but has no mask"):
        report = call(model, exclude="3")
    assert [each.reason for each in report.reach.left_out] == ["excluded", "without a mask"]


@each_call
@pytest.mark.usefixtures("no_warnings")
def test_leaving_the_classifier_out_warns_of_nothing_when_the_call_says_so(call):
    model = pol.mask_weights(three(), exclude="3")
    report = call(model, exclude="3")
    assert len(report) == 2
    assert not [note for note in report.notes if note.startswith("left alone")]


@pytest.mark.usefixtures("no_warnings")
def test_scores_that_name_some_of_the_weights_select_them():
    model = three()
    scores = random_scores(model)
    del scores["3.weight"]
    report = pol.prune(model, scores, density=0.5)
    assert (len(report), report.reach.taken) == (2, 32)
    by_function = pol.prune(three(), pol.scores.magnitude, densities={"0.weight": 0.5})
    assert len(by_function) == 1


def test_scores_of_all_default_weights_select_nothing():
    model = Tied()
    with pytest.warns(UserWarning, match="25 of 60 matrix entries"):
        pol.prune(model, random_scores(model), density=0.5)


def test_four_names_and_more_are_cut_short():
    model = nn.Sequential(*[nn.Linear(2, 2) for _ in range(7)])
    pol.mask_weights(model[0])
    with pytest.warns(UserWarning, match=r"^1\.weight, 2\.weight, 3\.weight and 3 more can be"):
        pol.imp_prune(model, 0.5)


@each_call
def test_a_warning_that_is_an_error_leaves_the_model_as_it_was(call):
    model = three()
    pol.load_masks(model[0], random_masks(model[0]))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="can be pruned"):
            call(model)
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_a_reach_without_matrices_is_whole():
    assert (Reach(0, 0).fraction, str(Reach(0, 0))) == (1.0, "in reach: 0 of 0 matrix entries")
    assert str(LeftOut("a.weight", 6, "frozen")) == "a.weight (6 entries) is frozen"


def test_the_gpt2_of_these_tests_computes_and_trains():
    model = SmallGpt2()
    draw = torch.Generator().manual_seed(0)
    (tokens,) = torch.randint(50, (2, 5), generator=draw).split(2)
    pol.imp_prune(model, 0.5, targets="*")
    loss = model(tokens).square().mean()
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())
