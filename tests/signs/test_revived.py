"""Strategy `standard` with pruned entries back at plus or minus sigma."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor

import polarity as pol
from polarity import Delta, Epsilon, Phi
from tests.models import generator as seeded
from tests.models import redraw
from tests.signs.test_reinit import each_strategy, unchanged, weights
from tests.signs.test_signed_constants import each_dtype, fields


@pytest.fixture
def small() -> tuple[dict[str, Tensor], ...]:
    return fields({"conv": (3, 2, 3, 3), "fc": (7, 5)})


def slow_twin(trained: np.ndarray, init: np.ndarray, mask: np.ndarray, phi: float) -> np.ndarray:
    """Every entry at sigma with the sign of its trained value, but pruned zeros at zero."""
    new = np.where(trained >= phi, np.std(init), -np.std(init))
    return np.where(~mask.astype(bool) & (trained == 0), 0, new)


@each_dtype
@pytest.mark.parametrize("phi", [0.0, 0.25, -0.5])
@pytest.mark.parametrize("perturb", [None, Epsilon(0.5), Delta(0.5)], ids=repr)
def test_revived_at_sigma_every_entry_is_what_a_slow_twin_says(small, perturb, phi, dtype):
    trained, init, masks = (
        {n: t.to(d) for n, t in f.items()}
        for f, d in zip(small, (dtype, dtype, torch.bool), strict=True)
    )
    for name, mask in masks.items():  # an entry that an earlier call pruned
        trained[name].view(-1)[(~mask).view(-1).nonzero()[0]] = 0
    both = {
        revived: pol.signed_constants(
            trained,
            init,
            masks,
            "standard",
            [Phi(phi), perturb],
            revived=revived,
            generator=seeded(),
        )
        for revived in ("sigma", "trained")
    }
    for layer, (name, mask) in zip(both["sigma"][1], masks.items(), strict=True):
        new = both["sigma"][0][name]
        of_numpy = (f[name].double().numpy() for f in (trained, init, masks))
        expected = torch.from_numpy(slow_twin(*of_numpy, phi))
        tolerance = 2 * torch.finfo(dtype).eps
        compared = torch.ones_like(mask) if perturb is None else ~mask  # survivors are perturbed
        torch.testing.assert_close(
            new.double()[compared], expected[compared], rtol=tolerance, atol=0
        )
        # one magnitude in all of the layer, to the bit, and the survivors of the other reading
        assert len(set(new[new != 0].abs().tolist())) == 1
        assert torch.equal(new[mask], both["trained"][0][name][mask])
        assert layer.revived == int((trained[name][~mask] != 0).sum())
    assert both["sigma"][1] == both["trained"][1]


@pytest.mark.parametrize("strategy", ["mask1", "mask0", "gradual", "initial", "trained"])
def test_only_standard_revives_at_sigma(small, strategy):
    with pytest.raises(ValueError, match=f"revived='sigma' with strategy='{strategy}', expected"):
        pol.signed_constants(*small, strategy, revived="sigma")


@each_strategy
@pytest.mark.parametrize("revived", ["zero", None, True])
def test_pruned_entries_are_revived_in_one_of_two_ways(small, strategy, revived):
    with pytest.raises(ValueError, match=r"revived=.*, expected 'trained' or 'sigma'"):
        pol.signed_constants(*small, strategy, revived=revived)


@pytest.mark.parametrize("form", ["plain", "Sign-In", "half", "channels_last"])
@pytest.mark.parametrize("perturb", [None, [Phi(0.1), Epsilon(0.3)]], ids=["none", "perturbed"])
def test_standard_can_bring_pruned_entries_back_at_sigma(net, start, form, perturb):
    redraw(net, 2)
    if form == "Sign-In":
        pol.sign_in(net)
    elif form == "half":
        net = net.bfloat16()
    elif form == "channels_last":
        net = net.to(memory_format=torch.channels_last)
    point = pol.RewindPoint.capture(net)
    pol.imp_prune(net, density=0.4)
    masks, other = pol.masks(net), copy.deepcopy(net)
    given = {"init": start, "trained": point}
    report = pol.reinit_signs(
        net, "standard", perturb, revived="sigma", generator=seeded(), **given
    )
    same = pol.reinit_signs(other, "standard", perturb, generator=seeded(), **given)
    assert report == same
    assert report.revived == 116 - 46
    center = 0.0 if perturb is None else 0.1
    for name, weight in weights(net).items():
        gone, sigma = ~masks[name], float(np.std(start.weights[name].double().numpy()))
        expected = torch.where(point.weights[name] >= center, sigma, -sigma).to(weight.dtype)
        torch.testing.assert_close(weight[gone], expected[gone])
        assert torch.equal(weight[masks[name]], weights(other)[name][masks[name]])
        target = pol.find_targets(net)[name]
        assert not target.masking.enforce
        assert torch.equal(target.mask, masks[name])


def test_an_entry_that_an_earlier_call_pruned_has_no_sign_to_come_back_with(net, start):
    redraw(net, 2)
    pol.imp_prune(net, 0.5)
    early, point = pol.masks(net), pol.RewindPoint.capture(net)
    pol.imp_prune(net, 0.5)
    report = pol.reinit_signs(net, "standard", init=start, trained=point, revived="sigma")
    assert report.revived == 29
    for name, weight in weights(net).items():
        assert torch.equal(weight != 0, early[name])


@pytest.mark.parametrize("strategy", ["mask1", "mask0", "gradual"])
def test_only_standard_revives_at_sigma_and_leaves_a_model_as_it_was(net, start, strategy):
    redraw(net, 2)
    pol.imp_prune(net, density=0.4)
    unchanged(
        net,
        lambda: pol.reinit_signs(net, strategy, init=start, revived="sigma"),
        f"revived='sigma' with strategy='{strategy}', expected strategy 'standard'",
    )
