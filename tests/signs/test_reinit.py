"""reinit_signs on models: what it writes and leaves, and how `standard` goes on."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import polarity as pol
from polarity import Delta, Epsilon, Phi
from tests.models import generator as seeded
from tests.models import redraw

STRATEGIES = ["mask1", "mask0", "gradual", "standard"]
each_strategy = pytest.mark.parametrize("strategy", STRATEGIES)


@pytest.fixture
def trained(net, start) -> dict[str, Tensor]:
    """What training left in the prunable weights; masks are on and nothing is pruned yet."""
    redraw(net, 2)
    pol.mask_weights(net)
    return weights(net)


def for_strategy(strategy: str, trained: dict[str, Tensor]) -> dict[str, object]:
    """What else ``reinit_signs`` is given for a strategy."""
    return {"trained": trained} if strategy == "standard" else {}


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: target.weight.clone() for name, target in pol.find_targets(model).items()}


def differing(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]


@each_strategy
@pytest.mark.parametrize("as_mapping", [False, True])
def test_the_model_gets_what_the_pure_function_returns(net, start, trained, strategy, as_mapping):
    pol.imp_prune(net, density=0.4)
    init = start.weights if as_mapping else start
    perturb = [Phi(0.1), Epsilon(0.3), Delta(0.2)]
    expected, said = pol.signed_constants(
        trained, start.weights, pol.masks(net), strategy, perturb, generator=seeded()
    )
    for given in (for_strategy(strategy, trained), {"trained": pol.RewindPoint(trained)}):
        model = copy.deepcopy(net)
        report = pol.reinit_signs(model, strategy, perturb, init=init, generator=seeded(), **given)
        assert differing(weights(model), expected) == []
        assert report == said


@each_strategy
def test_nothing_but_masked_weights_is_touched(net, start, trained, strategy):
    pol.imp_prune(net, 0.5)
    masks, parameters = pol.masks(net), list(net.parameters())
    rest = {name: v.clone() for name, v in net.state_dict().items() if "parametriz" not in name}
    given = for_strategy(strategy, trained)
    pol.reinit_signs(net, strategy, init=start, generator=seeded(), **given)
    after = {name: v for name, v in net.state_dict().items() if "parametriz" not in name}
    assert differing(rest, after) == []
    assert differing(masks, pol.masks(net)) == []
    assert [old is new for old, new in zip(parameters, net.parameters(), strict=True)] == [
        True
    ] * len(parameters)


@pytest.mark.parametrize("strategy", ["mask1", "standard"])
def test_the_points_are_neither_changed_nor_tied_to_the_model(net, start, trained, strategy):
    point = pol.RewindPoint.capture(net)
    before = copy.deepcopy(start.weights), copy.deepcopy(point.weights)
    pol.imp_prune(net, 0.5)
    pol.reinit_signs(net, strategy, init=start, trained=point)
    redraw(net, 5)
    assert differing(before[0], start.weights) == []
    assert differing(before[1], point.weights) == []


@pytest.mark.parametrize("strategy", STRATEGIES[:3])
def test_pruned_entries_stay_zero_and_hidden(net, start, trained, strategy):
    pol.imp_prune(net, 0.5)
    pol.reinit_signs(net, strategy, init=start, generator=seeded())
    for name, mask in pol.masks(net).items():
        target = pol.find_targets(net)[name]
        assert target.stored[0][~mask].count_nonzero() == 0
        assert torch.equal(target.weight != 0, mask)
        assert target.masking.enforce


@pytest.mark.parametrize("how", ["density", "amount", "layer", "lrr", "scores", "densities"])
def test_standard_brings_pruned_entries_back_at_their_trained_value(net, start, trained, how):
    calls = {
        "density": lambda: pol.imp_prune(net, density=0.4),
        "amount": lambda: pol.imp_prune(net, 0.6),
        "layer": lambda: pol.imp_prune(net, 0.6, scope="layer"),
        "lrr": lambda: pol.lrr_step(net, 0.6, rewind=start),
        "scores": lambda: pol.prune(net, trained, density=0.4),
        "densities": lambda: pol.prune(net, trained, densities=dict.fromkeys(trained, 0.4)),
    }
    calls[how]()
    masks = pol.masks(net)
    report = pol.reinit_signs(net, "standard", init=start, trained=trained)
    for layer, (name, weight) in zip(report, weights(net).items(), strict=True):
        mask, sigma = masks[name], float(np.std(start.weights[name].double().numpy()))
        assert torch.equal(weight[~mask], trained[name][~mask])
        assert torch.equal(weight[mask] > 0, trained[name][mask] > 0)
        torch.testing.assert_close(weight[mask].abs(), torch.full((int(mask.sum()),), sigma))
        assert layer.revived == int((~mask).sum())
    assert differing(masks, pol.masks(net)) == []


@pytest.mark.parametrize("form", ["plain", "Sign-In", "half", "channels_last"])
def test_standard_brings_back_the_capture_in_every_form_of_a_weight(net, start, form):
    redraw(net, 2)
    if form == "Sign-In":
        pol.sign_in(net)
    elif form == "half":
        net = net.bfloat16()
    elif form == "channels_last":
        net = net.to(memory_format=torch.channels_last)
    point = pol.RewindPoint.capture(net)
    pol.imp_prune(net, density=0.4)
    masks = pol.masks(net)
    pol.reinit_signs(net, "standard", init=start, trained=point)
    for name, weight in weights(net).items():
        gone = ~masks[name]
        if form == "Sign-In":  # factors of a product round once more
            torch.testing.assert_close(weight[gone], point.weights[name][gone])
        else:
            assert torch.equal(weight[gone], point.weights[name][gone])


def unchanged(net: nn.Module, call, match: str) -> None:
    """Expect a ValueError, and that every parameter and buffer is what it was."""
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(ValueError, match=match):
        call()
    assert differing(before, dict(net.state_dict())) == []
    assert all(target.masking.enforce for target in pol.find_targets(net).values())


def test_standard_without_the_trained_weights_says_which_two_lines_are_missing(net, start, trained):
    pol.imp_prune(net, density=0.4)
    lines = r"immediately before .*trained=.*RewindPoint\.capture\(model\)\s.*trained=trained"
    unchanged(net, lambda: pol.reinit_signs(net, "standard", init=start), f"(?s){lines}")


@each_strategy
def test_survivors_that_were_trained_after_the_capture_are_counted_and_refused(
    net, start, trained, strategy
):
    pol.imp_prune(net, density=0.4)
    target = pol.find_targets(net)["3.weight"]
    survivors = target.mask.nonzero()
    with torch.no_grad():
        for place in survivors[:3]:
            target.stored[0][tuple(place)] += 0.01
    unchanged(
        net,
        lambda: pol.reinit_signs(net, strategy, init=start, trained=trained),
        rf"(?s)3 of {len(survivors)} survivors of '3\.weight' .*immediately before",
    )


@each_strategy
def test_survivors_that_were_signed_after_the_capture_are_refused(net, start, trained, strategy):
    pol.imp_prune(net, density=0.4)
    pol.reinit_signs(net, "mask1", init=start)
    count = int(pol.masks(net)["0.weight"].sum())
    unchanged(
        net,
        lambda: pol.reinit_signs(net, strategy, init=start, trained=trained),
        rf"{count} of {count} survivors of '0\.weight'",
    )


@each_strategy
@pytest.mark.parametrize("form", ["masked", "Sign-In"])
def test_survivors_that_were_rewound_get_the_signs_of_the_capture(net, start, strategy, form):
    redraw(net, 2)
    net = pol.sign_in(net) if form == "Sign-In" else pol.mask_weights(net)
    point = pol.RewindPoint.capture(net)
    other = copy.deepcopy(net)
    pol.imp_prune(net, density=0.4, rewind=start)
    pol.imp_prune(other, density=0.4)
    perturb = [Epsilon(0.3), Delta(0.2)]
    for each in (net, other):
        pol.reinit_signs(each, strategy, perturb, init=start, trained=point, generator=seeded())
    assert differing(weights(net), weights(other)) == []


@pytest.mark.parametrize(
    ("damaged", "words"),
    [
        (lambda t: {"0.weight": t["0.weight"]}, r"trained is missing '3\.weight', which is masked"),
        (lambda t: t | {"3.weight": torch.ones(2, 2)}, r"'3\.weight' in shape \(2, 2\)"),
        (lambda t: t | {"3.weight": t["3.weight"] / 0}, r"trained weight '3\.weight' holds 80"),
    ],
    ids=["missing", "shape", "infinite"],
)
@each_strategy
def test_trained_weights_that_do_not_fit_are_refused(net, start, trained, strategy, damaged, words):
    given = damaged(trained)
    pol.imp_prune(net, density=0.4)
    call = lambda: pol.reinit_signs(net, strategy, init=start, trained=given)  # noqa: E731
    unchanged(net, call, words)


def test_a_reference_of_another_type_is_refused_by_its_own_name(net, start, trained):
    pol.imp_prune(net, density=0.4)
    with pytest.raises(TypeError, match=r"trained is a list, expected a RewindPoint"):
        pol.reinit_signs(net, "standard", init=start, trained=[trained])


def test_standard_remembers_the_masks_without_enforcing_them(net, start, trained):
    pol.imp_prune(net, density=0.4)
    before = pol.density(net)
    pol.reinit_signs(net, "standard", init=start, trained=trained)
    assert pol.density(net) == before
    net(torch.ones(2, 1, 4, 4)).square().sum().backward()
    for target in pol.find_targets(net).values():
        assert not target.masking.enforce
        assert target.stored[0].grad[~target.mask].count_nonzero() > 0


def test_after_standard_only_an_absolute_density_can_be_pruned_to(net, start, trained):
    pol.imp_prune(net, density=0.4)
    pol.reinit_signs(net, "standard", init=start, trained=trained)
    for call in (pol.imp_prune, lambda model, amount: pol.lrr_step(model, amount, rewind=start)):
        with pytest.raises(ValueError, match=r"amount=0\.2 .*'0\.weight'.*density="):
            call(net, 0.2)
    redraw(net, 3)
    now, total = weights(net), 36 + 80
    report = pol.imp_prune(net, density=0.55)
    assert report.survivors == round(0.55 * total)
    # every entry competed, those that had been pruned before too
    magnitudes = torch.cat([each.abs().flatten() for each in now.values()])
    kept = torch.cat([mask.flatten() for mask in pol.masks(net).values()])
    assert magnitudes[kept].min() > magnitudes[~kept].max()
    assert [target.masking.enforce for target in pol.find_targets(net).values()] == [True, True]
    assert pol.imp_prune(net, 0.5).survivors == 32


def test_standard_can_follow_standard(net, start, trained):
    for round_, density in enumerate((0.6, 0.3)):
        redraw(net, 10 + round_)
        now = weights(net)
        pol.imp_prune(net, density=density)
        pol.reinit_signs(net, "standard", init=start, trained=now)
        for name, mask in pol.masks(net).items():
            assert torch.equal(weights(net)[name][~mask], now[name][~mask])


def test_standard_twice_keeps_what_was_trained_in_between(net, start, trained):
    pol.imp_prune(net, density=0.4)
    pol.reinit_signs(net, "standard", init=start, trained=trained)
    redraw(net, 3)
    now = weights(net)
    pol.reinit_signs(net, "standard", init=start, trained=now)
    for name, mask in pol.masks(net).items():
        assert torch.equal(weights(net)[name][~mask], now[name][~mask])


@pytest.mark.parametrize("strategy", STRATEGIES[:3])
def test_the_other_strategies_after_standard_enforce_the_masks_again(net, start, trained, strategy):
    pol.imp_prune(net, density=0.4)
    pol.reinit_signs(net, "standard", init=start, trained=trained)
    pol.reinit_signs(net, strategy, init=start, generator=seeded())
    assert differing(pol.masks(net), {n: w != 0 for n, w in weights(net).items()}) == []
    assert pol.imp_prune(net, 0.5).survivors == 23


def test_standard_brings_back_only_what_the_last_call_pruned(net, start, trained):
    pol.imp_prune(net, 0.5)
    early, point = pol.masks(net), pol.RewindPoint.capture(net)
    pol.imp_prune(net, 0.5)
    assert pol.reinit_signs(net, "standard", init=start, trained=point).revived == 29
    for name, weight in weights(net).items():
        assert torch.equal(weight[~early[name]], torch.zeros(int((~early[name]).sum())))


@pytest.mark.parametrize(
    "fail",
    [
        lambda net, start: pol.reinit_signs(net, "mask2", init=start),
        lambda net, start: pol.reinit_signs(net, "standard", init=start),
        lambda net, start: pol.imp_prune(net, density=0.9),
        lambda net, start: pol.load_masks(net, {"3.weight": torch.ones(2)}),
    ],
)
def test_after_a_call_that_failed_standard_does_what_it_did(net, start, trained, fail):
    pol.imp_prune(net, density=0.5)
    with pytest.raises(ValueError, match=r"mask2|trained|density|shape"):
        fail(net, start)
    report = pol.reinit_signs(net, "standard", init=start, trained=trained)
    assert report.revived == 58


def test_pruning_keeps_nothing_but_the_mask(net, start, trained):
    pol.imp_prune(net, density=0.5)
    buffers = [name for name, _ in net.named_buffers() if "parametrizations" in name]
    assert [name.rpartition(".")[2] for name in buffers] == ["mask", "mask"]


def test_a_tied_weight_is_signed_once_for_all_its_users():
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    net = nn.Sequential(first, second)
    redraw(net, 4)
    start = pol.RewindPoint.capture(net)
    pol.imp_prune(net, 0.5)
    report = pol.reinit_signs(net, "mask1", Epsilon(0.5), init=start, generator=seeded())
    assert (len(report), report.flipped) == (1, 4)
    assert torch.equal(first.weight, second.weight)
