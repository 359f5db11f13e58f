"""Every public function that draws takes a generator, of any device, and refuses anything else."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import polarity as pol
from polarity.scores import grasp, random, snip, synflow
from tests.helpers import everything_of
from tests.laws.test_draws_on_ranks import EVERY
from tests.models import CROSS_ENTROPY, generator, mlp, noisy

BATCHES = [(torch.ones(4, 6), torch.tensor([0, 1, 2, 0]))]
ONES = torch.ones(3, dtype=torch.int8)


def half(model: nn.Module) -> pol.RewindPoint:
    start = pol.RewindPoint.capture(model)
    pol.imp_prune(model, density=0.5)
    return start


def constants(weight: torch.Tensor, given: Any) -> Any:
    mask = torch.ones_like(weight, dtype=torch.bool)
    return pol.signed_constants({"w": weight}, {"w": weight}, {"w": mask}, **given)


def ones(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: torch.ones(target.shape) for name, target in pol.find_targets(model).items()}


def fail(*args: Any) -> Any:
    raise AssertionError("called before the generator was checked")


def barrier(model: nn.Module, given: Any) -> Any:
    return pol.error_barrier(model, model, model, lambda network: 0.0, **given)


# Calls that would work without ``generator``; whether they would draw does not matter.
CALLS: dict[Callable[..., Any], Callable[[nn.Module, Any], Any]] = {
    pol.reinit_signs: lambda m, given: pol.reinit_signs(m, init=half(m), **given),
    pol.signed_constants: lambda m, given: constants(m[0].weight.detach(), given),
    pol.prune: lambda m, given: pol.prune(m, random, density=0.5, **given),
    pol.imp_prune: lambda m, given: pol.imp_prune(m, 0.5, **given),
    pol.lrr_step: lambda m, given: pol.lrr_step(m, rewind=pol.RewindPoint.capture(m), **given),
    pol.start_from_magnitudes: lambda m, given: pol.start_from_magnitudes(
        m, pol.RewindPoint.capture(m), ones(m), **given
    ),
    pol.interpolate_norms: lambda m, given: pol.interpolate_norms(nn.LayerNorm(3), **given),
    pol.reinitialize: lambda m, given: pol.reinitialize(m, **given),
    pol.error_barrier: barrier,
    pol.sgd_noise_stability: lambda m, given: pol.sgd_noise_stability(m, fail, fail, **given),
    pol.init_noise_stability: lambda m, given: pol.init_noise_stability(fail, fail, fail, **given),
    pol.sharpness: lambda m, given: pol.sharpness(m, CROSS_ENTROPY, BATCHES, **given),
    pol.compact: lambda m, given: pol.compact(m, BATCHES[0][0], **given),
    pol.deploy.compress: lambda m, given: pol.deploy.compress(m, BATCHES[0][0], **given),
    random: lambda m, given: random("w", m[0].weight, **given),
    snip: lambda m, given: snip(m, CROSS_ENTROPY, BATCHES, **given),
    grasp: lambda m, given: grasp(m, CROSS_ENTROPY, BATCHES, **given),
    synflow: lambda m, given: synflow(m, BATCHES[0][0], density=0.5, **given),
    pol.Epsilon.__call__: lambda m, given: pol.Epsilon(0.5)(ONES, ONES.float(), **given),
    pol.Delta.__call__: lambda m, given: pol.Delta(0.5)(ONES, ONES.float(), **given),
}
each_call = pytest.mark.parametrize("function", CALLS, ids=lambda function: function.__qualname__)


def test_the_calls_here_are_those_that_take_a_generator() -> None:
    rooms = [pol, pol.scores, pol.densities, pol.deploy]
    public = [getattr(room, name) for room in rooms for name in room.__all__]
    functions = {each for each in public if inspect.isfunction(each)}
    functions |= {each.__call__ for each in public if isinstance(each, type)}
    functions = {each for each in functions if inspect.isfunction(each)}
    takes = {each for each in functions if "generator" in inspect.signature(each).parameters}
    assert takes == set(CALLS)


@each_call
@pytest.mark.parametrize(
    "given",
    [3, True, "0", np.random.default_rng(0), torch.tensor(1)],
    ids=lambda each: type(each).__name__,  # a generator's repr has its address, not so its type
)
def test_what_is_no_generator_is_refused_and_changes_nothing(function: Any, given: Any) -> None:
    model = noisy()
    call = CALLS[function]
    if function is pol.reinit_signs:
        start = half(model)
        call = lambda m, given: pol.reinit_signs(m, init=start, **given)  # noqa: E731
    before = everything_of(model)
    with pytest.raises(TypeError, match=r"generator=.* is an? .*, expected a torch\.Generator: "):
        call(model, {"generator": given})
    assert everything_of(model) == before


@pytest.mark.gpu
@pytest.mark.parametrize("name", EVERY)
def test_a_generator_may_be_on_another_device_than_the_weights(name: str) -> None:
    one, other = (EVERY[name](torch.Generator("cuda").manual_seed(3)) for _ in range(2))
    assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))


@pytest.mark.gpu
def test_weights_on_a_gpu_are_drawn_by_a_generator_of_the_cpu() -> None:
    masks = []
    for device in ("cpu", "cuda"):
        model = mlp(20, 30, 10).to(device)
        pol.prune(model, random, density=0.5, generator=generator(3))
        masks.append([mask.cpu() for mask in pol.masks(model).values()])
    assert all(torch.equal(*pair) for pair in zip(*masks, strict=True))
