"""SET: uniform growth from a seed, the gradient step made first."""

from typing import Any

import pytest
import torch
from torch import nn

import polarity as pol
from polarity.dense_to_sparse import SET, RigL
from tests.dense_to_sparse.cases import (
    FIRST,
    FORMS,
    LAST,
    OPTIMIZERS,
    counts,
    effective,
    in_form,
    leaves,
    masked,
    masking,
    network,
    train,
)


def set_(model: nn.Module, optimizer: str = "sgd", seed: int = 0, **options: Any) -> Any:
    built = OPTIMIZERS[optimizer](model.parameters())
    settings = {"every": 3, "fraction": 0.3, "generator": torch.Generator().manual_seed(seed)}
    return built, SET(model, built, **(settings | options))


def test_the_masks_are_these() -> None:
    """Literals: another order of operations, another draw or another count would change them."""
    model = nn.Linear(4, 3, bias=False)
    weight = torch.tensor([[0.5, -0.1, 0.0, 0.3], [0.0, -0.2, 0.0, 0.7], [0.0, 0.0, -0.4, 0.0]])
    with torch.no_grad():
        model.weight.copy_(weight)
    pol.load_masks(model, {"weight": weight != 0})
    still = torch.optim.SGD(model.parameters(), lr=0.0)
    generator = torch.Generator().manual_seed(0)
    schedule = SET(model, still, every=1, fraction=0.5, generator=generator)
    seen = []
    for _ in range(2):
        still.step()
        report = schedule.step()
        assert report.survivors == 6
        seen.append(pol.masks(model)["weight"].int().tolist())
    assert seen == LITERALS


# Of the uniform scores 0.826, 0.824 and 0.729 are the highest outside {0.5, 0.7, -0.4} at step 1:
# two newborn entries, and -0.1, which was just dropped. At step 2 these are the smallest, and
# 0.952, 0.945 and 0.844 the highest outside.
LITERALS = [
    [[1, 1, 1, 0], [0, 0, 0, 1], [1, 0, 1, 0]],
    [[1, 0, 0, 1], [0, 0, 0, 1], [0, 1, 1, 1]],
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_grown_entries_are_zero_at_birth_with_zero_state_and_grow(
    form: str, optimizer: str
) -> None:
    model, options = in_form(form)
    model[1] = nn.Tanh()  # behind a dead unit nothing moves
    built, schedule = set_(model, optimizer, every=100, begin=4, **options)
    before = pol.masks(model)
    live = counts(model)
    born = {}

    def check(report: Any) -> None:
        nonlocal before
        now = pol.masks(model)
        if report is not None:
            for layer, name in ((0, FIRST), (2, LAST)):
                born[name] = now[name] & ~before[name]
                assert not effective(model)[name][born[name]].any()
                for leaf in leaves(model, layer):
                    for value in built.state[leaf].values():
                        if value.dim():
                            assert not value[~(now[name] & before[name])].any()
        before = now

    train(model, built, schedule, 54, after_step=check)
    assert counts(model) == live
    assert sum(int(each.sum()) for each in born.values()) > 3
    read = pol.masks(model)[LAST].any(0)  # nothing before an unread unit can move
    born[FIRST] &= read[:, None]
    for name, fresh in born.items():
        assert effective(model)[name][fresh].all(), "a newborn entry did not move in 50 steps"


def test_growth_is_uniform_over_what_is_outside() -> None:
    """Of 90,000 entries half are live; 9,000 of the others' grow, in each tenth about as many."""
    model = nn.Linear(300, 300, bias=False)
    mask = torch.arange(90_000).view(300, 300) % 2 == 0
    pol.load_masks(model, {"weight": mask})
    still = torch.optim.SGD(model.parameters(), lr=0.0)
    schedule = SET(model, still, every=1, fraction=0.2, generator=torch.Generator().manual_seed(1))
    still.step()
    schedule.step()
    fresh = (pol.masks(model)["weight"] & ~mask).view(10, -1).sum(1)
    assert 7_000 < int(fresh.sum()) < 8_000  # 9,000 less those just dropped that came back
    assert all(abs(int(each) - int(fresh.sum()) / 10) < 110 for each in fresh)


def test_one_seed_gives_one_run_and_each_step_draws_anew() -> None:
    runs = []
    for seed in (0, 0, 1):
        model = masked()
        sgd, schedule = set_(model, seed=seed)
        grown = []
        before = pol.masks(model)
        for _ in range(3):
            train(model, sgd, schedule, 3)
            now = pol.masks(model)
            grown.append(now[FIRST] & ~before[FIRST])
            before = now
        runs.append(grown)
    assert all(torch.equal(a, b) for a, b in zip(runs[0], runs[1], strict=True))
    assert not torch.equal(runs[0][0], runs[2][0])
    assert not torch.equal(runs[0][0], runs[0][1])


def test_masks_are_applied_throughout() -> None:
    model = masked()
    sgd, schedule = set_(model, every=1)
    train(model, sgd, schedule, 5, before_step=lambda: None)
    assert masking(model).enforce


@pytest.mark.parametrize("kind", [SET, RigL])
@pytest.mark.parametrize("allocation", ["erk", "uniform", "balanced"])
def test_densities_draw_the_first_masks_of_a_plain_model(kind: Any, allocation: str) -> None:
    masks = []
    for way in ("schedule", "prune"):
        model = network()
        densities = getattr(pol.densities, allocation)(model, 0.3)
        sgd = OPTIMIZERS["sgd"](model.parameters())
        generator = torch.Generator().manual_seed(4)
        if way == "schedule":
            kind(model, sgd, every=5, end=50, densities=densities, generator=generator)
        else:
            pol.prune(model, pol.scores.random, densities=densities, generator=generator)
        masks.append(pol.masks(model))
    assert all(torch.equal(masks[0][name], masks[1][name]) for name in masks[0])
    assert int(sum(mask.sum() for mask in masks[0].values())) == 48


@pytest.mark.parametrize("kind", [SET, RigL])
@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"every": 0}, ["every=0"]),
        ({"every": 2.0}, ["every=2.0", "int"]),
        ({"begin": -1}, ["begin=-1"]),
        ({"begin": 60}, ["end=50", "begin=60"]),
        ({"fraction": 1.5}, ["fraction=1.5"]),
        ({"fraction": "0.3"}, ["fraction='0.3'"]),
        ({"ties": "first"}, ["ties='first'"]),
        ({"second_moment": "mean"}, ["second_moment='mean'", "'keep_mean'"]),
        ({"generator": 3}, ["generator=3"]),
        ({"densities": {FIRST: 0.1}}, ["densities", LAST]),
        ({"densities": {FIRST: 0.1, LAST: 2.0}}, [LAST, "2.0"]),
    ],
)
def test_bad_arguments_are_named_and_change_nothing(
    kind: Any, options: Any, parts: list[str]
) -> None:
    model = network()
    sgd = OPTIMIZERS["sgd"](model.parameters())
    given = {"every": 2, "end": 50, "densities": {FIRST: 0.1, LAST: 0.1}} | options
    state = torch.get_rng_state()
    with pytest.raises((TypeError, ValueError)) as raised:
        kind(model, sgd, **given)
    assert not [part for part in parts if part not in str(raised.value)], raised.value
    assert not hasattr(model[0], "parametrizations")
    assert torch.equal(torch.get_rng_state(), state)
    assert not sgd._optimizer_step_pre_hooks
    assert not sgd._optimizer_step_post_hooks


def test_a_cosine_needs_steps_to_fall_over() -> None:
    model = masked()
    sgd = OPTIMIZERS["sgd"](model.parameters())
    with pytest.raises(ValueError, match="end=50, expected a step after begin=50"):
        RigL(model, sgd, every=2, end=50, begin=50)
    with pytest.raises(TypeError, match="end=None"):
        RigL(model, sgd, every=2, end=None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="replace_step"):
        RigL(model, sgd, every=2, end=50, replace_step=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [SET, RigL])
@pytest.mark.parametrize("form", ["plain", "dense", "sign_in"])
def test_a_model_without_a_pruned_entry_is_refused_with_a_remedy(kind: Any, form: str) -> None:
    model = network() if form == "plain" else masked(1.0, product=form == "sign_in")
    sgd = OPTIMIZERS["sgd"](model.parameters())
    with pytest.raises(ValueError, match=r"densities=pol\.densities\.erk"):
        kind(model, sgd, every=2, end=50)
    assert hasattr(model[0], "parametrizations") == (form != "plain")
