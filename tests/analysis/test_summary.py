"""One table of a model as it is: each column by hand, in every form, and nothing changes."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

import polarity as pol
from tests.analysis.summed import MASK, VALUES, layer, only
from tests.forms import FORMS, Form, half_masked, random_masks
from tests.helpers import everything_of, sparse_wins
from tests.laws.refusals import fingerprint
from tests.models import KINDS, ZOO, Kind, SmallGpt2, mlp
from tests.norm_nets import norm_net


def test_a_plain_weight_by_hand() -> None:
    # Of 8 entries one is 0: 1, −3, 0.5, 2, −1, 4, 3 add up to 6.5, their squares to 40.25.
    row = only(layer())
    assert (row.name, row.shape, row.total, row.form) == ("weight", (2, 4), 8, "plain")
    assert (row.survivors, row.density) == (7, 7 / 8)
    assert (row.plus, row.minus, row.positive) == (5, 2, 5 / 7)
    assert row.survivor_std == pytest.approx(math.sqrt(40.25 / 7 - (6.5 / 7) ** 2))
    assert (row.frozen, row.aliases, row.inner_scaling, row.left_out) == (False, (), None, None)
    assert (row.dense_multiply_adds, row.sparse_multiply_adds) == (None, None)


def test_a_masked_weight_by_hand() -> None:
    # Survivors 1, −3, 2, 4, 0, 3: the 0 is a survivor without a sign.
    row = only(pol.mask_weights(layer(), masks={"weight": MASK}), torch.ones(1, 4))
    assert (row.form, row.survivors, row.density) == ("masked", 6, 0.75)
    assert (row.plus, row.minus, row.positive) == (4, 1, 0.8)
    assert row.survivor_std == pytest.approx(math.sqrt(185) / 6)
    assert (row.dense_multiply_adds, row.sparse_multiply_adds) == (8, 6)


def test_a_weight_of_factors_by_hand() -> None:
    model: Any = pol.sign_in(layer(torch.ones(1, 3)), beta=1.0)
    pol.load_masks(model, {"weight": torch.tensor([[True, True, False]])})
    with torch.no_grad():
        model.parametrizations.weight.original0.copy_(torch.tensor([[2.0, 3.0, 0.0]]))
        model.parametrizations.weight.original1.copy_(torch.tensor([[1.0, -1.0, 0.0]]))
    row = only(model)
    # m² − v² is 3 and 8, m v is 2 and −3.
    assert (row.form, row.inner_scaling, row.survivors) == ("Sign-In", 5.5, 2)
    assert (row.plus, row.minus, row.survivor_std) == (1, 1, 2.5)


def test_the_deviation_of_survivors_is_sigma_only_at_a_dense_initialisation() -> None:
    model = mlp(6, 5)
    start = pol.RewindPoint.capture(model)
    at_start = pol.summary(model)
    pol.imp_prune(model, density=0.5)
    report = pol.reinit_signs(model, init=start)
    now = pol.summary(model)
    for row in report:
        assert at_start[row.name].survivor_std == pytest.approx(row.sigma)
        assert now[row.name].positive == row.positive
        # The survivors are +σ and −σ: their variance is σ² minus the square of their mean.
        mean = row.sigma * (2 * row.positive - 1)
        expected = math.sqrt(row.sigma**2 - mean**2)
        assert now[row.name].survivor_std == pytest.approx(expected)
        assert now[row.name].survivor_std < row.sigma


WORDS = {
    "masked": "masked",
    "in_step": "masked, in step",
    "remembered": "masked, remembered",
    "sign_in": "Sign-In",
    "compact": "masked, compact",
    "compact_sign_in": "Sign-In, compact",
    "scattered": "masked, compact",
    "scattered_sign_in": "Sign-In, compact",
}


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_every_form_is_named_and_has_the_same_survivors(form: Form) -> None:
    model = form.attach(mlp(6, 5, 3))
    found = pol.summary(model, torch.ones(2, 6))
    assert {row.form for row in found} == {WORDS[form.name]}
    assert found.density == pol.density(model)
    masks, values = random_masks(mlp(6, 5, 3)), mlp(6, 5, 3).state_dict()
    for row in found:
        kept = values[row.name][masks[row.name]]
        assert row.survivors == kept.numel()
        assert (row.plus, row.minus) == (int((kept > 0).sum()), int((kept < 0).sum()))
        assert row.survivor_std == pytest.approx(float(kept.double().std(correction=0)), rel=1e-6)
        assert row.dense_multiply_adds == row.total
        # A mask that is only remembered saves nothing.
        live = row.survivors if form.enforced else row.total
        assert row.sparse_multiply_adds == live
        assert (row.inner_scaling is None) == ("Sign-In" not in row.form)
        if row.inner_scaling is not None:
            assert row.inner_scaling == pytest.approx(0.5)


def test_a_mask_of_torch_prune_is_read_before_it_is_taken_over() -> None:
    model = layer()
    prune.custom_from_mask(model, "weight", MASK)
    ours = pol.mask_weights(layer(), masks={"weight": MASK})
    row, same = only(model, torch.ones(1, 4)), only(ours, torch.ones(1, 4))
    assert row.form == "torch.nn.utils.prune"
    for each in ("survivors", "plus", "minus", "survivor_std", "sparse_multiply_adds"):
        assert getattr(row, each) == getattr(same, each)


def test_entries_below_a_soft_threshold_are_no_survivors() -> None:
    model: Any = pol.mask_weights(layer(), masks={"weight": MASK})
    pol.dense_to_sparse.threshold_weights(model, None, decay=0.1, s0=-20.0)
    with torch.no_grad():
        model.parametrizations.weight[1].s.fill_(1.0)  # a threshold of 0.73
        model.parametrizations.weight.original.copy_(VALUES)
    row = only(model, torch.ones(1, 4))
    report = pol.dense_to_sparse.threshold_report(model)
    assert row.form == "masked, soft threshold"
    assert row.survivors == report.survivors == 5
    assert row.sparse_multiply_adds == 5


def test_norms_biases_and_other_parametrizations() -> None:
    model: Any = norm_net(nn.LayerNorm([4, 4, 4]))
    parametrizations.weight_norm(model[-1])
    pol.interpolate_norms(model)
    prune.l1_unstructured(model[-1], "bias", amount=1)
    found = pol.summary(model, torch.ones(1, 2, 6, 6))
    assert {row.name: row.form for row in found} == {
        "0.weight": "plain",
        "1.weight": "norm interpolated",
        "1.bias": "norm interpolated",
        "6.weight": "_WeightNorm",
        "6.bias": "torch.nn.utils.prune",
    }
    assert found["6.weight"].shape == (3, 16)
    assert found["6.weight"].left_out == "already parametrized by _WeightNorm"
    assert found["1.weight"].left_out == "a norm: targets='1.weight' takes it"
    assert found["6.weight"].dense_multiply_adds == 48
    assert found["1.weight"].dense_multiply_adds is None
    assert found["6.bias"].survivors == 2
    assert found.other_entries == 0


def test_frozen_and_tied_weights_are_shown_once_and_biases_counted_alone() -> None:
    model = SmallGpt2()
    model.transformer["h"][0]["mlp"]["c_fc"].requires_grad_(False)
    found = pol.summary(model, torch.tensor([[1, 2, 3]]))
    names = [row.name for row in found]
    assert len(set(names)) == len(names)
    tied = found["transformer.wte.weight"]
    assert tied.aliases == ("lm_head.weight",)
    assert tied.dense_multiply_adds == 3 * tied.total  # for three tokens, as the decoder
    frozen = found["transformer.h.0.mlp.c_fc.weight"]
    assert frozen.frozen
    assert frozen.left_out.startswith("frozen (requires_grad=False)")
    assert "plain, frozen" in str(found)
    everything = sum(parameter.numel() for parameter in model.parameters())
    assert found.total + found.other_entries == everything


def test_frozen_weights_below_a_mask_stay_in_reach() -> None:
    model = pol.mask_weights(layer(), masks={"weight": MASK}).requires_grad_(False)
    row = only(model)
    assert (row.frozen, row.left_out) == (True, None)


@pytest.mark.parametrize("kind", [*KINDS, *ZOO], ids=lambda kind: kind.name)
def test_reasons_and_reach_are_those_of_find_targets(kind: Kind) -> None:
    model = kind.build()
    for part in list(model.modules())[-2:]:
        part.requires_grad_(False)
    try:
        targets = pol.find_targets(model)
    except ValueError:
        targets = pol.find_targets(model.requires_grad_(True))
    found = pol.summary(model)
    assert {row.name for row in found} == {*targets, *targets.skipped}
    assert {row.name: row.left_out for row in found if row.left_out} == targets.skipped
    assert found.reach == targets.reach


def test_a_compressed_layer_keeps_its_row() -> None:
    model = pol.merge(half_masked(mlp(6, 5)))
    before = pol.summary(model, torch.ones(2, 6))
    pol.deploy.compress(model, torch.ones(2, 6), measure=sparse_wins, break_even=1.0)
    state = fingerprint(model.state_dict())
    after = pol.summary(model, torch.ones(2, 6))
    assert {row.form for row in after} == {"sparse product"}
    assert fingerprint(model.state_dict()) == state
    for old, new in zip(before, after, strict=True):
        assert {**vars(old), "form": ""} == {**vars(new), "form": ""}


def spectral() -> nn.Module:
    return nn.Sequential(parametrizations.spectral_norm(nn.Linear(6, 6)))


def batch_norm() -> nn.Module:
    return half_masked(norm_net(nn.BatchNorm2d(4)))


def with_dropout() -> nn.Module:
    return pol.sign_in(nn.Sequential(nn.Linear(6, 5), nn.Dropout(0.5), nn.Linear(5, 3)))


def interpolated() -> nn.Module:
    return pol.interpolate_norms(norm_net(nn.BatchNorm2d(4)))


@pytest.mark.parametrize("build", [spectral, batch_norm, with_dropout, interpolated])
@pytest.mark.parametrize("training", [True, False])
def test_nothing_changes(build: Callable[[], nn.Module], training: bool) -> None:
    model = build().train(training)
    inputs = torch.randn(2, 2, 6, 6) if isinstance(model[0], nn.Conv2d) else torch.randn(2, 6)
    model(inputs).sum().backward()
    before = everything_of(model), torch.get_rng_state().tolist(), fingerprint(inputs)
    hooks = [(dict(m._forward_hooks), dict(m._forward_pre_hooks)) for m in model.modules()]
    pol.summary(model)
    pol.summary(model, inputs)
    assert (everything_of(model), torch.get_rng_state().tolist(), fingerprint(inputs)) == before
    assert [(dict(m._forward_hooks), dict(m._forward_pre_hooks)) for m in model.modules()] == hooks
    model(inputs).sum().backward()


def test_an_error_of_the_model_surfaces_and_nothing_changes() -> None:
    model = batch_norm().train()
    before = everything_of(model)
    with pytest.raises(RuntimeError, match="size"):
        pol.summary(model, torch.ones(2, 3, 6, 6))
    assert everything_of(model) == before


def test_what_has_no_values_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"'0\.weight' on the meta device"):
        pol.summary(nn.Sequential(nn.Linear(2, 2)).to("meta"))
    with pytest.raises(ValueError, match=r"0\.weight is lazy: run one batch"):
        pol.summary(nn.Sequential(nn.LazyLinear(2)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.float8_e4m3fn], ids=str)
def test_other_dtypes_are_read(dtype: torch.dtype) -> None:
    model = layer().to(dtype)
    row = only(model)
    assert (row.survivors, row.plus, row.minus) == (7, 5, 2)
    assert (row.left_out is None) == (dtype is not torch.float8_e4m3fn)


def test_a_model_that_was_made_in_inference_mode_is_shown() -> None:
    with torch.inference_mode():
        model = layer()
        assert only(model, torch.ones(1, 4)).sparse_multiply_adds == 7
    assert only(model).left_out.startswith("made under torch.inference_mode()")


def test_values_that_are_not_finite_show_in_the_deviation() -> None:
    row = only(layer(torch.tensor([[1.0, math.nan, -2.0]])))
    assert (row.survivors, row.plus, row.minus) == (3, 1, 1)
    assert math.isnan(row.survivor_std)


@pytest.mark.parametrize("build", [nn.ReLU, lambda: nn.LayerNorm(3)])
def test_a_model_without_matrices_has_no_rows(build: Callable[[], nn.Module]) -> None:
    found = pol.summary(build(), torch.ones(2, 3))
    assert (len(found), found.density, found.positive, found.dense_multiply_adds) == (0, 1, None, 0)
    assert str(found).splitlines()[2].split() == ["total", "0", "1.0000", "0", "0"]
