"""Which weights a caller means: types, names, globs and predicates, alone and together."""

from collections import OrderedDict

import pytest
import torch
from torch import nn

import polarity as pol

DEFAULT = ["stem.weight", "body.fc1.weight", "body.fc10.weight", "head.weight"]
BIASES = ["stem.bias", "norm.bias", "body.fc1.bias", "body.fc10.bias", "head.bias"]


def has_four_axes(name: str, parameter: torch.Tensor) -> bool:
    return parameter.dim() == 4


def is_norm_weight(name: str, parameter: torch.Tensor) -> bool:
    return name == "norm.weight"


@pytest.fixture
def net() -> nn.Sequential:
    body = nn.Sequential(OrderedDict(fc1=nn.Linear(8, 4), fc10=nn.Linear(4, 4)))
    return nn.Sequential(
        OrderedDict(
            stem=nn.Conv2d(1, 2, 3),
            norm=nn.BatchNorm2d(2),
            body=body,
            embed=nn.Embedding(3, 4),
            head=nn.Linear(4, 2),
        )
    )


# what is asked for, what `targets=` takes, what `exclude=` leaves of the default
FORMS = [
    pytest.param(nn.Linear, DEFAULT[1:], DEFAULT[:1], id="type"),
    pytest.param(nn.Conv2d, ["stem.weight"], DEFAULT[1:], id="another type"),
    pytest.param(nn.BatchNorm2d, ["norm.weight"], DEFAULT, id="type of no default weight"),
    pytest.param("head.weight", ["head.weight"], DEFAULT[:3], id="exact name"),
    pytest.param("head.bias", ["head.bias"], DEFAULT, id="exact name of a bias"),
    pytest.param("head", ["head.weight"], DEFAULT[:3], id="module name"),
    pytest.param("body", DEFAULT[1:3], ["stem.weight", "head.weight"], id="container name"),
    pytest.param(
        "body.fc1",
        ["body.fc1.weight"],
        ["stem.weight", "body.fc10.weight", "head.weight"],
        id="a name is no prefix of a longer one",
    ),
    pytest.param("body.*", DEFAULT[1:3], ["stem.weight", "head.weight"], id="glob of modules"),
    pytest.param("*.fc1*.weight", DEFAULT[1:3], ["stem.weight", "head.weight"], id="glob of names"),
    pytest.param("[sh]*", ["stem.weight", "head.weight"], DEFAULT[1:3], id="glob with a set"),
    pytest.param("*.bias", BIASES, DEFAULT, id="glob that no default weight matches"),
    pytest.param(has_four_axes, ["stem.weight"], DEFAULT[1:], id="predicate on the tensor"),
    pytest.param(is_norm_weight, ["norm.weight"], DEFAULT, id="predicate on the name"),
    pytest.param(["head", has_four_axes], ["stem.weight", "head.weight"], DEFAULT[1:3], id="list"),
    pytest.param((nn.Conv2d, "head.weight"), ["stem.weight", "head.weight"], DEFAULT[1:3], id="()"),
    pytest.param({"head", "stem"}, ["stem.weight", "head.weight"], DEFAULT[1:3], id="set"),
    pytest.param(["body", "body.fc1"], DEFAULT[1:3], ["stem.weight", "head.weight"], id="overlap"),
]


@pytest.mark.parametrize(("selector", "taken", "_"), FORMS)
def test_targets_takes_every_form_and_answers_in_the_models_order(net, selector, taken, _):
    assert list(pol.find_targets(net, selector)) == taken


@pytest.mark.parametrize(("selector", "_", "left"), FORMS)
def test_exclude_takes_the_same_forms(net, selector, _, left):
    assert list(pol.find_targets(net, exclude=selector)) == left


def test_a_generator_of_selectors_is_as_good_as_a_list(net):
    assert list(pol.find_targets(net, (f"body.{name}" for name in ("fc10", "fc1")))) == DEFAULT[1:3]


def test_without_selectors_biases_norms_and_embeddings_are_left_alone(net):
    assert list(pol.find_targets(net)) == DEFAULT


def test_a_star_means_the_default_weights_not_everything(net):
    assert list(pol.find_targets(net, "*")) == DEFAULT


def test_exclude_is_subtracted_from_targets(net):
    assert list(pol.find_targets(net, nn.Linear, "body")) == ["head.weight"]
    assert list(pol.find_targets(net, "body", exclude=["*.fc10"])) == ["body.fc1.weight"]


@pytest.mark.parametrize("exclude", [nn.Linear, ["body", "head"], ["body.*", "h*"]], ids=str)
def test_a_module_is_excluded_with_its_biases(net, exclude):
    assert list(pol.find_targets(net, "*.bias", exclude)) == BIASES[:2]


def test_exclude_of_nothing_leaves_the_default(net):
    assert list(pol.find_targets(net, exclude=())) == DEFAULT


def test_a_type_selects_its_subclasses():
    class Wide(nn.Linear):
        pass

    net = nn.Sequential(Wide(2, 2), nn.Linear(2, 2))
    assert list(pol.find_targets(net, nn.Linear)) == ["0.weight", "1.weight"]
    assert list(pol.find_targets(net, Wide)) == ["0.weight"]


def test_the_type_of_attention_means_all_its_projections():
    layer = nn.TransformerEncoderLayer(4, 2, 8)
    projections = ["self_attn.in_proj_weight", "self_attn.out_proj.weight"]
    assert list(pol.find_targets(layer, nn.MultiheadAttention)) == projections


def test_excluding_the_type_of_attention_excludes_its_output_projection_too():
    layer = nn.TransformerEncoderLayer(4, 2, 8)
    left = ["linear1.weight", "linear2.weight"]
    assert list(pol.find_targets(layer, exclude=nn.MultiheadAttention)) == left


def test_a_predicate_is_shown_every_parameter_itself_under_its_plain_name(net):
    seen = {}
    pol.find_targets(net, lambda name, parameter: seen.setdefault(name, parameter) is not None)
    expected = dict(net.named_parameters())
    assert seen.keys() == expected.keys()
    assert all(seen[name] is expected[name] for name in expected)


def test_a_predicate_sees_the_same_names_after_masking(net):
    before, after = [], []
    pol.find_targets(net, lambda name, _: before.append(name) or True)
    pol.find_targets(pol.mask_weights(net), lambda name, _: after.append(name) or True)
    assert sorted(before) == sorted(after)


@pytest.mark.parametrize("role", ["targets", "exclude"])
@pytest.mark.parametrize(
    "typo", ["haed", "head.wieght", "Head", "bodies.*", "hea", "head.weigh", ""]
)
def test_a_name_or_glob_that_matches_nothing_is_an_error_that_says_what_there_is(net, role, typo):
    with pytest.raises(ValueError, match="matches nothing") as error:
        pol.find_targets(net, **{role: typo})
    assert f"{role}={typo!r}" in str(error.value)
    assert "stem.weight" in str(error.value)


def test_one_typo_among_good_names_is_an_error(net):
    with pytest.raises(ValueError, match=r"targets='haed' matches nothing"):
        pol.find_targets(net, ["stem", "haed"])


@pytest.mark.parametrize("role", ["targets", "exclude"])
@pytest.mark.parametrize("wrong", [3, 0.5, [3], [None], int, [["head"]]], ids=repr)
def test_a_selector_of_another_kind_is_refused_by_the_name_of_its_parameter(net, role, wrong):
    with pytest.raises(TypeError, match=role):
        pol.find_targets(net, **{role: wrong})


@pytest.mark.parametrize("role", ["targets", "exclude"])
@pytest.mark.parametrize("wrong", [lambda name: True, lambda: True, lambda a, b, c: True])
def test_a_predicate_of_other_arguments_is_refused_by_the_name_of_its_parameter(net, role, wrong):
    with pytest.raises(TypeError, match=rf"{role}=<lambda> takes .*of \(name, parameter\)"):
        pol.find_targets(net, **{role: wrong})


@pytest.mark.parametrize("role", ["targets", "exclude"])
def test_a_module_object_is_refused_because_its_name_is_meant(net, role):
    with pytest.raises(TypeError, match=role):
        pol.find_targets(net, **{role: net.head})


@pytest.mark.parametrize(
    ("targets", "exclude", "parts"),
    [
        (nn.Conv3d, None, ["targets=", "Conv3d"]),
        ([], None, ["targets=[]"]),
        (None, "*", ["exclude='*'"]),
        ("head", nn.Linear, ["targets='head'", "exclude=", "Linear"]),
    ],
)
def test_when_nothing_is_left_the_error_names_what_was_asked_for(net, targets, exclude, parts):
    with pytest.raises(ValueError, match="Sequential has no prunable weights") as error:
        pol.find_targets(net, targets, exclude)
    assert [part for part in parts if part not in str(error.value)] == []
