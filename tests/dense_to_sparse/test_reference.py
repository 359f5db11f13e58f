"""RigL and SET train as the published code does: the same masks and weights over 200 steps."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import polarity as pol
from polarity.dense_to_sparse import rewiring, set_and_rigl
from polarity.selection.top_k import keep_top
from tests.dense_to_sparse.cases import FIRST, LAST, OPTIMIZERS, batches, effective, masked
from tests.dense_to_sparse.reference import Reference

STEPS = 200


def reference(model: nn.Module, **settings: Any) -> Reference:
    return Reference(
        effective(model),
        {name: mask.float() for name, mask in pol.masks(model).items()},
        {name: model.get_parameter(name).detach().clone() for name in ("0.bias", "2.bias")},
        **settings,
    )


def compare(ours: Callable[[nn.Module, Any], Any], theirs: Callable[[nn.Module, Any], Any]) -> int:
    """Train both, compare masks exactly and weights closely, and return how many entries grew."""
    model = masked()
    sgd = OPTIMIZERS["sgd"](model.parameters())
    schedule = ours(model, sgd)
    told = theirs(model, schedule)
    grown = 0
    data, their_data = batches(), batches()
    for step, (masks, weights) in enumerate(told.train(their_data, STEPS), start=1):
        x, y = next(data)
        sgd.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        sgd.step()
        report = schedule.step()
        grown += report.grown if report else 0
        for name, mask in pol.masks(model).items():
            assert torch.equal(mask, masks[name]), f"step {step}: another mask of {name}"
            torch.testing.assert_close(effective(model)[name], weights[name], rtol=1e-4, atol=1e-5)
    return grown


def rigl(end: int = 150, begin: int = 7) -> int:
    return compare(
        lambda model, sgd: pol.dense_to_sparse.RigL(
            model, sgd, every=5, end=end, begin=begin, fraction=0.5
        ),
        lambda model, _: reference(
            model, frequency=5, begin=begin, end=end, drop_fraction=0.5, anneal="cosine"
        ),
    )


def set_(end: int = 171) -> int:
    def theirs(model: nn.Module, schedule: Any) -> Reference:
        def score_grow(name: str, step: int, mask: Tensor) -> Tensor:
            seed = schedule.state_dict()["seed"]
            return set_and_rigl.uniform(seed, name, step, mask)  # the draw itself is ours

        return reference(
            model,
            frequency=3,
            begin=3,
            end=end,
            drop_fraction=0.2,
            anneal="constant",
            score_grow=score_grow,
        )

    generator = torch.Generator().manual_seed(0)
    return compare(
        lambda model, sgd: pol.dense_to_sparse.SET(
            model, sgd, every=3, end=end, fraction=0.2, generator=generator
        ),
        theirs,
    )


def test_rigl_has_the_published_masks_and_weights_over_200_steps() -> None:
    assert rigl() > 100


def test_an_update_at_the_very_end_is_made_as_published() -> None:
    assert rigl(end=152, begin=2) > 100  # 2 + 30 * 5 = 152


def test_set_has_the_published_masks_and_weights_over_200_steps() -> None:
    assert set_() > 100


def drops_the_largest(
    name: str, weight: Tensor, mask: Tensor, growth: Tensor, n: int, draw: Any
) -> Tensor:
    return RULE(name, -1 / weight.abs().clamp_min(1e-9), mask, growth, n, draw)


def grows_only_what_was_outside_before(
    name: str, weight: Tensor, mask: Tensor, growth: Tensor, n: int, draw: Any
) -> Tensor:
    live = int(mask.sum())
    kept = keep_top({"w": weight.abs()}, live - n, {"w": mask})["w"]
    return kept | keep_top({"w": growth}, n, {"w": ~mask})["w"]


def grows_before_it_drops(
    name: str, weight: Tensor, mask: Tensor, growth: Tensor, n: int, draw: Any
) -> Tensor:
    grown = mask | keep_top({"w": growth}, n, {"w": ~mask})["w"]
    return keep_top({"w": weight.abs()}, int(mask.sum()), {"w": grown})["w"]


def keeps_state(found: Any, before: Any, masks: Any, optimizers: Any, *rest: Any) -> Any:
    return INSTALL(found, before, masks, (), *rest)


def one_more(survivors: int, fraction: float) -> int:
    return min(survivors, round(survivors * fraction + 0.5))


RULE, INSTALL = rewiring.exchanged, rewiring.install_masks

MUTATIONS: dict[str, tuple[str, Any]] = {
    "the largest are dropped": ("exchanged", drops_the_largest),
    "a dropped entry cannot come back": ("exchanged", grows_only_what_was_outside_before),
    "growth comes before the drop": ("exchanged", grows_before_it_drops),
    "state is not zeroed": ("install_masks", keeps_state),
    "counts are rounded up": ("exchanged_of", one_more),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_of_the_rule_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, mutant = MUTATIONS[name]
    monkeypatch.setattr(rewiring, where, mutant)
    with pytest.raises(AssertionError):
        rigl()


def test_a_cosine_counted_from_the_first_update_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    published = set_and_rigl.cosine
    monkeypatch.setattr(set_and_rigl, "cosine", lambda f, steps, t: published(f, steps, t - 7))
    with pytest.raises(AssertionError):
        rigl()


def test_an_end_that_is_not_inclusive_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    due = rewiring.Every.due
    monkeypatch.setattr(rewiring.Every, "due", lambda self, t: due(self, t) and t != self.end)
    with pytest.raises(AssertionError):
        rigl(end=152, begin=2)


def test_the_layers_of_the_reference_are_those_of_the_network() -> None:
    assert list(effective(masked())) == [FIRST, LAST]
