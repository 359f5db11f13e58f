"""A call that raises has changed nothing: everything is checked before anything is written."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

import polarity as pol
from tests.forms import half_masked, half_signed_in
from tests.helpers import everything_of, train_step
from tests.laws.refusals import fingerprint
from tests.models import noise, seeded

INPUTS = noise(8, 6)(torch.Generator().manual_seed(2))
FORMS = {"masked": half_masked, "sign_in": half_signed_in}


def net(seed: int = 0, width: int = 5) -> nn.Sequential:
    layers = nn.Linear(6, width), nn.BatchNorm1d(width), nn.Tanh(), nn.Linear(width, 3)
    return seeded(nn.Sequential(*layers), seed).train()


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=0.01)


class Scaled(nn.Module):
    """A parametrization without inverse."""

    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


class Doubled(Scaled):
    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight / 2


def state_of(*things: Any) -> list[Any]:
    model, *others = things
    everything = everything_of(model)
    return [everything, [fingerprint(each.state_dict()) for each in others]]


def with_further(further: nn.Module, form: str, width: int = 5) -> tuple[nn.Module, Any, Any]:
    """A model whose last weight has a parametrization after its mask, an optimizer, its start."""
    model = FORMS[form](net(width=width))
    optimizer = adam(model)
    train_step(model, optimizer, INPUTS)
    register_parametrization(model[3], "weight", further)
    return model, optimizer, pol.RewindPoint.capture(model, optimizer)


NOT_WRITABLE: dict[str, Callable[..., object]] = {
    "restore_weights": lambda m, o, p: p.restore_weights(m),
    "imp_prune": lambda m, o, p: pol.imp_prune(m, 0.3, rewind=p, optimizer=o),
    "reinit_signs": lambda m, o, p: pol.reinit_signs(m, "mask1", init=p),
    "standard": lambda m, o, p: pol.reinit_signs(m, "standard", init=p, trained=p),
    "apply": lambda m, o, p: pol.signed_mask(m).apply(m),
}


@pytest.mark.parametrize("width", [5, 3000], ids=["small", "wide"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("call", NOT_WRITABLE)
def test_a_later_weight_that_cannot_be_written_is_refused_before_the_first_one_is(
    call: str, form: str, width: int
) -> None:
    model, optimizer, start = with_further(Scaled(), form, width)
    with torch.no_grad():  # so that rewinding would change every weight
        for parameter in model.parameters():
            parameter.mul_(1.5)
    if call == "standard":
        start = pol.RewindPoint.capture(model)
    before = state_of(model, optimizer)
    with pytest.raises(ValueError, match=r"'3\.weight' cannot be written: Scaled.*right_inverse"):
        NOT_WRITABLE[call](model, optimizer, start)
    assert state_of(model, optimizer) == before


@pytest.mark.parametrize("further", [Scaled, Doubled])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("width", [5, 3000], ids=["small", "wide"])
def test_merge_keeps_outputs_whatever_parametrizes_a_weight_after_its_mask(
    further: type[nn.Module], form: str, width: int
) -> None:
    model, optimizer, _ = with_further(further(), form, width)
    model.eval()
    expected = model(*INPUTS).detach()
    pol.merge(model, optimizer=optimizer)
    assert isinstance(model[3].weight, nn.Parameter)
    assert list(model.state_dict()) == list(net().state_dict())
    torch.testing.assert_close(model(*INPUTS).detach(), expected)
    train_step(model.train(), optimizer, INPUTS)


class Widened(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return torch.cat([weight, weight])


def test_merge_refuses_a_weight_that_another_shape_was_made_of_before_the_first_is_merged() -> None:
    model = half_masked(net())
    register_parametrization(model[3], "weight", Widened(), unsafe=True)
    before = everything_of(model)
    with pytest.raises(
        ValueError, match=r"weight '3\.weight' has shape \(6, 5\), expected the par"
    ):
        pol.merge(model)
    assert everything_of(model) == before


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("norms", [False, True], ids=["weights", "norms"])
def test_merge_with_the_optimizer_of_another_model_is_refused(form: str, norms: bool) -> None:
    model = pol.interpolate_norms(net()) if norms else FORMS[form](net())
    stranger = adam(net(1))
    before = state_of(model, stranger)
    with pytest.raises(ValueError, match=r"optimizer=Adam holds none of the 2 weights"):
        pol.merge(model, optimizer=stranger)
    assert state_of(model, stranger) == before


def test_merge_of_norms_alone_takes_their_optimizer() -> None:
    model = pol.interpolate_norms(net())
    pol.merge(model, optimizer=adam(model))
    assert isinstance(model[1].weight, nn.Parameter)


def spoil_last(model: nn.Module, value: float) -> None:
    with torch.no_grad():
        model[3].weight.fill_(value)


SIGN_IN: dict[str, tuple[Callable[[nn.Module], object], Callable[..., object], str]] = {
    "NaN in the second": (
        lambda m: spoil_last(m, math.nan),
        lambda m, o: pol.sign_in(m, optimizer=o),
        r"weight '3\.weight' holds 15 NaN",
    ),
    "a further parametrization": (
        lambda m: register_parametrization(m[3], "weight", Scaled()),
        lambda m, o: pol.sign_in(m, targets=["0.weight", "3.weight"], optimizer=o),
        r"3\.weight is (also|already) parametrized by Scaled",
    ),
    "a mask of halves": (
        lambda m: pol.mask_weights(m)[3].parametrizations.weight[0].mask.fill_(0.5),
        lambda m, o: pol.sign_in(m, optimizer=o),
        r"mask of '3\.weight' holds values other",
    ),
    "beta too large": (
        lambda m: None,
        lambda m, o: pol.sign_in(m, beta={"0.weight": 1.0, "3.weight": 1e300}, optimizer=o),
        r"beta=1e\+300 gives '3\.weight' factors that torch\.float32 cannot hold",
    ),
    "beta too small": (
        lambda m: None,
        lambda m, o: pol.sign_in(m, beta={"0.weight": 1.0, "3.weight": 1e-300}, optimizer=o),
        r"beta=1e-300 gives '3\.weight' factors",
    ),
}


@pytest.mark.parametrize("case", SIGN_IN)
def test_sign_in_that_fails_at_the_second_weight_has_not_converted_the_first(case: str) -> None:
    model = net()
    spoil, call, said = SIGN_IN[case]
    optimizer = adam(model)
    train_step(model, optimizer, INPUTS)
    spoil(model)
    before = state_of(model, optimizer)
    with pytest.raises(ValueError, match=said):
        call(model, optimizer)
    assert state_of(model, optimizer) == before


@pytest.mark.parametrize(
    ("dtype", "beta"),
    [(torch.float16, 1e12), (torch.float16, 1e-20), (torch.bfloat16, 1e300)],
    ids=str,
)
def test_factors_out_of_the_range_of_a_narrow_dtype_are_refused(dtype: Any, beta: float) -> None:
    model = nn.Linear(4, 3).to(dtype)
    with pytest.raises(ValueError, match=rf"'weight' factors that {dtype} cannot hold"):
        pol.sign_in(model, beta=beta)
    assert isinstance(model.weight, nn.Parameter)


def test_converting_again_with_another_beta_writes_all_weights_or_none() -> None:
    model = half_signed_in(net())
    with torch.no_grad():
        model[3].parametrizations.weight.original1.fill_(math.nan)
    before = everything_of(model)
    with pytest.raises(ValueError, match=r"'3\.weight' holds"):
        pol.sign_in(model, beta=2.0)
    assert everything_of(model) == before


@pytest.mark.parametrize("momentum", ["keep", "zero", "transform"])
@pytest.mark.parametrize("scheduled", [False, True], ids=["rescale", "schedule"])
def test_a_later_factor_that_is_nan_stops_rescaling_before_the_first(
    momentum: Any, scheduled: bool
) -> None:
    model = half_signed_in(net())
    optimizer = adam(model)
    train_step(model, optimizer, INPUTS)
    schedule = pol.RescaleSchedule(model, every=1, optimizer=optimizer, momentum=momentum)
    with torch.no_grad():
        m, v = (
            model[3].parametrizations.weight.original0,
            model[3].parametrizations.weight.original1,
        )
        v[m != 0] = math.nan
    before = state_of(model, optimizer)
    with pytest.raises(ValueError, match=r"weight '3\.weight' holds \d+ NaN"):
        schedule.step() if scheduled else pol.rescale(model, optimizer=optimizer, momentum=momentum)
    assert state_of(model, optimizer) == before
    assert schedule.epoch == 0


SCHEDULE_STATES: dict[str, tuple[Any, type[Exception], str]] = {
    "a list": ([1], TypeError, "state is a list, expected what state_dict returns"),
    "nothing": ({}, ValueError, "state is missing 'epoch'"),
    "less": ({"epoch": 1, "every": 2, "until": None}, ValueError, "state is missing 'momentum'"),
    "more": (
        {"epoch": 1, "every": 2, "until": None, "momentum": "keep", "lr": 1},
        ValueError,
        "state holds 'lr'",
    ),
    "epoch below zero": (
        {"epoch": -1, "every": 2, "until": None, "momentum": "keep"},
        ValueError,
        r"state\['epoch'\]=-1",
    ),
    "every of zero": (
        {"epoch": 1, "every": 0, "until": None, "momentum": "keep"},
        ValueError,
        r"state\['every'\]=0",
    ),
    "until a word": (
        {"epoch": 1, "every": 2, "until": "end", "momentum": "keep"},
        TypeError,
        r"state\['until'\]='end'",
    ),
    "momentum unknown": (
        {"epoch": 1, "every": 2, "until": None, "momentum": "lose"},
        ValueError,
        r"state\['momentum'\]='lose'",
    ),
    "momentum without optimizer": (
        {"epoch": 1, "every": 2, "until": None, "momentum": "zero"},
        ValueError,
        r"state\['momentum'\]='zero' needs optimizer=",
    ),
}


@pytest.mark.parametrize("case", SCHEDULE_STATES)
def test_a_rescaling_schedule_takes_no_nonsense_from_a_checkpoint(case: str) -> None:
    state, error, said = SCHEDULE_STATES[case]
    schedule = pol.RescaleSchedule(half_signed_in(net()), every=3, until=7)
    before = schedule.state_dict()
    with pytest.raises(error, match=said):
        schedule.load_state_dict(state)
    assert schedule.state_dict() == before


NORMS: dict[str, tuple[Callable[[nn.Module], dict[str, Any]], str]] = {
    "the last is NaN": (
        lambda m: {"initial": {"1.weight": torch.ones(5), "1.bias": torch.full((5,), math.nan)}},
        r"initial '1\.bias' holds 5 NaN",
    ),
    "the last is missing": (lambda m: {"initial": {"1.weight": torch.ones(5)}}, r"'1\.bias'"),
    "the last has another shape": (
        lambda m: {"initial": {"1.weight": torch.ones(5), "1.bias": torch.ones(4)}},
        r"'1\.bias' in shape",
    ),
    "the last is masked": (lambda m: pol.mask_weights(m, targets="1.bias") and {}, r"1\.bias"),
}


@pytest.mark.parametrize("case", NORMS)
def test_interpolating_norms_attaches_to_all_or_none(case: str) -> None:
    model = net()
    spoil, said = NORMS[case]
    arguments = spoil(model)
    before = everything_of(model)
    with pytest.raises(ValueError, match=said):
        pol.interpolate_norms(model, **arguments)
    assert everything_of(model) == before


def test_a_ticket_whose_last_weight_cannot_be_masked_leaves_a_plain_model_plain() -> None:
    ticket = pol.signed_mask(half_masked(net()))
    model = net(1)
    register_parametrization(model[3], "weight", Doubled())
    before = everything_of(model)
    with pytest.raises(ValueError, match=r"3\.weight is already parametrized by Doubled"):
        ticket.apply(model)
    assert everything_of(model) == before


def expanded(model: nn.Module) -> nn.Module:
    model[3].weight = nn.Parameter(torch.ones(1, 1).expand(3, 5))
    return model


@pytest.mark.parametrize(
    "call",
    [
        lambda m: pol.imp_prune(m, 0.5),
        lambda m: pol.prune(m, pol.scores.magnitude, density=0.5),
        lambda m: pol.load_masks(m, {"0.weight": torch.zeros(5, 6), "3.weight": torch.zeros(3, 5)}),
        lambda m: pol.RewindPoint.capture(net()).restore_weights(m),
    ],
    ids=["imp_prune", "prune", "load_masks", "restore_weights"],
)
def test_a_later_weight_whose_entries_share_memory_is_refused_before_the_first_write(call) -> None:
    model = expanded(net())
    before = fingerprint(model.state_dict())
    kinds = [type(each) for each in model.modules()]
    with pytest.raises(ValueError, match=r"of shape \(3, 5\) was made by expand"):
        call(model)
    assert fingerprint(model.state_dict()) == before
    assert [type(each) for each in model.modules()] == kinds


def test_a_refused_call_on_a_copy_leaves_the_original_alone_too() -> None:
    model, _, start = with_further(Scaled(), "masked")
    twin = copy.deepcopy(model)
    before = everything_of(model)
    with pytest.raises(ValueError, match="cannot be written"):
        pol.imp_prune(twin, 0.3, rewind=start)
    assert everything_of(model) == before
