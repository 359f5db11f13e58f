"""One parameter between its trained and its initial value, and the stream of weights it reads."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization, remove_parametrizations

import polarity as pol
from polarity.parametrizations.shared_alpha import SharedAlpha, draw_seeds

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def norm(dtype: torch.dtype = torch.float32, alpha: float | Tensor = 1.0) -> nn.LayerNorm:
    """A LayerNorm whose trained and initial weights are unlike each other in every bit."""
    draw = torch.Generator().manual_seed(0)
    layer = nn.LayerNorm(500, dtype=dtype)
    initial = (torch.randn(500, generator=draw, dtype=torch.float64) * 3).to(dtype)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(500, generator=draw, dtype=torch.float64).exp())
    return register_parametrization(layer, "weight", pol.NormInterp(initial, alpha))


def trained(layer: nn.Module) -> Tensor:
    return layer.parametrizations.weight.original


def initial(layer: nn.Module) -> Tensor:
    return layer.parametrizations.weight[0].initial


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("cast", [False, True], ids=["built", "cast"])
def test_both_sides_are_exact_in_every_dtype(dtype: torch.dtype, cast: bool) -> None:
    layer = norm().to(dtype) if cast else norm(dtype)
    alpha = layer.parametrizations.weight[0].alpha
    assert layer.weight.dtype == dtype
    alpha.fill_(1.0)
    assert torch.equal(layer.weight, trained(layer))
    alpha.fill_(0.0)
    assert torch.equal(layer.weight, initial(layer))
    assert torch.equal(layer.eval().weight, trained(layer))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("alpha", [0.25, 0.5, 0.7])
def test_between_the_sides_it_is_the_weighted_mean(dtype: torch.dtype, alpha: float) -> None:
    layer = norm(dtype, alpha)
    weight = layer.parametrizations.weight[0].alpha.to(dtype).double()
    expected = weight * trained(layer).double() + (1 - weight) * initial(layer).double()
    close = {"rtol": 2 * torch.finfo(dtype).eps, "atol": 8 * torch.finfo(dtype).eps}
    torch.testing.assert_close(layer.weight.double(), expected, **close)


def test_the_gradient_is_scaled_by_alpha_and_none_reaches_anything_else() -> None:
    alpha = torch.tensor(0.3)
    layer = norm(alpha=alpha)
    incoming = torch.linspace(-1, 1, 500)
    layer.weight.backward(incoming)
    torch.testing.assert_close(trained(layer).grad, 0.3 * incoming)
    assert alpha.grad is None
    assert initial(layer).grad is None
    layer.zero_grad()
    layer.eval().weight.backward(incoming)
    assert torch.equal(trained(layer).grad, incoming)


def test_gradients_of_first_and_second_order_are_right() -> None:
    start = torch.randn(4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    interp = pol.NormInterp(start, torch.tensor(0.6, dtype=torch.float64))
    psi = (start + 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: interp(x).square(), psi)
    assert torch.autograd.gradgradcheck(lambda x: interp(x).square(), psi)


def test_a_graph_keeps_the_value_it_was_made_with() -> None:
    alpha = torch.tensor(0.25)
    layer = norm(alpha=alpha)
    first = layer.weight.sum()
    alpha.fill_(0.5)
    second = layer.weight.sum()
    alpha.fill_(1.0)
    (first + second).backward()
    assert torch.equal(trained(layer).grad, torch.full((500,), 0.75))


def test_assignment_copies_and_sets_what_is_trained() -> None:
    layer, given = norm(alpha=0.5), torch.full((500,), 2.0)
    parameter = trained(layer)
    layer.weight = given
    assert trained(layer) is parameter
    assert torch.equal(parameter, given)
    torch.testing.assert_close(layer.weight, 1.0 + 0.5 * initial(layer))
    with torch.no_grad():
        parameter.add_(1)
    assert torch.equal(given, torch.full((500,), 2.0))


def test_what_it_is_given_is_copied_but_alpha_is_kept() -> None:
    start, alpha = torch.ones(3), torch.tensor(0.5)
    one, other = pol.NormInterp(start, alpha), pol.NormInterp(start, alpha)
    start.zero_()
    assert one.initial.tolist() == [1.0, 1.0, 1.0]
    assert one.alpha is other.alpha is alpha
    alpha.fill_(0.0)
    assert other(torch.zeros(3)).tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    "alpha", [torch.ones(1), torch.ones((), dtype=torch.int64)], ids=["shape", "dtype"]
)
def test_alpha_of_another_kind_is_refused(alpha: Tensor) -> None:
    with pytest.raises(ValueError, match="alpha has shape"):
        pol.NormInterp(torch.ones(3), alpha)


def test_an_initial_value_of_another_shape_is_refused() -> None:
    layer = nn.LayerNorm(4)
    with pytest.raises(ValueError, match=r"initial has shape \(3,\)"):
        register_parametrization(layer, "weight", pol.NormInterp(torch.ones(3)))
    layer = norm()
    with pytest.raises(ValueError, match=r"initial has shape \(500,\)"):
        layer.weight = torch.ones(1)


def test_removing_it_by_hand_leaves_the_trained_parameter() -> None:
    layer = norm(alpha=0.2)
    parameter, value = trained(layer), trained(layer).detach().clone()
    remove_parametrizations(layer, "weight", leave_parametrized=False)
    assert layer.weight is parameter
    assert torch.equal(parameter, value)


@pytest.mark.parametrize("change", ["double", "bfloat16", "to_empty", "deepcopy", "assign"])
def test_a_shared_value_stays_one_for_all(change: str) -> None:
    shared = SharedAlpha(0.5, draw_seeds(torch.Generator().manual_seed(0)))
    layers = nn.ModuleList([nn.LayerNorm(3) for _ in range(3)])
    for layer in layers:
        register_parametrization(layer, "weight", pol.NormInterp(torch.ones(3), shared))
    if change == "deepcopy":
        layers = copy.deepcopy(layers)
    elif change == "assign":
        state = {key: value.clone() for key, value in layers.state_dict().items()}
        layers.load_state_dict(state, assign=True)
    elif change == "to_empty":
        layers.to_empty(device="cpu")
    else:
        layers.to(getattr(torch, change))
    alphas = {id(layer.parametrizations.weight[0].alpha) for layer in layers}
    assert len(alphas) == 1
    now = layers[0].parametrizations.weight[0].shared
    assert (now is shared) == (change != "deepcopy")
    now.alpha.fill_(0.125)
    assert all(float(layer.parametrizations.weight[0].alpha) == 0.125 for layer in layers)


def lecuyer(first: int, second: int, count: int) -> tuple[int, int, int]:
    """The generator of L'Ecuyer (1988) in integers of any size: both states and the last output."""
    output = 0
    for _ in range(count):
        first = first * 40014 % 2147483563
        second = second * 40692 % 2147483399
        output = (first - second) % 2147483562
    return first, second, output


def test_the_reference_itself_gives_the_published_value() -> None:
    # The ten thousandth output from the seeds 1, 1, by which implementations are validated.
    assert lecuyer(1, 1, 10_000)[2] == 2060321752


@pytest.mark.parametrize("seed", [0, 1, 2**40])
def test_the_stream_is_that_of_its_source(seed: int) -> None:
    seeds = draw_seeds(torch.Generator().manual_seed(seed))
    stream = SharedAlpha(seeds=seeds.clone())
    for count in range(1, 200):
        stream.draw_()
        first, second, output = lecuyer(*seeds.tolist(), count)
        assert stream.stream.tolist() == [first, second]
        assert float(stream.alpha) == float(torch.tensor(output, dtype=torch.float32)) / 2**31


def test_the_largest_states_do_not_overflow_and_stay_below_one() -> None:
    for seeds in ([2147483562, 2147483398], [1, 2147483398], [2147483562, 1]):
        stream = SharedAlpha(seeds=torch.tensor(seeds))
        stream.draw_()
        assert stream.stream.tolist() == list(lecuyer(*seeds, 1)[:2])
        assert 0 <= float(stream.alpha) < 1


def test_the_values_are_uniform_and_follow_each_other_without_pattern() -> None:
    stream = SharedAlpha(seeds=draw_seeds(torch.Generator().manual_seed(3)))
    values = []
    for _ in range(4000):
        stream.draw_()
        values.append(float(stream.alpha))
    ordered = torch.tensor(values, dtype=torch.float64).sort().values
    ideal = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    # Kolmogorov's statistic exceeds 1.95 / sqrt(n) once in a thousand samples.
    assert float((ordered - ideal).abs().max()) < 1.95 / math.sqrt(4000)
    centred = torch.tensor(values, dtype=torch.float64) - 0.5
    for lag in (1, 2, 5):
        correlation = float((centred[:-lag] * centred[lag:]).mean()) * 12
        assert abs(correlation) < 4 / math.sqrt(4000)


def test_the_global_random_state_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    stream = SharedAlpha(seeds=draw_seeds(torch.Generator().manual_seed(0)))
    stream.draw_()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_change_of_dtype_leaves_the_stream_and_rounds_the_value() -> None:
    seeds = draw_seeds(torch.Generator().manual_seed(5))
    exact, rounded = SharedAlpha(seeds=seeds.clone()), SharedAlpha(seeds=seeds.clone()).bfloat16()
    for _ in range(20):
        exact.draw_()
        rounded.draw_()
        assert torch.equal(exact.alpha.bfloat16(), rounded.alpha)
        assert torch.equal(exact.stream, rounded.stream)


@pytest.mark.gpu
def test_the_stream_is_the_same_on_the_gpu() -> None:
    seeds = draw_seeds(torch.Generator().manual_seed(5))
    here, there = SharedAlpha(seeds=seeds.clone()), SharedAlpha(seeds=seeds.clone()).cuda()
    for _ in range(50):
        here.draw_()
        there.draw_()
        assert torch.equal(there.alpha.cpu(), here.alpha)
