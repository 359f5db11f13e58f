"""threshold_weights: what it attaches and gives to whom."""

import copy
import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn, optim
from torch.nn.functional import cross_entropy
from torch.nn.utils.parametrize import register_parametrization

import polarity as pol
from polarity.dense_to_sparse import (
    extract_soft_mask,
    soft_density,
    soft_mask,
    threshold_report,
    threshold_weights,
    weights_before_threshold,
)
from tests.dense_to_sparse.cases import FIRST, LAST, batches, masked, network
from tests.laws.refusals import fingerprint
from tests.models import seeded

each_form = pytest.mark.parametrize("form", ["plain", "masked", "sign_in"])


def in_form(form: str) -> nn.Sequential:
    return network() if form == "plain" else masked(0.6, product=form == "sign_in")


def sgd_of(model: nn.Module, **options: float) -> optim.SGD:
    return optim.SGD(model.parameters(), **{"lr": 0.1, "momentum": 0.9, **options})


def fit(model: nn.Module, optimizers: list[optim.Optimizer], steps: int) -> None:
    for _, (x, y) in zip(range(steps), batches(), strict=False):
        for each in optimizers:
            each.zero_grad()
        cross_entropy(model(x), y).backward()
        for each in optimizers:
            each.step()


def trained(form: str, s0: float = -3.0) -> tuple[nn.Sequential, optim.SGD]:
    model = in_form(form)
    sgd = sgd_of(model)
    threshold_weights(model, sgd, decay=0.01, s0=s0)
    fit(model, [sgd], 20)
    return model, sgd


@each_form
def test_attaching_adds_s_in_a_group_of_its_own_and_writes_no_weight(form):
    model = in_form(form)
    sgd = sgd_of(model, weight_decay=1e-4)
    leaves = {id(p): p.detach().clone() for p in model.parameters()}
    before = {name: t.weight.clone() for name, t in pol.find_targets(model).items()}
    s = threshold_weights(model, sgd, decay=0.02, lr=0.5)
    assert list(s) == [FIRST, LAST]
    own = sgd.param_groups[-1]
    assert [id(p) for p in own["params"]] == [id(p) for p in s.values()]
    assert (own["weight_decay"], own["lr"], own["momentum"]) == (0.02, 0.5, 0.9)
    assert sgd.param_groups[0]["weight_decay"] == 1e-4
    assert all(p.shape == (1,) and p.item() == -8.0 for p in s.values())
    kept = {id(p): p for p in model.parameters() if id(p) in leaves}
    assert len(kept) == len(leaves)
    assert all(torch.equal(kept[key], value) for key, value in leaves.items())
    for name, value in weights_before_threshold(model).items():
        assert torch.equal(value, before[name])


@each_form
def test_a_step_follows_autograd_by_hand_on_the_weight_and_on_s(form):
    model = in_form(form)
    sgd = sgd_of(model, momentum=0.0, lr=0.1)
    s = threshold_weights(model, sgd, decay=0.3, lr=0.2, s0=-2.0)
    x, y = next(batches())
    cross_entropy(model(x), y).backward()
    gradient, start = s[FIRST].grad.item(), s[FIRST].item()
    w = weights_before_threshold(model)[FIRST].double().requires_grad_()
    free = torch.tensor([start], dtype=torch.float64, requires_grad=True)
    hidden = x.double() @ (w.sign() * (w.abs() - free.sigmoid()).clamp(min=0)).T
    hidden = (hidden + model[0].bias.double()).relu()
    out = hidden @ model[2].weight.double().detach().T + model[2].bias.double()
    cross_entropy(out, y).backward()
    assert gradient == pytest.approx(free.grad.item(), rel=1e-4)
    sgd.step()
    assert s[FIRST].item() == pytest.approx(start - 0.2 * (gradient + 0.3 * start), rel=1e-6)


def test_the_parametrization_is_found_with_the_call_that_attaches_it():
    assert pol.dense_to_sparse.SoftThreshold is pol.SoftThreshold


def test_first_and_last_layer_can_be_left_dense():
    three = lambda: nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 2))  # noqa: E731
    for first, last, names in (
        (True, True, ["0.weight", "1.weight", "2.weight"]),
        (False, True, ["1.weight", "2.weight"]),
        (True, False, ["0.weight", "1.weight"]),
        (False, False, ["1.weight"]),
    ):
        model = three()
        s = threshold_weights(model, None, decay=0.1, first_layer=first, last_layer=last)
        assert list(s) == list(pol.masks(model)) == names
    with pytest.raises(ValueError, match="first_layer=False and last_layer=False leave nothing"):
        threshold_weights(network(), None, decay=0.1, first_layer=False, last_layer=False)
    assert list(threshold_weights(network(), None, decay=0.1, exclude="2")) == [FIRST]


@pytest.mark.parametrize("kind", [optim.Adam, optim.AdamW])
def test_other_optimizers_are_refused_with_a_remedy_that_works(kind):
    model = network()
    adam = kind(model.parameters(), 0.01)
    state = fingerprint(model.state_dict())
    with pytest.raises(
        ValueError, match=rf"optimizer={kind.__name__}, expected SGD.*SGD\(s\.values"
    ):
        threshold_weights(model, adam, decay=0.1)
    assert fingerprint(model.state_dict()) == state
    assert len(adam.param_groups) == 1
    s = threshold_weights(model, None, decay=0.1)
    sgd = optim.SGD(s.values(), lr=0.1, momentum=0.9, weight_decay=0.01)
    fit(model, [adam, sgd], 50)
    assert all(-7.9 < p.item() < -3 for p in s.values())


def test_in_a_list_of_optimizers_the_first_sgd_takes_s():
    model = network()
    adam = optim.Adam([model[0].weight, model[2].weight], 0.01)
    sgd = optim.SGD([model[0].bias, model[2].bias], lr=0.1)
    threshold_weights(model, [adam, sgd], decay=0.1)
    assert (len(adam.param_groups), len(sgd.param_groups)) == (1, 2)


def test_a_scheduler_that_is_there_already_is_refused_and_one_built_later_moves_s():
    model = network()
    sgd = sgd_of(model)
    optim.lr_scheduler.StepLR(sgd, 1)
    with pytest.raises(ValueError, match="before building the scheduler"):
        threshold_weights(model, sgd, decay=0.1)
    assert not hasattr(model[0], "parametrizations")
    model = network()
    sgd = sgd_of(model)
    threshold_weights(model, sgd, decay=0.1)
    steps = optim.lr_scheduler.StepLR(sgd, 1, gamma=0.5)
    fit(model, [sgd], 1)
    steps.step()
    assert sgd.param_groups[-1]["lr"] == 0.05


def decayed(s0: float, lr: float, decay: float, momentum: float, steps: int) -> float:
    """Return where SGD with momentum brings s that has no loss gradient."""
    s = nn.Parameter(torch.full((1,), s0))
    sgd = optim.SGD([s], lr=lr, momentum=momentum, weight_decay=decay)
    for _ in range(steps):
        s.grad = torch.zeros(1)
        sgd.step()
    return s.item()


@pytest.mark.parametrize(("decay", "reaches"), [(2.25e-5, False), (1e-3, False), (5e-3, True)])
def test_it_warns_where_decay_cannot_bring_s_above_minus_fifteen(decay, reaches):
    # 2,340 steps under a cosine count as half of them
    model, steps = network(), 1170
    sgd = sgd_of(model)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        threshold_weights(model, sgd, decay=decay, s0=-3200.0, steps=steps)
    assert (not caught) == reaches
    end = decayed(-3200.0, 0.1, decay, 0.9, steps)
    assert (end > -15) == reaches
    if caught:
        said = float(str(caught[0].message).split(" at best")[0].split()[-1])
        assert said == pytest.approx(end, rel=0.02)
        assert caught[0].filename == __file__


def test_without_decay_a_far_start_warns_and_a_near_one_never_does():
    model = network()
    with pytest.warns(UserWarning, match="decay=0.0 brings s from s0=-3200"):
        threshold_weights(model, sgd_of(model), decay=0.0, s0=-3200.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = network()
        threshold_weights(model, sgd_of(model), decay=0.0, steps=1)
        model = network()
        threshold_weights(model, sgd_of(model), decay=1e-9, s0=-3200.0)  # steps unknown


def test_a_warning_made_an_error_leaves_model_and_optimizer_as_they_were():
    model = network()
    sgd = sgd_of(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="raise decay"):
            threshold_weights(model, sgd, decay=0.0, s0=-3200.0)
    assert len(sgd.param_groups) == 1
    assert not hasattr(model[0], "parametrizations")


@each_form
def test_density_and_mask_are_what_forward_shows(form):
    model, _ = trained(form)
    seen = {FIRST: model[0].weight != 0, LAST: model[2].weight != 0}
    assert {name: mask.tolist() for name, mask in soft_mask(model).items()} == {
        name: mask.tolist() for name, mask in seen.items()
    }
    live = sum(int(mask.sum()) for mask in seen.values())
    assert soft_density(model) == live / 160
    before = sum(int(mask.sum()) for mask in pol.masks(model).values())
    assert live < before == pytest.approx(160 * pol.density(model))
    assert form != "plain" or before == 160
    report = threshold_report(model)
    row = report[FIRST]
    s = model[0].parametrizations.weight[1].s
    assert (row.survivors, row.s) == (int(seen[FIRST].sum()), s.item())
    assert row.threshold == pytest.approx(s.sigmoid().item())
    assert report.to_dict()["density"] == soft_density(model)


@each_form
def test_extraction_makes_an_ordinary_masked_model_that_computes_the_same(form):
    model, sgd = trained(form)
    x, _ = next(batches())
    out, mask, density = model(x), soft_mask(model), soft_density(model)
    report = extract_soft_mask(model, sgd)
    torch.testing.assert_close(model(x), out)
    assert report.density == density == pol.density(model)
    assert all(torch.equal(now, mask[name]) for name, now in pol.masks(model).items())
    for layer in (model[0], model[2]):
        chain = layer.parametrizations.weight
        assert len(chain) == 1
        for name, leaf in chain.named_parameters():
            assert not leaf[chain[0].mask == 0].any(), name
            assert not sgd.state[leaf]["momentum_buffer"][chain[0].mask == 0].any()
    assert sgd.param_groups[-1]["params"] == []
    assert len(sgd.state) == len(list(model.parameters()))
    fit(model, [sgd], 5)
    assert all(torch.equal(now, mask[name]) for name, now in pol.masks(model).items())
    seen = model(x).detach()
    pol.merge(model, optimizer=sgd)
    torch.testing.assert_close(model(x).detach(), seen)
    assert list(model.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]


def test_after_extraction_a_scheduler_and_a_fused_optimizer_go_on():
    model = network()
    sgd = optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=True)
    threshold_weights(model, sgd, decay=0.01, s0=-3.0)
    steps = optim.lr_scheduler.CosineAnnealingLR(sgd, 10)
    fit(model, [sgd], 3)
    steps.step()
    extract_soft_mask(model, sgd)
    fit(model, [sgd], 3)
    steps.step()
    assert sgd.param_groups[0]["lr"] == sgd.param_groups[-1]["lr"]
    sgd.load_state_dict(copy.deepcopy(sgd.state_dict()))
    fit(model, [sgd], 1)


class Other(nn.Module):
    def forward(self, weight):
        return weight * 2


def refuse(call, model, error, match):
    before = fingerprint(model.state_dict()), [type(m) for m in model.modules()]
    with pytest.raises(error, match=match):
        call()
    assert (fingerprint(model.state_dict()), [type(m) for m in model.modules()]) == before


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"decay": -1.0}, ValueError, "decay=-1.0"),
        ({"decay": "a"}, TypeError, "decay='a'"),
        ({"decay": math.inf}, ValueError, "decay=inf"),
        ({"decay": 0.1, "lr": -1}, ValueError, "lr=-1"),
        ({"decay": 0.1, "s0": math.nan}, ValueError, "s0=nan"),
        ({"decay": 0.1, "steps": -5}, ValueError, "steps=-5"),
        ({"decay": 0.1, "targets": "nothing"}, ValueError, "nothing"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, error, match):
    model = network()
    sgd = sgd_of(model)
    refuse(lambda: threshold_weights(model, sgd, **arguments), model, error, match)
    assert len(sgd.param_groups) == 1


def test_what_cannot_be_thresholded_is_refused():
    model, sgd = trained("plain")
    call = lambda: threshold_weights(model, sgd, decay=0.1)  # noqa: E731
    with pytest.raises(ValueError, match="has a soft threshold already"):
        call()
    model = masked()
    register_parametrization(model[0], "weight", Other())
    refuse(lambda: threshold_weights(model, None, decay=0.1), model, ValueError, "Other")
    other = sgd_of(network(1))
    model = network()
    refuse(lambda: threshold_weights(model, other, decay=0.1), model, ValueError, "holds none")
    refuse(lambda: extract_soft_mask(masked()), masked(), ValueError, "expected one with a soft")
    model, _ = trained("plain")
    refuse(lambda: extract_soft_mask(model, other), model, ValueError, "holds none")
    with pytest.raises(ValueError, match="no masked weights"):
        soft_density(network())


def test_numpy_sees_the_support_of_a_large_layer():
    model = seeded(nn.Sequential(nn.Linear(700, 300), nn.Linear(300, 10)))
    threshold_weights(model, None, decay=0.1, s0=-4.0)
    stored = weights_before_threshold(model)["0.weight"].double().numpy()
    expected = np.abs(stored) > 1 / (1 + math.exp(4.0))
    near = np.isclose(np.abs(stored), 1 / (1 + math.exp(4.0)), rtol=1e-6)
    assert (soft_mask(model)["0.weight"].numpy() == expected)[~near].all()
    assert 0 < expected.mean() < 1
