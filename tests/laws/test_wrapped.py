"""A wrapper may be given instead of the model: names are plain, and the wrapper comes back."""

import inspect
import tempfile
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

import polarity as pol
from polarity import analysis, dense_to_sparse, densities, deploy, scores
from polarity.targets.wrappers import unwrapped
from tests.forms import random_masks
from tests.helpers import sparse_wins
from tests.laws.refusals import fingerprint
from tests.laws.wrapped import (
    ATTACH,
    INPUTS,
    WRAPPERS,
    draw,
    each_wrapper,
    interpolated,
    masked,
    merged,
    plain,
    point,
    returned,
    signed_in,
    thresholded,
)
from tests.models import seeded

pytestmark = pytest.mark.usefixtures("one_process")

BATCHES = [(INPUTS, torch.arange(6) % 3)]
LOSS = nn.functional.cross_entropy


def tracked(model: nn.Module) -> Any:
    tracker = pol.SignTracker(model)
    pol.RewindPoint(point(seeded(plain(), 4))).restore_weights(model)
    tracker.step()
    return tracker.flips().to_dict()


def saved(model: nn.Module) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        pol.save(model, f"{folder}/it.safetensors")
        copy = pol.load(plain(), f"{folder}/it.safetensors")
        assert pol.load(model, f"{folder}/it.safetensors") is model
    return copy.state_dict()


def in_step(model: nn.Module) -> Any:
    handle = pol.enforce_in_step(model, torch.optim.SGD(model.parameters(), lr=0.1))
    handle.remove()
    return point(model)


def scheduled(model: nn.Module) -> Any:
    pol.RescaleSchedule(model, every=1).step()
    return point(model)


def accuracy(network: nn.Module) -> float:
    return float(network(INPUTS).square().mean())


def trained(network: nn.Module, seed: int) -> None:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.01 * seed)


def compressed(model: nn.Module) -> Any:
    report = deploy.compress(model, INPUTS, measure=sparse_wins, break_even=1.0)
    state = {name: value.clone() for name, value in unwrapped(model).state_dict().items()}
    assert deploy.restore(model, state) is model
    assert deploy.decompress(model) is model
    return [layer.name for layer in report], state


def compact() -> nn.Module:
    model = masked()
    pol.compact(model, break_even=1.0)
    return model


def compacted(model: nn.Module) -> Any:
    report = pol.compact(model, INPUTS, measure=sparse_wins, break_even=1.0)
    return report.compact, point(model)


def in_rounds(model: nn.Module) -> Any:
    rounds = pol.PruneRounds(model, 0.5, every=1, rounds=1, rewind="weights")
    return str(rounds.step()), point(model)


Call = Callable[[nn.Module], Any]
# What to call, on which model, and what must be the same for the wrapper.
CALLS: dict[str, tuple[Callable[[], nn.Module], Call]] = {
    "find_targets": (plain, lambda m: (str(pol.find_targets(m)), pol.find_targets(m).skipped)),
    "find_targets by name": (plain, lambda m: list(pol.find_targets(m, "3", exclude="0.*"))),
    "mask_weights": (masked, lambda m: returned(m, pol.mask_weights(m))),
    "masks": (masked, pol.masks),
    "load_masks": (masked, lambda m: returned(m, pol.load_masks(m, random_masks(plain(), seed=8)))),
    "density": (masked, pol.density),
    "density of a plain model": (plain, pol.density),
    "sparsity": (masked, pol.sparsity),
    "imp_prune": (masked, lambda m: (str(pol.imp_prune(m, 0.5)), point(m))),
    "imp_prune, rewound": (
        masked,
        lambda m: (str(pol.imp_prune(m, rewind=pol.RewindPoint.capture(plain()))), point(m)),
    ),
    "imp_prune, selected": (masked, lambda m: str(pol.imp_prune(m, 0.5, targets="3"))),
    "lrr_step": (masked, lambda m: str(pol.lrr_step(m, rewind=pol.RewindPoint.capture(m)))),
    "PruneRounds": (masked, in_rounds),
    "prune": (masked, lambda m: str(pol.prune(m, scores.random, density=0.3, generator=draw()))),
    "RewindPoint": (
        masked,
        lambda m: returned(m, pol.RewindPoint.capture(seeded(plain(), 9)).restore_weights(m)),
    ),
    "reinit_signs": (
        masked,
        lambda m: (
            str(pol.reinit_signs(m, "gradual", init=point(plain()), generator=draw())),
            point(m),
        ),
    ),
    "sign_flips": (masked, lambda m: str(pol.sign_flips(seeded(plain(), 4), m))),
    "summary": (masked, lambda m: pol.summary(m, INPUTS).to_dict()),
    "SignTracker": (masked, tracked),
    "signed_mask": (masked, lambda m: pol.signed_mask(m, include="*.bias").signs),
    "SignedMask": (masked, lambda m: returned(m, pol.signed_mask(masked()).apply(m))),
    "start_from_signs": (
        masked,
        lambda m: (
            str(pol.start_from_signs(m, point(seeded(plain(), 4)), random_masks(plain(), seed=8))),
            point(m),
        ),
    ),
    "start_from_magnitudes": (
        masked,
        lambda m: (
            str(
                pol.start_from_magnitudes(
                    m, point(plain()), random_masks(plain(), seed=8), generator=draw()
                )
            ),
            point(m),
        ),
    ),
    "start_from_mask": (
        masked,
        lambda m: (str(pol.start_from_mask(m, random_masks(plain(), seed=8))), point(m)),
    ),
    "dense_to_sparse.soft_mask": (thresholded, dense_to_sparse.soft_mask),
    "dense_to_sparse.soft_density": (thresholded, dense_to_sparse.soft_density),
    "dense_to_sparse.threshold_report": (
        thresholded,
        lambda m: str(dense_to_sparse.threshold_report(m)),
    ),
    "dense_to_sparse.weights_before_threshold": (
        thresholded,
        dense_to_sparse.weights_before_threshold,
    ),
    "save and load": (masked, saved),
    "save and load Sign-In": (signed_in, saved),
    "dense_state_dict": (signed_in, pol.dense_state_dict),
    "merge": (masked, lambda m: returned(m, pol.merge(m))),
    "merge norms": (interpolated, lambda m: returned(m, pol.merge(m))),
    "sign_in again": (signed_in, lambda m: returned(m, pol.sign_in(m, beta=2.0))),
    "reinitialize": (masked, lambda m: returned(m, pol.reinitialize(m, generator=draw()))),
    "rescale": (signed_in, lambda m: returned(m, pol.rescale(m))),
    "RescaleSchedule": (signed_in, scheduled),
    "frobenius_decay": (signed_in, lambda m: pol.frobenius_decay(m).detach()),
    "inner_scaling": (signed_in, pol.inner_scaling),
    "enforce_in_step": (masked, in_step),
    "interpolate_norms again": (
        interpolated,
        lambda m: returned(m, pol.interpolate_norms(m)),
    ),
    "norm_alpha": (interpolated, pol.norm_alpha),
    "norm_alpha_state": (interpolated, pol.norm_alpha_state),
    "load_norm_alpha_state": (
        interpolated,
        lambda m: returned(m, pol.load_norm_alpha_state(m, pol.norm_alpha_state(interpolated()))),
    ),
    "set_norm_alpha": (interpolated, lambda m: pol.set_norm_alpha(m, 0.5) and pol.norm_alpha(m)),
    "recalibrate_batch_norm": (
        masked,
        lambda m: (pol.recalibrate_batch_norm(m, [INPUTS]), point(m)),
    ),
    "error_barrier": (
        masked,
        lambda m: str(pol.error_barrier(m, m, plain(), accuracy, batches=[INPUTS], points=3)),
    ),
    "sgd_noise_stability": (
        masked,
        lambda m: str(pol.sgd_noise_stability(m, trained, accuracy, bn="keep", points=3)),
    ),
    "sharpness": (masked, lambda m: round(pol.sharpness(m, LOSS, BATCHES, parameters="0"), 4)),
    "densities.erk": (masked, lambda m: densities.erk(m, 0.3)),
    "densities.uniform": (masked, lambda m: densities.uniform(m, 0.3)),
    "densities.balanced": (plain, lambda m: densities.balanced(m, 0.3)),
    "scores.snip": (masked, lambda m: scores.snip(m, LOSS, BATCHES)),
    "scores.grasp": (masked, lambda m: scores.grasp(m, LOSS, BATCHES)),
    "scores.synflow": (plain, lambda m: scores.synflow(m, INPUTS[:1], density=0.3, steps=3)),
    "deploy.compress": (merged, compressed),
}


@each_wrapper
@pytest.mark.parametrize("name", CALLS)
def test_a_call_on_a_wrapper_does_what_it_does_on_the_model(name, wrap):
    make, call = CALLS[name]
    model = make()
    inner = unwrapped(model)
    torch.manual_seed(0)
    expected = call(make())
    wrapped = wrap(model)
    torch.manual_seed(0)
    assert fingerprint(call(wrapped)) == fingerprint(expected)
    assert unwrapped(wrapped) is inner or isinstance(wrapped, AveragedModel)


RESIZE = {
    "compact": (masked, compacted),
    "expand": (compact, lambda m: returned(m, pol.expand(m))),
}


@each_wrapper
@pytest.mark.parametrize("name", RESIZE)
def test_parameters_are_resized_through_wrappers_but_not_inside_ddp(name, wrap):
    make, call = RESIZE[name]
    model, expected = make(), call(make())
    wrapped = wrap(model)
    if any(isinstance(each, DistributedDataParallel) for each in wrapped.modules()):
        before = fingerprint(point(model))
        with pytest.raises(TypeError, match=r"DistributedDataParallel.*: attach before wrapping"):
            call(wrapped)
        assert fingerprint(point(model)) == before
    else:
        assert fingerprint(call(wrapped)) == fingerprint(expected)


@each_wrapper
def test_a_point_captured_from_a_wrapper_fits_the_model_and_the_other_way_round(wrap):
    wrapped = wrap(masked())
    start = pol.RewindPoint.capture(wrapped)
    assert list(start.weights) == list(pol.RewindPoint.capture(masked()).weights)
    fresh = pol.load_masks(seeded(plain(), 7), pol.masks(wrapped))
    pol.imp_prune(fresh, 0.1, rewind=start)
    other = pol.RewindPoint.capture(seeded(plain(), 8))
    pol.imp_prune(wrapped, 0.1, rewind=other)
    inner: Any = unwrapped(wrapped)
    for name, target in pol.find_targets(inner).items():
        mask = pol.masks(inner)[name]
        assert torch.equal(target.weight, other.weights[name] * mask)


@pytest.mark.parametrize("wrap", ["DDP", "compile", "DataParallel"])
def test_a_wrapped_model_trains_after_it_was_pruned_through_the_wrapper(wrap):
    wrapped = WRAPPERS[wrap](masked()).train()
    sgd = torch.optim.SGD(wrapped.parameters(), lr=0.1, momentum=0.9)
    for amount in (0.2, 0.3):
        wrapped(INPUTS).square().mean().backward()
        sgd.step()
        pol.imp_prune(wrapped, amount, optimizer=sgd)
    wrapped(INPUTS).square().mean().backward()
    sgd.step()
    inner: Any = unwrapped(wrapped)
    for name, mask in pol.masks(wrapped).items():
        assert not pol.find_targets(inner)[name].weight[~mask].any()


def test_every_public_function_of_a_model_is_in_the_table():
    spaces = [pol, analysis, scores, densities, deploy]
    public = {
        f"{space.__name__.removeprefix('polarity').lstrip('.')}.{name}".lstrip(".")
        for space in spaces
        for name in space.__all__
        if callable(getattr(space, name)) and "model" in parameters_of(getattr(space, name))
    }
    tried = {
        word for name in [*CALLS, *RESIZE, *ATTACH] for word in (name, *name.split(", ")[0].split())
    }
    tried |= {"deploy.decompress", "deploy.restore", "init_noise_stability"}
    missing = {name for name in public if name not in tried and name.split(".")[-1] not in tried}
    assert missing == set()


def parameters_of(call: Any) -> set[str]:
    try:
        return set(inspect.signature(call).parameters)
    except (TypeError, ValueError):
        return set()
