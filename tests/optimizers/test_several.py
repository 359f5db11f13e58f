"""Several optimizers and schedulers over one model, wherever one is taken."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.distributed.optim import ZeroRedundancyOptimizer

import polarity as pol
from polarity.optimizers.given import as_schedulers, described
from tests.forms import half_masked, half_signed_in
from tests.helpers import leaf_and_mask, train_step
from tests.laws.refusals import fingerprint
from tests.models import noise, seeded

INPUTS = noise(8, 6)(torch.Generator().manual_seed(2))
needs_muon = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has no Muon yet")


class Gan(nn.Module):
    """A generator and a discriminator in one model, as Lightning keeps them."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 6))
        self.discriminator = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, noise: Tensor) -> Tensor:
        return self.discriminator(self.generator(noise))


def adam_twice(model: Gan) -> list[torch.optim.Optimizer]:
    halves = (model.generator, model.discriminator)
    return [torch.optim.Adam(half.parameters(), lr=0.01) for half in halves]


def muon_and_adamw(model: nn.Module) -> list[torch.optim.Optimizer]:
    parameters = list(model.parameters())
    return [
        torch.optim.Muon([p for p in parameters if p.dim() == 2], lr=0.01),
        torch.optim.AdamW([p for p in parameters if p.dim() != 2], lr=0.01),
    ]


PAIRS = [
    pytest.param(adam_twice, id="gan"),
    pytest.param(muon_and_adamw, id="muon_and_adamw", marks=needs_muon),
]
Build = Callable[[Any], list[torch.optim.Optimizer]]


def step_all(model: nn.Module, optimizers: list[torch.optim.Optimizer]) -> None:
    for each in optimizers:
        each.zero_grad()
    (model(*INPUTS) - 1).square().mean().backward()
    for each in optimizers:
        each.step()


def running(build: Build, form: Callable[..., nn.Module] = half_masked) -> tuple[Any, list[Any]]:
    model = form(seeded(Gan()))
    optimizers = build(model)
    for _ in range(3):
        step_all(model, optimizers)
    return model, optimizers


def states(model: nn.Module, optimizers: list[Any]) -> dict[int, dict[str, Any]]:
    return {
        id(p): each.state[p] for each in optimizers for g in each.param_groups for p in g["params"]
    }


def assert_zero_outside(model: nn.Module, optimizers: list[Any]) -> None:
    remembered, kept = states(model, optimizers), 0
    for leaf, mask in leaf_and_mask(model):
        for key, value in remembered[id(leaf)].items():
            if isinstance(value, Tensor) and value.shape == leaf.shape:
                assert not value[~mask].any(), key
                kept += int(value[mask].count_nonzero())
    assert kept > 10, "survivors keep theirs"


@pytest.mark.parametrize("build", PAIRS)
@pytest.mark.parametrize("call", ["imp_prune", "prune", "lrr_step", "rewinding"])
def test_pruning_zeroes_the_state_in_each_of_several_optimizers(build: Build, call: str) -> None:
    model, optimizers = running(build)
    point = pol.RewindPoint.capture(model, optimizers)
    calls: dict[str, Callable[[], pol.PruneReport]] = {
        "imp_prune": lambda: pol.imp_prune(model, 0.4, optimizer=optimizers),
        "prune": lambda: pol.prune(model, pol.scores.magnitude, amount=0.4, optimizer=optimizers),
        "lrr_step": lambda: pol.lrr_step(model, 0.4, rewind=point, optimizer=tuple(optimizers)),
        "rewinding": lambda: pol.imp_prune(model, 0.4, rewind=point, optimizer=optimizers),
    }
    calls[call]()
    assert_zero_outside(model, optimizers)
    step_all(model, optimizers)


@pytest.mark.parametrize("build", PAIRS)
def test_several_optimizers_and_schedulers_are_rewound_each_to_its_own_state(build: Build) -> None:
    model, optimizers = running(build)
    schedules = [torch.optim.lr_scheduler.StepLR(each, 1, 0.5) for each in optimizers]
    point = pol.RewindPoint.capture(model, optimizers, schedules)
    before = [copy.deepcopy(each.state_dict()) for each in (*optimizers, *schedules)]
    for _ in range(2):
        step_all(model, optimizers)
        for each in schedules:
            each.step()
    report = pol.imp_prune(model, 0.0, rewind=point, optimizer=optimizers, scheduler=schedules)
    assert "rewound: optimizer" in report.notes
    for leaf, mask in leaf_and_mask(model):
        for each in optimizers:
            for value in each.state.get(leaf, {}).values():
                assert value.dim() == 0 or not value[~mask].any()
    assert [fingerprint(each.state_dict()["param_groups"]) for each in optimizers] == [
        fingerprint(state["param_groups"]) for state in before[:2]
    ]
    assert [each.state_dict() for each in schedules] == before[2:]


@pytest.mark.parametrize("build", PAIRS)
def test_factors_go_to_the_optimizer_that_holds_their_weight(build: Build) -> None:
    model, optimizers = running(build)
    holder = {
        id(p): i for i, o in enumerate(optimizers) for g in o.param_groups for p in g["params"]
    }
    before = {name: holder[id(t.stored[0])] for name, t in pol.find_targets(model).items()}
    pol.sign_in(model, optimizer=optimizers)
    after = {
        id(p): i for i, o in enumerate(optimizers) for g in o.param_groups for p in g["params"]
    }
    for name, target in pol.find_targets(model).items():
        assert [after[id(leaf)] for leaf in target.stored] == [before[name]] * 2
        for leaf in target.stored:
            assert optimizers[before[name]].state[leaf], "the state came along"
    step_all(model, optimizers)
    pol.rescale(model, optimizer=optimizers)
    pol.rescale(model, optimizer=optimizers, momentum="zero")
    for target in pol.find_targets(model).values():
        for leaf in target.stored:
            for value in states(model, optimizers)[id(leaf)].values():
                assert value.dim() == 0 or not value.any()
    pol.merge(model, optimizer=optimizers)
    merged = {
        id(p): i for i, o in enumerate(optimizers) for g in o.param_groups for p in g["params"]
    }
    assert {name: merged[id(model.get_parameter(name))] for name in before} == before
    step_all(model, optimizers)


def test_momentum_is_transformed_in_each_of_several_optimizers() -> None:
    model, optimizers = running(adam_twice, half_signed_in)
    twin, one = copy.deepcopy((model, optimizers)), None
    pol.rescale(model, optimizer=optimizers, momentum="transform")
    for half, each in zip((twin[0].generator, twin[0].discriminator), twin[1], strict=True):
        one = pol.rescale(half, optimizer=each, momentum="transform")
    assert one is not None
    assert [fingerprint(each.state_dict()) for each in optimizers] == [
        fingerprint(each.state_dict()) for each in twin[1]
    ]
    assert fingerprint(model.state_dict()) == fingerprint(twin[0].state_dict())


def test_a_schedule_of_rescaling_takes_a_list_and_masks_are_kept_in_each_step() -> None:
    model, optimizers = running(adam_twice, half_signed_in)
    schedule = pol.RescaleSchedule(model, every=1, optimizer=optimizers, momentum="zero")
    assert schedule.step()
    model, optimizers = running(adam_twice)
    handle = pol.enforce_in_step(model, optimizers)
    step_all(model, optimizers)
    assert all(not leaf[~mask].any() for leaf, mask in leaf_and_mask(model))
    handle.remove()


LISTS: dict[str, Callable[..., object]] = {
    "imp_prune": lambda m, o: pol.imp_prune(m, 0.1, optimizer=o),
    "prune": lambda m, o: pol.prune(m, pol.scores.magnitude, amount=0.1, optimizer=o),
    "sign_in": lambda m, o: pol.sign_in(m, optimizer=o),
    "merge": lambda m, o: pol.merge(m, optimizer=o),
    "enforce_in_step": lambda m, o: pol.enforce_in_step(m, o),
    "rescale": lambda m, o: pol.rescale(m, optimizer=o),
    "RescaleSchedule": lambda m, o: pol.RescaleSchedule(m, every=1, optimizer=o),
    "capture": lambda m, o: pol.RewindPoint.capture(m, o),
    "restore_schedule": lambda m, o: pol.RewindPoint.capture(m).restore_schedule(o),
    "lrr_step": lambda m, o: pol.lrr_step(m, 0.1, rewind=pol.RewindPoint.capture(m), optimizer=o),
    "PruneRounds": lambda m, o: pol.PruneRounds(m, 0.1, every=1, rounds=1, optimizer=o),
}


@pytest.mark.parametrize("call", LISTS)
def test_a_list_with_another_thing_in_it_is_refused_by_its_place(call: str) -> None:
    model, (one, _) = running(adam_twice, half_signed_in if "escale" in call else half_masked)
    before = fingerprint([model.state_dict(), one.state_dict()])
    with pytest.raises(TypeError, match=r"optimizer\[1\] is a str, expected a torch\.optim"):
        LISTS[call](model, [one, "adam"])
    with pytest.raises(ValueError, match=r"optimizer=\[\], expected at least one optimizer"):
        LISTS[call](model, [])
    with pytest.raises(ValueError, match="optimizer holds one optimizer twice"):
        LISTS[call](model, [one, one])
    assert fingerprint([model.state_dict(), one.state_dict()]) == before


@pytest.mark.parametrize("call", [call for call in LISTS if call not in ("capture",)])
def test_a_list_that_holds_none_of_the_weights_is_refused(call: str) -> None:
    form = half_signed_in if "escale" in call else half_masked
    model, other = form(seeded(Gan())), seeded(Gan())
    strangers = adam_twice(other)
    before = fingerprint(model.state_dict())
    with pytest.raises(ValueError, match=r"optimizer=\[Adam, Adam\]|rewind point holds none"):
        LISTS[call](model, strangers)
    assert fingerprint(model.state_dict()) == before


def test_one_of_two_optimizers_is_enough_where_the_other_trains_something_else() -> None:
    model, (generator, _) = running(adam_twice)
    before = copy.deepcopy(generator.state_dict()["param_groups"])
    pol.imp_prune(model, 0.3, optimizer=[generator])
    assert generator.state_dict()["param_groups"] == before


def test_factors_in_two_optimizers_are_refused_by_the_weights_name() -> None:
    model = half_signed_in(seeded(Gan()))
    factors = dict(model.named_parameters())
    m = [p for name, p in factors.items() if not name.endswith("original1")]
    v = [p for name, p in factors.items() if name.endswith("original1")]
    optimizers = [torch.optim.SGD(each, lr=0.1) for each in (m, v)]
    for call in (pol.merge, pol.rescale):
        with pytest.raises(
            ValueError, match=r"\[SGD, SGD\] holds the 2 parameters of 'gen.*groups"
        ):
            call(model, optimizer=optimizers)


def test_one_several_and_no_schedulers_become_a_tuple() -> None:
    sgd = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    one, two = (torch.optim.lr_scheduler.StepLR(sgd, 1) for _ in range(2))
    assert as_schedulers(None) == ()
    assert as_schedulers(one) == (one,)
    assert as_schedulers([one, two]) == (one, two)
    assert described([one, two]) == "[StepLR, StepLR]"
    with pytest.raises(ValueError, match="scheduler holds one scheduler twice"):
        as_schedulers([one, one])
    with pytest.raises(ValueError, match=r"scheduler=\[\], expected at least one scheduler"):
        as_schedulers([])


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    """A process group of one rank."""
    store = distributed.FileStore(str(tmp_path / "store"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("alone")
def test_of_state_that_ranks_divide_each_rank_zeroes_its_own_and_the_report_says_so() -> None:
    model = half_masked(seeded(Gan()))
    optimizer = ZeroRedundancyOptimizer(model.parameters(), torch.optim.Adam, lr=0.01)
    train_step(model, optimizer, INPUTS)
    report = pol.imp_prune(model, 0.4, optimizer=optimizer)
    (note,) = report.notes
    assert note.startswith(
        "not zeroed: the state that ZeroRedundancyOptimizer keeps on other ranks"
    )
    assert note in str(report)
    assert_zero_outside(model, [optimizer.optim])
    train_step(model, optimizer, INPUTS)


@pytest.mark.usefixtures("alone")
def test_an_optimizer_that_steps_inside_backward_is_refused() -> None:
    model = half_masked(seeded(Gan()))
    kind = torch.optim.Adam
    inside = ZeroRedundancyOptimizer(model.parameters(), kind, lr=0.01, overlap_with_ddp=True)
    before = fingerprint(model.state_dict())
    for call in (pol.imp_prune, pol.enforce_in_step, pol.RewindPoint.capture):
        with pytest.raises(ValueError, match=r"overlap_with_ddp=True.*inside backward"):
            call(model, optimizer=inside)
    assert fingerprint(model.state_dict()) == before


@pytest.mark.usefixtures("alone")
def test_an_optimizer_that_has_divided_its_parameters_cannot_take_factors() -> None:
    model = half_masked(seeded(Gan()))
    optimizer = ZeroRedundancyOptimizer(model.parameters(), torch.optim.Adam, lr=0.01)
    before = fingerprint(model.state_dict())
    with pytest.raises(ValueError, match="ZeroRedundancyOptimizer has divided its parameters"):
        pol.sign_in(model, optimizer=optimizer)
    assert fingerprint(model.state_dict()) == before
    pol.sign_in(model)
    later = ZeroRedundancyOptimizer(model.parameters(), torch.optim.Adam, lr=0.01)
    train_step(model, later, INPUTS)
    pol.rescale(model, optimizer=later, momentum="zero")
    with pytest.raises(ValueError, match="momentum='transform' needs the state of both factors"):
        pol.rescale(model, optimizer=later, momentum="transform")
    with pytest.raises(ValueError, match="ZeroRedundancyOptimizer has divided its parameters"):
        pol.merge(model, optimizer=later)


def test_an_optimizer_that_keeps_one_state_of_all_its_parameters_cannot_take_factors():
    model = pol.mask_weights(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)))
    lbfgs = torch.optim.LBFGS(model.parameters())
    with pytest.raises(ValueError, match=r"LBFGS keeps one flat state.*build it after this call"):
        pol.sign_in(model, optimizer=lbfgs)
    assert type(model[0].parametrizations.weight[0]) is pol.MaskedWeight
    pol.sign_in(model)
    with pytest.raises(ValueError, match="LBFGS keeps one flat state"):
        pol.merge(model, optimizer=torch.optim.LBFGS(model.parameters()))
