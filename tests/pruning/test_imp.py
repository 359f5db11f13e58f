"""Rounds of pruning: how many live afterwards, what is refused, and what is left in memory."""

import copy
import gc
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils import prune as torch_prune

import polarity as pol
from tests.forms import half_masked, half_remembered
from tests.helpers import build, feed, plain_state, same_state, tensor_at, train, train_step
from tests.models import KINDS, Kind, noise, seeded

INPUTS = noise(4, 6)(torch.Generator().manual_seed(2))


def small(seed: int = 0) -> nn.Sequential:
    return seeded(nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)), seed)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=4), st.sampled_from(["global", "layer"]))
def test_every_round_takes_exactly_its_share_of_the_survivors(
    amounts: list[float], scope: Any
) -> None:
    model = pol.mask_weights(small())
    alive = [45] if scope == "global" else [30, 15]
    for amount in amounts:
        before = pol.masks(model)
        report = pol.imp_prune(model, amount, scope=scope)
        alive = [n - round(amount * n) for n in alive]
        masks = pol.masks(model)
        assert report.survivors == sum(int(mask.sum()) for mask in masks.values()) == sum(alive)
        if scope == "layer":
            assert [row.after for row in report] == alive
        assert not any(bool((masks[name] & ~before[name]).any()) for name in masks)


@pytest.mark.parametrize("prune", [pol.imp_prune, pol.lrr_step], ids=["imp_prune", "lrr_step"])
def test_a_fifth_goes_where_nothing_else_is_said(prune: Any) -> None:
    model = small()
    report = prune(model, rewind=pol.RewindPoint.capture(model))
    assert (report.before, report.survivors) == (45, 36)
    assert [(row.name, row.shape, row.total) for row in report] == [
        ("0.weight", (5, 6), 30),
        ("2.weight", (3, 5), 15),
    ]


@pytest.mark.parametrize("density", [0.0, 0.1, 1 / 3, 0.5, 1.0])
def test_a_density_is_a_share_of_all_entries_whatever_lives_now(density: float) -> None:
    model = pol.mask_weights(small())
    pol.imp_prune(model, 0.0)
    assert pol.imp_prune(model, density=density).survivors == round(density * 45)
    assert pol.density(model) == round(density * 45) / 45


def test_the_smallest_weights_go_whichever_layer_they_are_in() -> None:
    model, twin = small(), small()
    parameters = [(twin[0], "weight"), (twin[2], "weight")]
    for amount in (0.3, 0.4):
        pol.imp_prune(model, amount)
        torch_prune.global_unstructured(parameters, torch_prune.L1Unstructured, amount=amount)
    for name, mask in pol.masks(model).items():
        assert torch.equal(mask, twin.get_buffer(f"{name}_mask").bool())


def test_a_plain_model_is_masked_on_the_way() -> None:
    model = small()
    pol.imp_prune(model, 0.2)
    assert parametrize.is_parametrized(model[0], "weight")
    assert pol.density(model) == 0.8


def test_a_score_of_ones_own_decides_and_draws_from_the_generator() -> None:
    def drawn(name: str, weight: Tensor, *, generator: torch.Generator) -> Tensor:
        seen.append(name)
        return torch.rand(weight.shape, generator=generator)

    seen: list[str] = []
    models = [small(), small()]
    for model in models:
        pol.imp_prune(model, 0.5, score=drawn, generator=torch.Generator().manual_seed(3))
    assert seen == ["0.weight", "2.weight"] * 2
    draw = torch.Generator().manual_seed(3)
    scores = torch.cat([torch.rand(shape, generator=draw).flatten() for shape in ((5, 6), (3, 5))])
    kept = torch.zeros(45, dtype=torch.bool)
    kept[scores.argsort(descending=True)[:23]] = True
    for model in models:
        masks = torch.cat([mask.flatten() for mask in pol.masks(model).values()])
        assert torch.equal(masks, kept)


def test_a_mask_that_is_not_enforced_lets_every_entry_compete_again() -> None:
    model = half_remembered(small())
    report = pol.imp_prune(model, density=0.5)
    assert (
        pol.masks(model).keys() == pol.masks(pol.imp_prune(small(), density=0.5) and model).keys()
    )
    fresh = small()
    pol.imp_prune(fresh, density=0.5)
    for name, mask in pol.masks(fresh).items():
        assert torch.equal(pol.masks(model)[name], mask)
    assert report.survivors == 22
    assert not model[0].weight[~pol.masks(model)["0.weight"]].any()


@pytest.mark.parametrize("handed", ["both", "none", "optimizer", "scheduler"])
def test_the_notes_say_what_was_rewound_and_what_was_not(handed: str) -> None:
    model = pol.mask_weights(small())
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    steps = torch.optim.lr_scheduler.StepLR(sgd, 1)
    start = pol.RewindPoint.capture(model, sgd, steps)
    how = {
        "optimizer": sgd if handed in ("both", "optimizer") else None,
        "scheduler": steps if handed in ("both", "scheduler") else None,
    }
    notes = str(pol.lrr_step(model, rewind=start, **how)).splitlines()
    for role, value in how.items():
        expected = f"rewound: {role}" if value is not None else f"not rewound: {role} (none given)"
        assert expected in notes


def with_nan(model: nn.Module) -> None:
    with torch.no_grad():
        model[2].weight[1, 1] = math.nan


BAD: dict[str, Any] = {
    "both": ({"amount": 0.2, "density": 0.5}, r"amount=0\.2, density=0\.5"),
    "amount_above_one": ({"amount": 1.5}, r"amount=1\.5.*\[0, 1\]"),
    "amount_below_zero": ({"amount": -0.1}, r"amount=-0\.1.*\[0, 1\]"),
    "amount_nan": ({"amount": math.nan}, "amount=nan"),
    "density_above_one": ({"density": 2.0}, r"density=2\.0.*\[0, 1\]"),
    "scope": ({"scope": "model"}, "scope='model'"),
    "score_shape": ({"score": lambda name, w: w.abs()[:1]}, r"0\.weight.*\(1, 6\).*\(5, 6\)"),
    "score_nan": ({"score": lambda name, w: w * math.nan}, r"0\.weight.*NaN"),
    "scheduler": ({"scheduler": "steps"}, "scheduler=StepLR is given without rewind"),
}


@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
@pytest.mark.parametrize("bad", BAD)
def test_bad_input_is_named_and_leaves_model_masks_and_optimizer_untouched(
    bad: str, masked: bool
) -> None:
    model = half_masked(small()) if masked else small()
    sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    train_step(model, sgd, INPUTS)
    steps = torch.optim.lr_scheduler.StepLR(sgd, 1)
    how, named = BAD[bad]
    how = how | ({"scheduler": steps} if "scheduler" in how else {})
    before, state = plain_state(model), copy.deepcopy(sgd.state_dict())
    with pytest.raises(ValueError, match=named):
        pol.imp_prune(model, optimizer=sgd, **how)
    assert same_state(plain_state(model), before)
    assert repr(sgd.state_dict()) == repr(state)
    assert parametrize.is_parametrized(model[0]) == masked


@pytest.mark.parametrize("score", [pol.scores.magnitude, lambda name, w: torch.ones_like(w)])
def test_weights_that_are_not_finite_are_refused_by_name_whatever_the_score(score: Any) -> None:
    model = small()
    with_nan(model)
    with pytest.raises(ValueError, match=r"2\.weight.*1 NaN"):
        pol.imp_prune(model, 0.2, score=score)
    assert not parametrize.is_parametrized(model[0])


def test_a_density_above_the_present_one_is_refused_with_both() -> None:
    model = pol.mask_weights(small())
    pol.imp_prune(model, density=0.4)
    masks = pol.masks(model)
    with pytest.raises(ValueError, match=r"density=0\.6.*27 of 45.*at most the 18 live.*0\.4"):
        pol.imp_prune(model, density=0.6)
    assert all(torch.equal(pol.masks(model)[name], mask) for name, mask in masks.items())


def test_an_amount_of_a_mask_that_is_not_enforced_is_refused() -> None:
    model = half_remembered(small())
    before = plain_state(model)
    with pytest.raises(ValueError, match=r"amount=0\.2.*0\.weight.*density="):
        pol.imp_prune(model, 0.2)
    assert same_state(plain_state(model), before)


@pytest.mark.parametrize("call", [pol.imp_prune, pol.lrr_step], ids=["imp_prune", "lrr_step"])
def test_a_rewind_point_is_a_rewind_point(call: Any) -> None:
    model = small()
    with pytest.raises(TypeError, match="rewind is an OrderedDict, expected a RewindPoint"):
        call(model, 0.2, rewind=model.state_dict())
    assert not parametrize.is_parametrized(model[0])


def test_a_model_without_prunable_weights_is_refused() -> None:
    with pytest.raises(ValueError, match="ReLU has no prunable weights"):
        pol.imp_prune(nn.ReLU())


def living_tensors() -> tuple[int, int]:
    """Return how many tensors were made since the freeze, and how many bytes they hold."""
    gc.collect()
    found = [each for each in gc.get_objects() if issubclass(type(each), Tensor)]
    found = [each for each in found if each.layout is torch.strided]
    return len(found), sum(each.untyped_storage().nbytes() for each in found)


@pytest.fixture
def frozen() -> Iterator[None]:
    """Leave what other tests have in memory out of sight: it takes seconds to walk through."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("frozen")
@pytest.mark.parametrize(
    "kind",
    [kind for kind in KINDS if kind.name in ("conv2d", "lstm", "tied", "transformer")],
    ids=lambda kind: kind.name,
)
def test_rounds_of_pruning_leave_nothing_behind_in_memory(kind: Kind) -> None:
    model, inputs = pol.mask_weights(build(kind)), feed(kind)
    sgd = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    train_step(model, sgd, inputs)
    start = pol.RewindPoint.capture(model, sgd)
    sizes = []
    for _ in range(4):
        train_step(model, sgd, inputs)
        pol.imp_prune(model, 0.1, rewind=start, optimizer=sgd)
        train_step(model, sgd, inputs)
        pol.lrr_step(model, 0.1, rewind=start, optimizer=sgd)
        pol.reinit_signs(model, "gradual", pol.Epsilon(0.2), init=start)
        pol.masks(model), pol.dense_state_dict(model), copy.deepcopy(model)
        sizes.append(living_tensors())
    assert len({count for count, _ in sizes[1:]}) == 1, sizes
    assert sizes[-1][1] <= sizes[1][1], sizes


def test_three_rounds_can_be_attached_pruned_and_merged_again_and_again() -> None:
    model = small()
    start = pol.RewindPoint.capture(model)
    for count in (36, 29, 23):
        pol.mask_weights(model)
        masks = pol.masks(model)
        pol.imp_prune(train(copy.deepcopy(model), INPUTS), 0.5)
        assert all(torch.equal(pol.masks(model)[name], mask) for name, mask in masks.items())
        pol.imp_prune(train(model, INPUTS), 0.2, rewind=start)
        assert sum(int(mask.sum()) for mask in pol.masks(model).values()) == count
    pol.merge(model)
    alive = [tensor_at(model, name) != 0 for name in ("0.weight", "2.weight")]
    assert sum(int(each.sum()) for each in alive) == 23
    assert torch.equal(model[0].weight, start.weights["0.weight"] * alive[0])
