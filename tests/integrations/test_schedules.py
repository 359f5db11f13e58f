"""What the callbacks of all frameworks share: schedules that are built, stepped, saved, resumed."""

from typing import Any

import pytest
import torch
from torch import nn

import polarity as pol
from polarity.integrations._schedules import Schedules, check_flag, numbers


class Counted:
    def __init__(self, *given: Any) -> None:
        self.given, self.count, self.is_removed = given, 0, False

    def step(self) -> int | None:
        self.count += 1
        return self.count if self.count > 1 else None

    def state_dict(self) -> dict[str, int]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.count = state["count"]

    def remove(self) -> None:
        self.is_removed = True


def sgd() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1)


def built(made: list[Counted]) -> Schedules:
    def build(*given: Any) -> list[Counted]:
        made.append(Counted(*given))
        return made[-1:]

    schedules = Schedules(build, build)
    schedules.build(nn.Linear(2, 2), [sgd()], [])
    return schedules


@pytest.mark.parametrize("count", [1, 2])
def test_one_optimizer_is_given_itself_and_several_as_a_list(count: int) -> None:
    made: list[Any] = []
    schedules = Schedules(lambda *given: made.append(given), None)
    optimizers, model = [sgd() for _ in range(count)], nn.Linear(2, 2)
    schedules.build(model, optimizers, [])
    assert made == [(model, optimizers[0] if count == 1 else optimizers, None)]
    assert schedules.are_built
    assert schedules.step("each_step") == []


def test_steps_report_what_was_due() -> None:
    made: list[Counted] = []
    schedules = built(made)
    assert schedules.step("each_step") == []
    assert schedules.step("each_step") == [2]
    assert [each.count for each in made] == [2, 0]


def test_false_says_that_nothing_was_due() -> None:
    model = pol.sign_in(nn.Linear(2, 2))
    schedules = Schedules(None, lambda *_: pol.RescaleSchedule(model, every=2))
    schedules.build(model, [sgd()], [])
    assert [schedules.step("each_epoch") for _ in range(3)] == [[], [True], []]


def test_states_that_are_loaded_before_anything_is_built_are_resumed() -> None:
    schedules = built([])
    schedules.step("each_epoch")
    state = schedules.state_dict()
    made: list[Counted] = []
    other = Schedules(*2 * [lambda *given: made.append(Counted()) or made[-1]])
    assert not other.are_kept
    other.load_state_dict(state)
    assert other.are_kept
    assert other.state_dict() == state  # a checkpoint that is written in between
    other.build(nn.Linear(2, 2), [sgd()], [])
    other.resume()
    assert [each.count for each in made] == [0, 1]
    assert not other.are_kept
    other.load_state_dict({})
    other.drop()
    other.resume()


def test_fewer_states_than_schedules_are_refused() -> None:
    schedules = built([])
    schedules.load_state_dict({"each_step": [], "each_epoch": [{"count": 1}]})
    with pytest.raises(ValueError, match="holds 0 schedules of each_step=, and this run builds 1"):
        schedules.resume()


def test_building_again_takes_the_hooks_of_the_first_ones_off() -> None:
    made: list[Counted] = []
    schedules = built(made)
    schedules.build(nn.Linear(2, 2), [sgd()], [])
    assert [each.is_removed for each in made] == [True, True, False, False]
    schedules.remove()
    assert all(each.is_removed for each in made)
    assert schedules.state_dict() == {"each_step": [{"count": 0}], "each_epoch": [{"count": 0}]}


def test_numbers_of_reports() -> None:
    report = pol.imp_prune(nn.Linear(4, 5), density=0.5)
    assert numbers([True, report, "text"]) == {"density": 0.5, "survivors": 10.0}
    assert numbers([]) == {}


@pytest.mark.parametrize("value", [1, None, "yes"])
def test_flags_are_true_or_false(value: Any) -> None:
    with pytest.raises(TypeError, match=f"merge={value!r}, expected True or False"):
        check_flag("merge", value)


def test_what_is_no_schedule_is_refused_by_the_method_that_it_does_not_have() -> None:
    schedules = Schedules(None, lambda *_: [3])
    with pytest.raises(TypeError, match=r"each_epoch returned a int without step\(\)"):
        schedules.build(nn.Linear(2, 2), [sgd()], [])
