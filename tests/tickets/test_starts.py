"""The starts of Table 1: a learned mask with signs, magnitudes or nothing of a moment."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import polarity as pol
from polarity.dense_to_sparse import RigL, soft_mask, threshold_weights, weights_before_threshold
from tests.forms import random_masks
from tests.helpers import build, feed, plain_state, tensor_at
from tests.laws.refusals import fingerprint
from tests.models import KINDS, Kind, Tied, seeded

every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
FORMS = {
    "plain": lambda model: model,
    "masked": pol.mask_weights,
    "pruned": lambda model: (pol.imp_prune(model, 0.0), model)[1],
    "sign_in": pol.sign_in,
}
each_form = pytest.mark.parametrize("form", FORMS)
INIT = torch.tensor([[0.5, -1.0, 2.0, -0.25, 0.125, -3.0]])
MASK = torch.tensor([[1, 1, 1, 1, 0, 1]])
THEN = torch.tensor([[-0.1, -0.2, 0.0, 0.3, 0.4, 0.0]])  # of epoch k, under another mask


def small(form: str = "plain") -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 1))
    with torch.no_grad():
        model[0].weight.copy_(INIT)
    return FORMS[form](model)


def sources(weights: Tensor) -> dict[str, object]:
    """Return one moment in every form in which signs are taken."""
    run = small()
    with torch.no_grad():
        run[0].weight.copy_(weights)
    tracker, point = pol.SignTracker(run), pol.RewindPoint.capture(run)
    pol.load_masks(run, {"0.weight": weights != 0})
    return {
        "tracker": tracker.signs("init"),
        "ticket": pol.signed_mask(run),
        "point": point,
        "weights": {"0.weight": weights, "0.bias": torch.zeros(1)},
        "signs": {"0.weight": weights.sign().to(torch.int8)},
    }


@each_form
@pytest.mark.parametrize("source", ["tracker", "ticket", "point", "weights", "signs"])
def test_survivors_take_the_signs_of_the_moment_and_keep_their_own_where_there_was_none(
    form, source
):
    model = small(form)
    bias = model[0].bias.detach().clone()
    report = pol.start_from_signs(model, sources(THEN)[source], {"0.weight": MASK})
    expected = torch.tensor([[-0.5, -1.0, 2.0, 0.25, 0.0, -3.0]])
    torch.testing.assert_close(model[0].weight.detach(), expected)
    assert torch.equal(pol.masks(model)["0.weight"], MASK.bool())
    assert torch.equal(model[0].bias, bias)
    assert (report.what, report.survivors, report.missing, report.zeros) == ("signs", 5, 2, 0)
    assert str(report).endswith("started from signs; 2 of 5 survivors had none")


@each_form
def test_survivors_take_the_magnitudes_of_the_moment_with_random_signs_and_zero_without_one(form):
    model = small(form)
    draw = torch.Generator().manual_seed(0)
    point = sources(THEN)["point"]
    report = pol.start_from_magnitudes(model, point, {"0.weight": MASK}, generator=draw)
    expected = torch.tensor([[0.1, 0.2, 0.0, 0.3, 0.0, 0.0]])
    torch.testing.assert_close(model[0].weight.detach().abs(), expected)
    assert (report.survivors, report.missing, report.zeros) == (5, 2, 2)
    assert torch.equal(pol.masks(model)["0.weight"], MASK.bool())
    # what starts at zero is a survivor that learns
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        sgd.zero_grad()
        (model(torch.ones(1, 6)) - 1).square().sum().backward()
        sgd.step()
    assert torch.equal(model[0].weight != 0, MASK.bool())


@each_form
def test_a_mask_alone_leaves_the_survivors_of_the_initialisation(form):
    model = small(form)
    report = pol.start_from_mask(model, {"0.weight": MASK})
    torch.testing.assert_close(model[0].weight.detach(), INIT * MASK)
    assert (report.what, report.survivors, report.missing, report.zeros) == ("mask", 5, 0, 0)
    ticket = sources(THEN)["ticket"]
    model = small(form)
    pol.start_from_mask(model, ticket)
    assert torch.equal(pol.masks(model)["0.weight"], THEN != 0)


@every_kind
@pytest.mark.parametrize("form", ["plain", "sign_in"])
def test_every_network_starts_with_the_signs_magnitudes_and_masks_it_is_given(kind: Kind, form):
    learned = build(kind, 3)
    masks = random_masks(learned, 0.4)
    then = {name: tensor_at(learned, name).detach().clone() for name in masks}
    rounding = {"rtol": 1e-6, "atol": 1e-9} if form == "sign_in" else {"rtol": 0, "atol": 0}
    for what in ("signs", "magnitudes", "mask"):
        fresh = build(kind, 5)
        start = plain_state(fresh)
        FORMS[form](fresh)
        if what == "signs":
            pol.start_from_signs(fresh, then, masks)
        elif what == "magnitudes":
            pol.start_from_magnitudes(fresh, then, masks)
        else:
            pol.start_from_mask(fresh, masks)
        for name, mask in masks.items():
            now = tensor_at(fresh, name).detach()
            magnitudes = then[name] if what == "magnitudes" else start[name]
            np.testing.assert_allclose(now.abs(), magnitudes.abs() * mask, **rounding)
            if what != "magnitudes":
                signs = then[name] if what == "signs" else start[name]
                assert torch.equal(now.sign(), signs.sign() * mask)
        assert all(torch.equal(pol.masks(fresh)[name], mask) for name, mask in masks.items())
        fresh(*feed(kind))


def test_random_signs_are_fair_reproducible_and_a_matter_of_seed_name_and_position():
    def started(seed: int, density: float = 1.0) -> Tensor:
        model = seeded(nn.Sequential(nn.Linear(300, 200)))
        then = {"0.weight": torch.ones(200, 300)}
        masks = random_masks(model, density)
        draw = torch.Generator().manual_seed(seed)
        pol.start_from_magnitudes(model, then, masks, generator=draw)
        return model[0].weight.detach()

    full = started(0)
    assert abs(full.mean()) < 5 / (200 * 300) ** 0.5
    assert torch.equal(full, started(0))
    assert not torch.equal(full, started(1))
    sparse = started(0, 0.3)
    assert torch.equal(sparse[sparse != 0], full[sparse != 0])


def test_by_default_the_signs_follow_the_global_generator():
    def started() -> Tensor:
        model = small()
        pol.start_from_magnitudes(model, {"0.weight": INIT}, {"0.weight": MASK})
        return model[0].weight.detach().clone()

    torch.manual_seed(3)
    first = [started() for _ in range(8)]
    torch.manual_seed(3)
    assert all(torch.equal(each, started()) for each in first)
    assert len({tuple(each.flatten().tolist()) for each in first}) > 1


def test_a_zero_of_the_initialisation_is_counted_because_it_loses_its_sign():
    model = small()
    with torch.no_grad():
        model[0].weight[0, 0] = -0.0
    report = pol.start_from_signs(model, {"0.weight": -torch.ones(1, 6)}, {"0.weight": MASK})
    assert (report.missing, report.zeros) == (0, 1)
    assert not torch.signbit(model[0].weight[0, 0])


def test_rigl_at_epoch_k_has_another_mask_and_the_report_counts_what_it_did_not_have():
    model = seeded(nn.Sequential(nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 4)))
    pol.load_masks(model, random_masks(model, 0.4))
    sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    schedule = RigL(model, sgd, every=2, end=40, fraction=0.5)
    tracker = pol.SignTracker(model)
    for step in range(20):
        if step == 10:
            then, mask_then = pol.RewindPoint.capture(model), pol.masks(model)
            tracker.mark("epoch 10")
        sgd.zero_grad()
        (
            model(torch.randn(8, 12, generator=torch.Generator().manual_seed(step))) - 1
        ).square().mean().backward()
        sgd.step()
        schedule.step()
    masks = pol.masks(model)
    unknown = sum(int((masks[name] & ~mask_then[name]).sum()) for name in masks)
    assert unknown > 0
    fresh = seeded(nn.Sequential(nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 4)), 9)
    assert pol.start_from_signs(fresh, tracker.signs("epoch 10"), masks).missing >= unknown
    signs = pol.start_from_signs(fresh, then, masks)
    magnitudes = pol.start_from_magnitudes(fresh, then, masks)
    assert signs.missing == magnitudes.missing == magnitudes.zeros >= unknown


def test_str_gives_signs_and_magnitudes_to_entries_below_its_threshold():
    run = seeded(nn.Sequential(nn.Linear(12, 10)))
    threshold_weights(run, None, decay=0.1, s0=-1.5)
    tracker, then = pol.SignTracker(run), weights_before_threshold(run)
    masks = {"0.weight": torch.ones(10, 12)}
    assert int(soft_mask(run)["0.weight"].sum()) < 120
    for report in (
        pol.start_from_signs(seeded(nn.Sequential(nn.Linear(12, 10)), 1), tracker.signs(), masks),
        pol.start_from_magnitudes(seeded(nn.Sequential(nn.Linear(12, 10)), 1), then, masks),
    ):
        assert (report.survivors, report.missing) == (120, 0)


def test_weights_that_the_masks_do_not_name_are_left_as_they_are():
    model = seeded(nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 2)))
    start = plain_state(model)
    other = seeded(nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 2)), 1)
    pol.start_from_signs(model, plain_state(other), {"0.weight": torch.ones(5, 6)})
    assert list(pol.masks(model)) == ["0.weight"]
    assert torch.equal(model[1].weight, start["1.weight"])


def test_earlier_masks_are_replaced_and_enforced():
    model = small()
    pol.load_masks(model, {"0.weight": torch.tensor([[1, 1, 0, 0, 1, 1]])})
    report = pol.start_from_signs(model, {"0.weight": THEN}, {"0.weight": MASK})
    assert torch.equal(pol.masks(model)["0.weight"], MASK.bool())
    assert report.zeros == 2  # pruned before, so without a magnitude of their own
    model[0].parametrizations.weight[0].enforce = False
    pol.start_from_mask(model, {"0.weight": MASK})
    assert model[0].parametrizations.weight[0].enforce


def test_a_tied_weight_is_started_once_under_its_own_name():
    model = seeded(Tied())
    name = "encoder.weight"
    masks = {name: torch.ones(7, 5)}
    pol.start_from_signs(model, {name: -torch.ones(7, 5)}, masks)
    assert bool((model.decoder.weight <= 0).all())
    assert torch.equal(model.decoder.weight, model.encoder.weight)


W = "0.weight"
TICKET = pol.SignedMask({W: THEN.sign().to(torch.int8)}, {W: THEN != 0})
BAD = {
    "no masks": (lambda m: pol.start_from_mask(m, {}), ValueError, "masks is empty"),
    "masks of another type": (lambda m: pol.start_from_mask(m, 3), TypeError, "masks"),
    "mask with an unknown name": (
        lambda m: pol.start_from_mask(m, {"9.weight": MASK}), ValueError, "9.weight"),
    "mask of another shape": (
        lambda m: pol.start_from_mask(m, {W: torch.ones(2, 6)}), ValueError, r"\(2, 6\)"),
    "mask of other values": (
        lambda m: pol.start_from_mask(m, {W: MASK * 2}), ValueError, W),
    "no tensor of signs": (
        lambda m: pol.start_from_signs(m, {}, {W: MASK}), ValueError, f"missing '{W}'"),
    "signs of another type": (
        lambda m: pol.start_from_signs(m, 3, {W: MASK}), TypeError, "signs"),
    "signs of another shape": (
        lambda m: pol.start_from_signs(m, {W: torch.ones(6)}, {W: MASK}), ValueError, r"\(6,\)"),
    "signs of NaN": (
        lambda m: pol.start_from_signs(m, {W: THEN * np.nan}, {W: MASK}), ValueError, "NaN"),
    "magnitudes of a ticket": (
        lambda m: pol.start_from_magnitudes(m, TICKET, {W: MASK}),
        TypeError, "has no magnitudes"),
    "magnitudes that are integers": (
        lambda m: pol.start_from_magnitudes(m, {W: MASK}, {W: MASK}), ValueError, "int64"),
    "infinite magnitudes": (
        lambda m: pol.start_from_magnitudes(m, {W: THEN / 0}, {W: MASK}), ValueError, "NaN or inf"),
    "a generator of another type": (
        lambda m: pol.start_from_magnitudes(m, {W: THEN}, {W: MASK}, generator=3),
        TypeError, "generator=3"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
@each_form
def test_bad_input_is_refused_and_leaves_model_and_generator_as_they_were(case, form):
    call, error, match = BAD[case]
    model = small(form)
    before, state = fingerprint(model.state_dict()), torch.get_rng_state()
    modules = [type(each) for each in model.modules()]
    with pytest.raises(error, match=match):
        call(model)
    assert fingerprint(model.state_dict()) == before
    assert [type(each) for each in model.modules()] == modules
    assert torch.equal(torch.get_rng_state(), state)


def test_the_tracker_names_the_moments_that_it_has():
    with pytest.raises(ValueError, match="moment='epoch 3' was not marked"):
        pol.SignTracker(small()).signs("epoch 3")
