"""A model is run on any inputs, and afterwards nothing tells that it was."""

from collections import namedtuple

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.utils import parametrizations, weight_norm

from polarity import _running
from tests.models import Recurrent, mlp

Pair = namedtuple("Pair", "first second")
ONES = torch.ones(2)


class Adds(nn.Module):
    def forward(self, x, y=0, *, z=0):
        return x + 10 * y + 100 * z


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (ONES, 1),
        ((ONES,), 1),
        ([ONES, 2 * ONES], 21),
        ({"x": ONES, "z": 3 * ONES}, 301),
    ],
    ids=["tensor", "tuple", "list", "dict"],
)
def test_a_model_is_called_on_a_tensor_several_arguments_or_keywords(inputs, expected):
    assert torch.equal(_running.call(Adds(), inputs), expected * ONES)


def test_tensors_are_found_and_mapped_wherever_they_are_nested():
    value = {"a": ONES, "b": [Pair(2 * ONES, "text"), (3 * ONES, None)], "c": 4}
    assert [int(each[0]) for each in _running.tensors_in(value)] == [1, 2, 3]
    mapped = _running.map_tensors(lambda each: -each, value)
    assert [int(each[0]) for each in _running.tensors_in(mapped)] == [-1, -2, -3]
    assert isinstance(mapped["b"], list)
    assert isinstance(mapped["b"][0], Pair)
    assert (mapped["b"][0].second, mapped["b"][1][1], mapped["c"]) == ("text", None, 4)


def draw_and_fail() -> None:
    torch.rand(3)
    raise OSError("broken")


def run_and_fail(context) -> None:
    with pytest.raises(OSError, match="broken"), context:
        draw_and_fail()


def test_evaluation_leaves_modes_and_random_state_as_they_were_even_upon_an_error():
    model = nn.Sequential(mlp(3, 2), nn.Dropout(0.5)).train()
    model[0].eval()
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    with _running.evaluation(model):
        assert not any(module.training for module in model.modules())
        assert not torch.is_grad_enabled()
        torch.rand(3)
    run_and_fail(_running.evaluation(model))
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)


def test_a_seed_decides_what_is_drawn_inside_and_nothing_outside():
    model, state = mlp(3, 2), torch.get_rng_state()
    with _running.same_random_state(model, 4):
        inside = torch.rand(3)
    run_and_fail(_running.same_random_state(model, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(inside, torch.rand(3, generator=torch.Generator().manual_seed(4)))


def test_gradients_are_recorded_where_the_caller_turned_them_off():
    model = mlp(3, 2)
    for off in (torch.no_grad(), torch.inference_mode()):
        with off:
            with _running.recording_gradients():
                model(torch.ones(1, 3)).sum().backward()
            assert not torch.is_grad_enabled()
    assert torch.equal(model[0].bias.grad, torch.full((2,), 2.0))


@pytest.mark.parametrize("on", [True, False])
def test_kernels_are_chosen_again_as_they_were(monkeypatch, on):
    backends = torch.backends.cudnn, torch.backends.mkldnn
    for backend in backends:
        monkeypatch.setattr(backend, "enabled", on)
    recurrent, plain = Recurrent(nn.LSTM), mlp(3, 2)
    with _running.twice_differentiable(recurrent):
        assert not any(backend.enabled for backend in backends)
        assert not torch.backends.mha.get_fastpath_enabled()
    with _running.twice_differentiable(plain):
        assert all(backend.enabled == on for backend in backends)
    run_and_fail(_running.twice_differentiable(recurrent))
    assert all(backend.enabled == on for backend in backends)
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("norm", [parametrizations.weight_norm, weight_norm])
@pytest.mark.parametrize("dim", [0, 1, None])
def test_weight_norm_has_a_second_derivative(norm, dim):
    model = norm(mlp(3, 2)[0], dim=dim).double()
    x = torch.ones(1, 3, dtype=torch.float64)
    names = [name for name, _ in model.named_parameters()]

    def loss(*values):
        return functional_call(model, dict(zip(names, values, strict=True)), (x,)).square().sum()

    values = tuple(model.parameters())
    plain = model(x)
    with _running.twice_differentiable(model):
        torch.testing.assert_close(model(x), plain)
        assert torch.autograd.gradgradcheck(loss, values)


def test_a_seed_is_drawn_from_a_generator_or_not_at_all():
    state = torch.get_rng_state()
    one, other = (_running.drawn_seed(torch.Generator().manual_seed(3)) for _ in range(2))
    assert one == other != _running.drawn_seed(torch.Generator().manual_seed(4))
    assert _running.drawn_seed(None) is None
    assert torch.equal(torch.get_rng_state(), state)
