"""What checkpoints, pruning, rewinding, signs and analysis make of a model with thresholds."""

import copy
import io

import pytest
import torch
from torch import nn, optim

import polarity as pol
from polarity.dense_to_sparse import (
    extract_soft_mask,
    soft_density,
    soft_mask,
    threshold_weights,
    weights_before_threshold,
)
from tests.dense_to_sparse.cases import FIRST, LAST, batches, masked, network
from tests.dense_to_sparse.test_soft_threshold import each_form, fit, in_form, sgd_of, trained
from tests.laws.refusals import fingerprint
from tests.models import Twins, seeded


@each_form
def test_merge_and_the_dense_state_give_the_shrunk_values(form):
    model, sgd = trained(form)
    seen = {FIRST: model[0].weight.detach().clone(), LAST: model[2].weight.detach().clone()}
    dense = pol.dense_state_dict(model)
    assert set(dense) == {FIRST, "0.bias", LAST, "2.bias"}
    pol.merge(model, optimizer=sgd)
    for name, value in seen.items():
        assert torch.equal(dense[name], value)
        assert torch.equal(model.state_dict()[name], value)
    fit(model, [sgd], 2)


@each_form
@pytest.mark.parametrize("into", ["plain", "masked", "sign_in", "thresholded"])
def test_a_checkpoint_loads_into_any_form_with_the_weights_that_forward_used(form, into):
    model, _ = trained(form)
    state = copy.deepcopy(model.state_dict())
    if into == "plain":
        other = network(3)
        other.load_state_dict(pol.dense_state_dict(model))
    else:
        other = masked(1.0, product=into == "sign_in")
        if into == "thresholded":
            threshold_weights(other, None, decay=0.1, s0=-1.0)
        other.load_state_dict(state)
    torch.testing.assert_close(other[0].weight, model[0].weight, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(other[2].weight, model[2].weight, rtol=1e-5, atol=1e-7)


def test_masked_and_dense_checkpoints_load_into_a_thresholded_model():
    for source in (network(3), masked(0.5), masked(0.5, product=True)):
        model, _ = trained("plain")
        model.load_state_dict(source.state_dict())
        torch.testing.assert_close(model[0].weight, source[0].weight, rtol=1e-5, atol=1e-7)


@each_form
def test_files_restore_a_thresholded_model_and_give_others_the_shrunk_weights(form, tmp_path):
    model, _ = trained(form)
    path = tmp_path / "model.safetensors"
    pol.save(model, path)
    again = in_form(form)
    threshold_weights(again, None, decay=0.1)
    pol.load(again, path)
    assert torch.equal(again[0].weight, model[0].weight)
    assert again[0].parametrizations.weight[1].s == model[0].parametrizations.weight[1].s
    plain = network(3)
    pol.load(plain, path)
    torch.testing.assert_close(plain[0].weight, model[0].weight, rtol=1e-5, atol=1e-7)
    assert not hasattr(plain[0].parametrizations.weight, "1")


@each_form
def test_a_killed_run_resumes_bit_for_bit(form):
    def start() -> tuple[nn.Sequential, optim.SGD]:
        model = in_form(form)
        sgd = sgd_of(model)
        threshold_weights(model, sgd, decay=0.01, s0=-3.0)
        return model, sgd

    model, sgd = start()
    fit(model, [sgd], 7)
    buffer = io.BytesIO()
    torch.save({"model": model.state_dict(), "sgd": sgd.state_dict()}, buffer)
    fit(model, [sgd], 5)
    buffer.seek(0)
    saved = torch.load(buffer, weights_only=True)
    again, other = start()
    again.load_state_dict(saved["model"])
    other.load_state_dict(saved["sgd"])
    fit(again, [other], 5)
    assert fingerprint(again.state_dict()) == fingerprint(model.state_dict())
    assert fingerprint(other.state_dict()["state"]) == fingerprint(sgd.state_dict()["state"])


def test_a_copy_has_thresholds_of_its_own():
    model, _ = trained("plain")
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin[0].parametrizations.weight[1].s.fill_(10.0)
    assert soft_density(twin) < soft_density(model)
    extract_soft_mask(twin)
    assert pol.density(model) == 1.0


def test_a_tied_weight_has_one_threshold_for_all_its_users():
    model = seeded(Twins())
    s = threshold_weights(model, None, decay=0.1, s0=-2.0)
    assert len(s) == len(list(s.values())) == 1
    assert model.first.parametrizations.weight[1] is model.second.parametrizations.weight[1]
    x = torch.randn(3, 5)
    out = model(x)
    extract_soft_mask(model)
    torch.testing.assert_close(model(x), out)
    pol.merge(model)
    assert model.first.weight is model.second.weight


def test_sign_in_models_are_rescaled_under_their_thresholds():
    model, _ = trained("sign_in")
    x, _ = next(batches())
    out = model(x)
    pol.rescale(model)
    torch.testing.assert_close(model(x), out)
    with pytest.raises(ValueError, match="SoftThreshold"):
        pol.sign_in(trained("masked")[0])


def test_pruning_keeps_the_largest_shrunk_entries_and_pruned_ones_stay_zero():
    model, sgd = trained("plain")
    large = (model[0].weight.abs() > 0) & (model[0].weight.abs() >= model[0].weight.abs().median())
    pol.imp_prune(model, density=0.2, scope="layer", optimizer=sgd)
    assert pol.density(model) == 0.2
    assert bool((pol.masks(model)[FIRST] <= large).all())
    fit(model, [sgd], 5)
    assert not model[0].weight[~pol.masks(model)[FIRST]].any()


@each_form
def test_signs_tickets_and_starts_write_what_forward_then_shows(form):
    init = pol.RewindPoint.capture(network(3))
    for write in (
        lambda m: pol.reinit_signs(m, "mask1", init=init),
        lambda m: pol.signed_mask(masked(0.3)).apply(m),
        lambda m: pol.start_from_signs(m, init, pol.masks(masked(0.3))),
        lambda m: pol.start_from_magnitudes(m, init, pol.masks(masked(0.3))),
    ):
        model = in_form(form)
        expected = copy.deepcopy(model)
        threshold_weights(model, None, decay=0.1)
        with torch.no_grad():  # from the same effective weights
            for name in (FIRST, LAST):
                layer = model[int(name[0])]
                layer.weight = expected[int(name[0])].weight.detach().clone()
        pol.mask_weights(expected)
        for each in (model, expected):
            torch.manual_seed(0)
            write(each)
        for one, other in ((model[0], expected[0]), (model[2], expected[2])):
            torch.testing.assert_close(one.weight, other.weight, rtol=1e-5, atol=1e-6)


def test_rescaling_on_a_schedule_goes_on_under_thresholds():
    model = in_form("sign_in")
    sgd = sgd_of(model)
    threshold_weights(model, sgd, decay=0.01, s0=-3.0)
    schedule = pol.RescaleSchedule(model, every=1, optimizer=sgd)
    for _ in range(3):
        fit(model, [sgd], 2)
        seen = model[0].weight.detach().clone()
        schedule.step()
        torch.testing.assert_close(model[0].weight.detach(), seen, rtol=1e-5, atol=1e-7)
    assert soft_density(model) < pol.density(model)


def test_rewinding_gives_back_the_shrunk_weights_of_the_moment():
    model, sgd = trained("plain")
    point = pol.RewindPoint.capture(model)
    seen = model[0].weight.detach().clone()
    fit(model, [sgd], 3)
    point.restore_weights(model)
    torch.testing.assert_close(model[0].weight.detach(), seen, rtol=1e-5, atol=1e-7)


def test_flips_are_seen_through_the_support_with_the_signs_before_the_threshold():
    model = network()
    threshold_weights(model, None, decay=0.1, s0=-1.0)  # 0.27: most entries are below it
    tracker = pol.SignTracker(model)
    before = weights_before_threshold(model)
    assert all(
        torch.equal(signs, before[name].sign().to(torch.int8))
        for name, signs in tracker.signs("init").items()
    )
    with torch.no_grad():
        model[0].parametrizations.weight.original.mul_(-4)
    support = soft_mask(model)
    report = tracker.flips()
    assert report[FIRST].flipped == report[FIRST].survivors == int(support[FIRST].sum())
    after = pol.RewindPoint.capture(model)
    assert pol.sign_flips(after, model)[FIRST].survivors == int(support[FIRST].sum())


def test_sharpness_is_that_of_the_extracted_model():
    pytest.importorskip("scipy")
    model, _ = trained("plain")
    data = [next(batches())]
    sharp = pol.sharpness(model, nn.CrossEntropyLoss(), data)
    extract_soft_mask(model)
    assert pol.sharpness(model, nn.CrossEntropyLoss(), data) == pytest.approx(sharp, rel=1e-4)


def test_masking_in_the_step_goes_with_thresholds():
    results = []
    for in_step in (False, True):
        model = masked(0.5)
        sgd = sgd_of(model)
        threshold_weights(model, sgd, decay=0.01, s0=-3.0)
        handle = pol.enforce_in_step(model, sgd) if in_step else None
        fit(model, [sgd], 5)
        if handle is not None:
            handle.remove()
        results.append(model[0].weight.detach())
    torch.testing.assert_close(results[0], results[1])


def test_autocast_and_float64_keep_s_in_at_least_float32():
    model = network().to(torch.bfloat16)
    assert threshold_weights(model, None, decay=0.1)[FIRST].dtype == torch.float32
    assert threshold_weights(network().double(), None, decay=0.1)[FIRST].dtype == torch.float64
    model, _ = trained("plain")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(next(batches())[0])
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert model[0].parametrizations.weight[1].s.grad.dtype == torch.float32
