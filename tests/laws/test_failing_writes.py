"""A failure in any write of any call leaves everything as it was: there is one write, or none."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import polarity as pol
from tests.forms import half_compact, half_compact_signed_in, half_masked
from tests.helpers import everything_of, train_step
from tests.laws.test_all_or_nothing import FORMS, INPUTS, adam, net, state_of
from tests.models import generator

EVERY_FORM = FORMS | {"compact": half_compact, "compact_sign_in": half_compact_signed_in}


class Injected(Exception):
    """A failure of the machine."""


@contextmanager
def failing_at(place: int) -> Iterator[list[str]]:
    """Let the given one of all writes by ``copy_``, ``set_`` and ``_foreach_copy_`` fail."""
    made: list[str] = []
    patched = [(Tensor, "copy_"), (Tensor, "set_"), (torch, "_foreach_copy_")]
    real = [getattr(where, name) for where, name in patched]

    def failing(name: str, write: Any) -> Callable[..., Any]:
        def attempt(*args: Any, **kwargs: Any) -> Any:
            made.append(name)
            if len(made) == place + 1:
                raise Injected(name)
            return write(*args, **kwargs)

        return attempt

    for (where, name), write in zip(patched, real, strict=True):
        setattr(where, name, failing(name, write))
    try:
        yield made
    finally:
        for (where, name), write in zip(patched, real, strict=True):
            setattr(where, name, write)


def other_masks(model: nn.Module) -> dict[str, Tensor]:
    """Keep what was pruned; where survivors alone are stored, keep some of them."""
    masks = pol.masks(model)
    if all(target.masking.places is None for target in pol.find_targets(model).values()):
        return {name: ~mask for name, mask in masks.items()}
    return {name: mask & (torch.arange(mask.shape[1]) > 0) for name, mask in masks.items()}


Start = Any
WRITES: dict[str, Callable[[nn.Module, Any, Any, Start], object]] = {
    "restore_weights": lambda m, o, s, p: p.restore_weights(m),
    "restore_schedule": lambda m, o, s, p: p.restore_schedule(o, s),
    "rewinding": lambda m, o, s, p: pol.imp_prune(m, 0.3, rewind=p, optimizer=o, scheduler=s),
    "lrr_step": lambda m, o, s, p: pol.lrr_step(m, 0.3, rewind=p, optimizer=o, scheduler=s),
    "imp_prune": lambda m, o, s, p: pol.imp_prune(m, 0.3, optimizer=o),
    "prune": lambda m, o, s, p: pol.prune(m, pol.scores.magnitude, amount=0.3, optimizer=o),
    "PruneRounds": lambda m, o, s, p: pol.PruneRounds(
        m, 0.3, every=1, rounds=1, rewind="weights", point=p, optimizer=o, scheduler=s
    ).step(),
    "merge": lambda m, o, s, p: pol.merge(m, optimizer=o),
    "sign_in": lambda m, o, s, p: pol.sign_in(m, beta=2.0, optimizer=o),
    "load_masks": lambda m, o, s, p: pol.load_masks(m, other_masks(m)),
    "reinit_signs": lambda m, o, s, p: pol.reinit_signs(m, "mask1", init=p),
    "apply": lambda m, o, s, p: pol.signed_mask(m).apply(m),
    "start_from_signs": lambda m, o, s, p: pol.start_from_signs(m, p, pol.masks(m)),
    "start_from_magnitudes": lambda m, o, s, p: pol.start_from_magnitudes(
        m, p, pol.masks(m), generator=generator()
    ),
    "start_from_mask": lambda m, o, s, p: pol.start_from_mask(m, other_masks(m)),
    "reinitialize": lambda m, o, s, p: pol.reinitialize(m),
    "reset_parameters": lambda m, o, s, p: m[0].reset_parameters(),
    "assignment": lambda m, o, s, p: setattr(m[0], "weight", torch.ones_like(m[0].weight)),
}
FACTOR_WRITES: dict[str, Callable[[nn.Module, Any, Any, Start], object]] = {
    "rescale": lambda m, o, s, p: pol.rescale(m, optimizer=o),
    "rescale, zero": lambda m, o, s, p: pol.rescale(m, optimizer=o, momentum="zero"),
    "rescale, transform": lambda m, o, s, p: pol.rescale(m, optimizer=o, momentum="transform"),
}
CASES = [(call, form, width) for form in EVERY_FORM for call in WRITES for width in (5, 3000)]
CASES += [(call, form, 5) for call in FACTOR_WRITES for form in ("sign_in", "compact_sign_in")]


@pytest.mark.parametrize(("call", "form", "width"), CASES)
def test_a_failure_in_any_write_leaves_model_and_optimizer_as_they_were(
    call: str, form: str, width: int
) -> None:
    model = EVERY_FORM[form](net(width=width))
    optimizer = adam(model)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    start = pol.RewindPoint.capture(model, optimizer, schedule)
    for _ in range(2):
        train_step(model, optimizer, INPUTS)
        schedule.step()
    before = state_of(model, optimizer, schedule)
    for place in range(100):
        with failing_at(place) as made, suppress(Injected):
            (WRITES | FACTOR_WRITES)[call](model, optimizer, schedule, start)
        if len(made) <= place:
            break
        assert state_of(model, optimizer, schedule) == before, f"write {place}, {made[-1]}"
    else:
        pytest.fail("the call never succeeded")
    assert state_of(model, optimizer, schedule) != before, "without a failure it does its work"


def test_the_injected_failure_is_seen_where_a_write_comes_after_another() -> None:
    """The test above can fail: two writes, of which the second one fails."""
    model = half_masked(net())
    before = everything_of(model)
    with failing_at(1) as made, suppress(Injected):
        for parameter in model.parameters():
            parameter.data.copy_(torch.zeros_like(parameter))
    assert made == ["copy_", "copy_"]
    assert everything_of(model) != before
