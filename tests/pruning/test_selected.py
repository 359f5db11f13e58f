"""``targets=`` and ``exclude=`` restrict a pruning call to the selected weights."""

import pytest
import torch
from torch import nn

import polarity as pol
from tests.forms import random_masks
from tests.models import WIDE, Tied, seeded
from tests.pruning.test_reached import CALLS, each_call, three


def zeros(model: nn.Module, name: str) -> int:
    return int((pol.find_targets(model, name)[name].weight == 0).sum())


FORMS = [
    ("2.weight", ["2.weight"]),
    ("2", ["2.weight"]),
    (["0", "3.*"], ["0.weight", "3.weight"]),
    (("0", "2"), ["0.weight", "2.weight"]),
    (lambda name, p: p.shape == (5, 4), ["3.weight"]),
    (nn.Linear, ["0.weight", "2.weight", "3.weight"]),
    ((name for name in ("0", "3")), ["0.weight", "3.weight"]),
]


@pytest.mark.parametrize(("targets", "names"), FORMS[:-1], ids=lambda it: str(it)[:20])
@each_call
def test_a_call_prunes_the_selected_weights_alone(call, targets, names):
    report = call(three(), targets=targets)
    assert [layer.name for layer in report] == names


@pytest.mark.parametrize("call", CALLS)
def test_a_selector_that_can_be_read_only_once_is_enough(call):
    report = CALLS[call](three(), targets=(n for n in ("0", "3")), exclude=(n for n in ("3",)))
    assert [layer.name for layer in report] == ["0.weight"]


@each_call
def test_plain_weights_are_masked_first_and_other_masks_are_left_as_they_are(call):
    model = three()
    pol.load_masks(model, {"0.weight": random_masks(model)["0.weight"]})
    mask, leaf = pol.masks(model)["0.weight"], model[0].parametrizations.weight.original
    values = leaf.detach().clone()
    report = call(model, targets="2")
    assert (report.before, report.survivors, report.total) == (16, 8, 16)
    assert torch.equal(pol.masks(model)["0.weight"], mask)
    assert torch.equal(leaf, values)
    assert list(pol.masks(model)) == ["0.weight", "2.weight"]
    assert zeros(model, "2.weight") == 8
    assert "3.weight" not in pol.masks(model)


def test_density_and_amount_refer_to_the_selected_weights():
    model = three()
    assert pol.imp_prune(model, density=0.25, targets=["0", "2"]).survivors == 8
    assert pol.imp_prune(model, 0.25, targets="3").survivors == 15
    assert pol.imp_prune(model, 0.5, targets=["0", "2", "3"]).survivors == 11


@each_call
def test_exclude_on_a_masked_model_leaves_that_weight_as_it_is(call):
    model = pol.mask_weights(three())
    report = call(model, exclude="3")
    assert [layer.name for layer in report] == ["0.weight", "2.weight"]
    assert pol.masks(model)["3.weight"].all()


@each_call
def test_exclude_on_a_plain_model_masks_the_others(call):
    model = three()
    call(model, exclude="3")
    assert list(pol.masks(model)) == ["0.weight", "2.weight"]


def test_a_selected_call_prunes_as_a_call_on_that_layer_alone():
    one, other = (seeded(nn.Sequential(WIDE.build(), nn.Linear(900, 3))) for _ in range(2))
    pol.imp_prune(one, 0.3, targets="0")
    pol.imp_prune(other[0], 0.3)
    assert torch.equal(pol.masks(one)["0.weight"], pol.masks(other)["0.weight"])


def test_a_rewind_restores_masked_weights_that_the_call_did_not_select():
    model = three()
    start = pol.RewindPoint.capture(model)
    pol.load_masks(model, random_masks(model))
    masks = pol.masks(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    pol.imp_prune(model, 0.5, rewind=start, targets="2")
    for name, target in pol.find_targets(model).items():
        assert torch.equal(target.weight, start.weights[name] * pol.masks(model)[name])
    assert torch.equal(pol.masks(model)["0.weight"], masks["0.weight"])
    assert torch.equal(model[0].bias, start.weights["0.bias"])


def test_scores_may_hold_weights_that_the_call_does_not_select():
    model = pol.mask_weights(three())
    scores = {name: torch.rand(mask.shape) for name, mask in pol.masks(model).items()}
    report = pol.prune(model, scores, density=0.5, targets="2")
    assert [layer.name for layer in report] == ["2.weight"]
    assert pol.prune(model, scores, density=0.25, exclude=["2", "0"]).survivors == 5
    plain = three()
    pol.prune(plain, scores, density=0.5, exclude="3")
    assert list(pol.masks(plain)) == ["0.weight", "2.weight"]


def test_scores_must_hold_what_the_call_selects():
    model = three()
    with pytest.raises(ValueError, match=r"scores is missing '2\.weight'"):
        pol.prune(model, {"0.weight": torch.rand(4, 4)}, density=0.5, targets=["0", "2"])
    with pytest.raises(ValueError, match=r"scores holds 'nonsense'"):
        pol.prune(
            model, {"0.weight": torch.rand(4, 4), "nonsense": torch.ones(1)},
            density=0.5, targets="0",
        )  # fmt: skip
    assert list(model.state_dict()) == list(three().state_dict())


@each_call
def test_a_bad_selector_is_refused_by_its_name_and_changes_nothing(call):
    model = three()
    with pytest.raises(ValueError, match=r"targets='hed' matches nothing"):
        call(model, targets="hed")
    with pytest.raises(ValueError, match=r"exclude='hed' matches nothing"):
        call(model, exclude="hed")
    with pytest.raises(TypeError, match="targets holds 3, expected module types"):
        call(model, targets=3)
    with pytest.raises(ValueError, match="no prunable weights"):
        call(model, exclude="*")
    assert list(model.state_dict()) == list(three().state_dict())


@each_call
def test_a_tied_embedding_is_pruned_when_it_is_selected(call):
    model = seeded(Tied())
    call(model, targets=["middle", "decoder"])
    assert list(pol.masks(model)) == ["encoder.weight", "middle.weight"]
    assert torch.equal(model.encoder.weight, model.decoder.weight)


def test_a_score_function_with_targets_sees_the_selected_weights():
    seen = []

    def score(name: str, weight: torch.Tensor) -> torch.Tensor:
        seen.append(name)
        return weight.abs()

    pol.imp_prune(three(), 0.5, score=score, targets="3")
    assert seen == ["3.weight"]
