"""Signs, tickets and Sign-In on compact weights: the bits that masked weights get."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import polarity as pol
from tests.models import mlp
from tests.survivors.cases import (
    FORMS,
    Run,
    adam,
    compacted,
    equal_runs,
    is_compact,
    leaves,
    net,
    pair,
    remembered,
    same_tensors,
    sgd,
)

PERTURBATIONS: dict[str, Any] = {
    "none": None,
    "epsilon": pol.Epsilon(0.3),
    "delta": pol.Delta(0.3),
    "phi and epsilon": [pol.Phi(0.1), pol.Epsilon(0.2)],
}


def draw(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rewound_pair(product: bool) -> tuple[Run, Run, pol.RewindPoint]:
    """Return two equal pruned runs, and the weights at the start."""
    return *pair(product), pol.RewindPoint.capture(net(product))


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("perturb", PERTURBATIONS)
@pytest.mark.parametrize("strategy", ["mask0", "mask1", "gradual"])
@pytest.mark.parametrize("form", FORMS)
def test_signs_are_reinitialised_to_the_bits_of_a_masked_model(
    form: str, strategy: Any, perturb: str, scope: Any
) -> None:
    masked, compact, start = rewound_pair(FORMS[form])
    reports = [
        pol.reinit_signs(
            run.model, strategy, PERTURBATIONS[perturb], init=start, scope=scope, generator=draw()
        )
        for run in (masked, compact)
    ]
    assert str(reports[0]) == str(reports[1])
    assert is_compact(compact.model)
    equal_runs(masked, compact)
    compact.train(1)


@pytest.mark.parametrize("form", FORMS)
def test_strategy_standard_needs_the_dense_form(form: str) -> None:
    masked, compact, start = rewound_pair(FORMS[form])
    trained = [pol.RewindPoint.capture(run.model) for run in (masked, compact)]
    for run in (masked, compact):
        pol.imp_prune(run.model, 0.3, optimizer=run.optimizer)
    before = copy.deepcopy(compact.model.state_dict())
    with pytest.raises(ValueError, match=r"strategy 'standard' .* expand\(model, optimizer="):
        pol.reinit_signs(compact.model, "standard", init=start, trained=trained[1])
    assert same_tensors(before, compact.model.state_dict())
    assert is_compact(compact.model)
    pol.expand(compact.model, optimizer=compact.optimizer)
    for run, point in zip((masked, compact), trained, strict=True):
        pol.reinit_signs(run.model, "standard", init=start, trained=point)
    equal_runs(masked, compact)
    with pytest.raises(ValueError, match="is remembered, not enforced"):
        compacted(compact.model)


@pytest.mark.parametrize("optimizer", [sgd, adam], ids=["SGD", "Adam"])
def test_sign_in_splits_compact_weights_and_their_state_as_masked_ones(optimizer: Any) -> None:
    masked, compact = pair(False, optimizer)
    for run in (masked, compact):
        pol.sign_in(run.model, beta=0.7, optimizer=run.optimizer)
    assert is_compact(compact.model)
    assert all(isinstance(m, pol.SignInMW) for m in maskings(compact.model))
    equal_runs(masked, compact)
    for run in (masked, compact):  # again: nothing changes
        pol.sign_in(run.model, beta=0.7, optimizer=run.optimizer)
    equal_runs(masked, compact)
    compact.train(2)


def maskings(model: nn.Module) -> list[pol.MaskedWeight]:
    return [m for m in model.modules() if isinstance(m, pol.MaskedWeight)]


def test_an_optimizer_that_sign_in_was_not_told_of_raises() -> None:
    compact = pair()[1]
    pol.sign_in(compact.model, beta=0.7)
    with pytest.raises(RuntimeError, match=r"sign_in\(model, optimizer=optimizer\)"):
        compact.train(1)


def test_sign_in_of_one_layer_leaves_the_other_compact() -> None:
    masked, compact = pair()
    for run in (masked, compact):
        pol.sign_in(run.model, targets="0.weight", optimizer=run.optimizer)
    assert [type(m) for m in maskings(compact.model)] == [pol.SignInMW, pol.MaskedWeight]
    assert is_compact(compact.model)
    equal_runs(masked, compact)


@pytest.mark.parametrize("momentum", ["keep", "zero", "transform"])
@pytest.mark.parametrize("optimizer", [sgd, adam], ids=["SGD", "Adam"])
def test_rescaling_gives_the_bits_of_a_masked_model(optimizer: Any, momentum: Any) -> None:
    masked, compact = pair(True, optimizer)
    for run in (masked, compact):
        pol.rescale(run.model, optimizer=run.optimizer, momentum=momentum)
    equal_runs(masked, compact)
    schedules = [
        pol.RescaleSchedule(run.model, every=2, until=5, optimizer=run.optimizer, momentum=momentum)
        for run in (masked, compact)
    ]
    for _ in range(4):
        assert [each.step() for each in schedules] in ([True, True], [False, False])
    equal_runs(masked, compact)
    assert is_compact(compact.model)
    scaling = pol.inner_scaling(compact.model)
    assert same_tensors(scaling, pol.inner_scaling(masked.model))
    for value in scaling.values():
        torch.testing.assert_close(value, torch.full_like(value, 0.5), rtol=1e-4, atol=1e-4)
    compact.train(1)


def test_frobenius_decay_is_that_of_the_masked_model_and_reads_survivors_alone() -> None:
    masked, compact = pair(True)
    penalties = [pol.frobenius_decay(run.model) for run in (masked, compact)]
    torch.testing.assert_close(penalties[1], penalties[0])
    gradients = []
    for run, penalty in zip((masked, compact), penalties, strict=True):
        run.optimizer.zero_grad()
        penalty.backward()
        gradients.append({
            name: parameter.grad if parameter.dim() == 1 or mask is None
            else parameter.grad[mask != 0]
            for name, (parameter, mask) in leaves(run.model).items()
            if parameter.grad is not None
        })  # fmt: skip
    assert same_tensors(*gradients)
    assert len(gradients[0]) == 4
    sizes = {saved_size(pol.frobenius_decay(compact.model))}
    assert sizes == {max(int(m.sum()) for m in pol.masks(compact.model).values())}


def saved_size(value: Tensor) -> int:
    """Return the largest number of entries that the graph of a value keeps."""
    sizes, nodes = [0], [value.grad_fn]
    while nodes:
        node = nodes.pop()
        for name in dir(node):
            saved = getattr(node, name) if name.startswith("_saved_") else None
            if isinstance(saved, Tensor):
                sizes.append(saved.numel())
        nodes += [each for each, _ in getattr(node, "next_functions", ()) if each is not None]
    return max(sizes)


@pytest.mark.parametrize("form", FORMS)
def test_tickets_of_compact_models_are_those_of_masked_ones(form: str, tmp_path: Any) -> None:
    masked, compact = pair(FORMS[form])
    one, other = pol.signed_mask(masked.model), pol.signed_mask(compact.model)
    assert same_tensors(one.masks, other.masks)
    assert same_tensors(one.signs, other.signs)
    one.save(tmp_path / "masked.safetensors"), other.save(tmp_path / "compact.safetensors")
    assert (tmp_path / "masked.safetensors").read_bytes() == (
        tmp_path / "compact.safetensors"
    ).read_bytes()


def ticket(density: float, seed: int = 3) -> pol.SignedMask:
    model = mlp(6, 8, 3, seed=seed)
    pol.imp_prune(model, density=density)
    return pol.signed_mask(model)


def inside(given: pol.SignedMask, model: nn.Module) -> pol.SignedMask:
    """Return the part of a ticket that lies within the masks of a model."""
    donor = mlp(6, 8, 3, seed=3)
    masks = {n: m & given.masks[n] for n, m in pol.masks(model).items()}
    return pol.signed_mask(pol.load_masks(donor, masks))


STARTS: dict[str, Callable[[nn.Module, Any], Any]] = {
    "SignedMask.apply": lambda m, t: t.apply(m),
    "start_from_signs": lambda m, t: pol.start_from_signs(m, t, t),
    "start_from_mask": lambda m, t: pol.start_from_mask(m, t),
    "start_from_magnitudes": lambda m, t: pol.start_from_magnitudes(
        m, pol.RewindPoint.capture(mlp(6, 8, 3, seed=8)), t, generator=draw()
    ),
}


@pytest.mark.filterwarnings("ignore:.*entries are 0 in this initialisation")  # grown at zero
@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("form", FORMS)
def test_tickets_shrink_compact_models_and_do_not_grow_them(form: str, start: str) -> None:
    masked, compact = pair(FORMS[form], steps=0)
    before = copy.deepcopy(compact.model.state_dict())
    with pytest.raises(ValueError, match=r"gives back .* expand\(model, optimizer=optimizer\)"):
        STARTS[start](compact.model, ticket(0.9))
    assert same_tensors(before, compact.model.state_dict())
    given = inside(ticket(0.9), masked.model)
    for run in (masked, compact):
        STARTS[start](run.model, given)
    assert is_compact(compact.model)
    assert same_tensors(masked.model.state_dict(), compact.model.state_dict())
    assert same_tensors(pol.masks(compact.model), given.masks)
    pol.expand(compact.model), STARTS[start](compact.model, ticket(0.9))  # the remedy
    compact.train(1)


@pytest.mark.parametrize("form", FORMS)
def test_sign_flips_and_trackers_see_the_same_signs(form: str) -> None:
    masked, compact = pair(FORMS[form])
    before = [pol.RewindPoint.capture(run.model) for run in (masked, compact)]
    trackers = [pol.SignTracker(run.model) for run in (masked, compact)]
    for run in (masked, compact):
        run.train(4)
    pol.expand(compact.model, optimizer=compact.optimizer)
    masked.model.load_state_dict(compact.model.state_dict())
    compacted(compact.model, compact.optimizer)
    for tracker in trackers:
        tracker.mark("later")
    pol.imp_prune(masked.model, 0.3), pol.imp_prune(compact.model, 0.3)
    for tracker in trackers:
        tracker.mark("pruned")
    assert str(trackers[0].state_dict()) == str(trackers[1].state_dict())
    reports = [
        str(pol.sign_flips(point, run.model, pol.masks(run.model)))
        for point, run in zip(before, (masked, compact), strict=True)
    ]
    assert reports[0] == reports[1]
    assert remembered(compact).keys() == remembered(masked).keys()
