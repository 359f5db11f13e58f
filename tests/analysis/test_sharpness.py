"""Sharpness: the largest eigenvalue of a Hessian that is small enough to be written out."""

import sys

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.functional import hessian
from torch.func import functional_call

import polarity as pol
from polarity.attach.norms import interpolate_norms
from tests.analysis.hessians import (
    CLOSE,
    convnet,
    data,
    dense_hessian,
    finite_difference_hessian,
    largest,
    mlp,
    sharp,
)
from tests.forms import half_masked, random_masks
from tests.models import Recurrent, SelfAttention, Tied, seeded

pytest.importorskip("scipy")


@pytest.mark.parametrize(("build", "shape"), [(mlp, (4,)), (convnet, (1, 4, 4))])
def test_it_is_the_largest_eigenvalue_of_the_dense_hessian(build, shape):
    model, batches = build().train(), data(*shape)
    expected = largest(dense_hessian(build().eval(), batches, {}))
    assert expected > 0
    assert sharp(model, batches) == pytest.approx(expected, **CLOSE)


@pytest.mark.parametrize(("build", "shape"), [(mlp, (4,)), (convnet, (1, 4, 4))])
def test_of_a_masked_model_it_is_that_of_its_survivors(build, shape):
    model, batches = build(), data(*shape)
    masks = random_masks(model)
    pol.mask_weights(model, masks=masks)
    plain = pol.merge(pol.mask_weights(build(), masks=masks)).eval()
    survivors = largest(dense_hessian(plain, batches, masks))
    everything = largest(dense_hessian(plain, batches, {}))
    assert everything > survivors * 1.01  # so the test can tell them apart
    assert sharp(model, batches) == pytest.approx(survivors, **CLOSE)
    assert sharp(plain, batches) == pytest.approx(everything, **CLOSE)


def test_what_the_weights_are_made_of_does_not_matter():
    batches = data(1, 4, 4)
    model = half_masked(convnet())
    expected = sharp(model, batches)
    assert sharp(pol.sign_in(half_masked(convnet())), batches) == pytest.approx(expected, **CLOSE)
    both = interpolate_norms(pol.sign_in(half_masked(convnet()), beta=0.1))
    assert sharp(both.train(), batches) == pytest.approx(expected, **CLOSE)


def test_a_remembered_mask_leaves_every_entry_in():
    batches = data(4)
    model = half_masked(mlp())
    for module in model.modules():
        if isinstance(module, pol.MaskedWeight):
            module.enforce = False
    plain = pol.merge(half_masked(mlp())).eval()
    expected = largest(dense_hessian(plain, batches, {}))
    assert sharp(model, batches) == pytest.approx(expected, **CLOSE)


@pytest.mark.parametrize("selector", ["3", ["3.weight"], lambda name, _: name.startswith("3.w")])
def test_some_parameters_alone(selector):
    model, batches = half_masked(mlp()), data(4)
    masks = random_masks(mlp())
    plain = pol.merge(half_masked(mlp())).eval()
    expected = largest(dense_hessian(plain, batches, masks, ("3.weight",)))
    assert sharp(model, batches, parameters=selector) == pytest.approx(expected, **CLOSE)


def test_frozen_parameters_are_left_out():
    model, batches = mlp(), data(4)
    model[0].requires_grad_(False)
    expected = largest(dense_hessian(mlp().eval(), batches, {}, ("3.weight", "3.bias")))
    assert sharp(model, batches) == pytest.approx(expected, **CLOSE)


def test_how_the_data_is_cut_into_batches_does_not_matter():
    whole = data(4, sizes=(11,))
    (x, y), = whole  # fmt: skip
    parts = list(zip(x.split([1, 4, 6]), y.split([1, 4, 6]), strict=True))
    assert sharp(mlp(), parts) == pytest.approx(sharp(mlp(), whole), **CLOSE)


def test_batch_statistics_are_those_of_training_mode():
    model, batches = convnet(), data(1, 4, 4, sizes=(6,))
    reference = convnet().train()
    reference[1].track_running_stats = False
    reference[1].running_mean = reference[1].running_var = None
    expected = largest(dense_hessian(reference, batches, {}))
    found = sharp(model, batches, bn="batch")
    assert found == pytest.approx(expected, **CLOSE)
    assert found != pytest.approx(sharp(model, batches), rel=1e-3)


def test_the_largest_is_signed_not_absolute():
    model = nn.Linear(2, 1, bias=False).double()
    x = torch.tensor([[1.0, 0.0], [0.0, 3.0]], dtype=torch.float64)

    def saddle(output: Tensor, _: Tensor) -> Tensor:
        return (output[0, 0] ** 2 - output[1, 0] ** 2) / 2  # eigenvalues 1 and -9

    assert sharp(model, [(x, torch.zeros(2))], loss_fn=saddle) == pytest.approx(1.0, **CLOSE)


def test_one_parameter_alone():
    model = nn.Linear(1, 1, bias=False).double()
    x = torch.tensor([[3.0]], dtype=torch.float64)
    value = sharp(model, [(x, torch.zeros(1, 1).double())], loss_fn=nn.MSELoss())
    assert value == pytest.approx(18.0, **CLOSE)


@pytest.mark.parametrize("mode", [True, False])
def test_the_model_and_the_random_state_are_left_as_they_were(mode):
    model = pol.sign_in(half_masked(convnet())).train(mode)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    parameters = list(model.parameters())
    state = {name: value.clone() for name, value in model.state_dict().items()}
    random_state = torch.get_rng_state()
    fast_path = torch.backends.mha.get_fastpath_enabled()
    sharp(model, data(1, 4, 4))
    assert torch.equal(torch.get_rng_state(), random_state)
    assert torch.backends.mha.get_fastpath_enabled() == fast_path
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    assert all(bool((each.grad == 1).all()) for each in parameters)
    assert all(module.training == mode for module in model.modules())


class Jitter(nn.Module):
    """Draws in evaluation mode, and uses nothing of it."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 0 * torch.rand_like(x)


def test_what_a_model_and_its_data_draw_is_not_seen_outside():
    model, (batch,) = nn.Sequential(Jitter(), mlp()), data(4, sizes=(7,))
    reference, random_state = sharp(mlp(), [batch]), torch.get_rng_state()
    drawn = (batch for _ in map(torch.rand, [3]))
    assert sharp(model, drawn) == pytest.approx(reference, **CLOSE)
    assert torch.equal(torch.get_rng_state(), random_state)


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
def test_it_is_the_same_where_the_caller_records_no_gradients(off):
    model, batches = mlp(), data(4)
    with off():
        value = sharp(model, batches)
    assert value == sharp(model, batches)


def test_the_input_may_be_several_arguments():
    class Summed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = mlp()

        def forward(self, x: Tensor, shift: Tensor) -> Tensor:
            return self.inner(x + shift)

    batches = data(4)
    model = Summed()
    expected = sharp(mlp(), [(x + 0.5, y) for x, y in batches])
    shift = torch.tensor(0.5)  # float32, as a data loader would give it
    for pair in (lambda x: (x, shift), lambda x: {"x": x, "shift": shift}):
        value = sharp(model, [(pair(x), y) for x, y in batches])
        assert value == pytest.approx(expected, **CLOSE)


def test_the_start_vector_comes_from_the_generator_and_hardly_matters():
    model, batches = mlp(), data(4)
    values = [
        sharp(model, batches, generator=torch.Generator().manual_seed(seed), tolerance=0.1)
        for seed in (0, 0, 1)
    ]
    assert values[0] == values[1]
    assert values[2] == pytest.approx(values[0], rel=0.1)
    assert sharp(model, batches) == sharp(model, batches)


def test_float32_and_half_precision_models():
    exact, batches = sharp(mlp(), data(4)), data(4)
    assert sharp(mlp().float(), batches, tolerance=1e-4) == pytest.approx(exact, rel=1e-3)
    assert sharp(mlp().float(), batches, dtype=torch.float64) == pytest.approx(exact, rel=1e-5)
    assert sharp(mlp().bfloat16(), batches, tolerance=1e-4) == pytest.approx(exact, rel=0.05)


class Tokens(nn.Module):
    """Any sequence layer, and a classifier on its mean."""

    def __init__(self, layer: nn.Module, width: int) -> None:
        super().__init__()
        self.layer = layer
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x).mean(1))


@pytest.mark.parametrize(
    "build",
    [
        lambda _: Tokens(SelfAttention(4, 2, batch_first=True), 4),
        lambda p: Tokens(nn.TransformerEncoderLayer(4, 2, 6, p, "gelu", batch_first=True), 4),
        lambda _: Recurrent(nn.LSTM, 3),
        lambda _: Recurrent(nn.GRU, 3),
    ],
    ids=["attention", "transformer", "lstm", "gru"],
)  # fmt: skip
def test_layers_that_have_fused_kernels(build):
    batches = data(3, 4, sizes=(4,))
    plain = pol.merge(half_masked(seeded(build(0.0)).double()))
    reference = finite_difference_hessian(plain, batches[0], random_masks(build(0.0)))
    model = half_masked(seeded(build(0.1)).double())
    assert sharp(model, batches) == pytest.approx(largest(reference), rel=1e-4)


def test_bad_input_is_named():
    model, batches = mlp(), data(4)
    for options, message in (
        ({"bn": "train"}, "bn='train'"),
        ({"tolerance": 0}, "tolerance=0"),
        ({"max_iterations": 0}, "max_iterations=0"),
        ({"loss_fn": nn.CrossEntropyLoss(reduction="sum")}, "reduction='sum'"),
        ({"loss_fn": lambda output, _: output}, "must return a 0-dim"),
        ({"parameters": "x"}, "parameters='x'"),
    ):
        with pytest.raises(ValueError, match=message):
            sharp(model, batches, **options)
    with pytest.raises(ValueError, match="batches is empty"):
        sharp(model, [])
    with pytest.raises(TypeError, match="generator=3"):
        sharp(model, batches, generator=3)
    with pytest.raises(TypeError, match="pairs"):
        sharp(model, [torch.ones(2, 4)])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="loss_fn=3 is an int, expected a function"):
        sharp(model, batches, loss_fn=3)
    with pytest.raises(ValueError, match="no parameter that requires gradients"):
        sharp(mlp().requires_grad_(False), batches)


def test_no_convergence_and_no_finite_hessian_are_said():
    model, batches = convnet(), data(1, 4, 4)
    crowded = torch.linspace(1.0, 1.01, 200, dtype=torch.float64).diag(), torch.zeros(200, 1)
    wide = nn.Linear(200, 1, bias=False).double()
    with pytest.raises(RuntimeError, match="max_iterations=1"):
        sharp(wide, [crowded], loss_fn=nn.MSELoss(), tolerance=1e-15, max_iterations=1)
    with torch.no_grad():
        model[0].weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(RuntimeError, match="not finite"):
        sharp(model, batches)


def test_without_the_extra_the_error_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.sparse.linalg", None)
    with pytest.raises(ImportError, match=r"pip install \"torch-polarity\[analysis\]\""):
        sharp(mlp(), data(4))


def test_curvlinops_agrees_on_a_network_without_normalisation():
    curvlinops = pytest.importorskip("curvlinops")
    from scipy.sparse.linalg import eigsh

    model, batches = mlp().eval(), data(4)
    operator = curvlinops.HessianLinearOperator(
        model, nn.CrossEntropyLoss(), list(model.parameters()), batches
    )
    expected = eigsh(operator.to_scipy(), k=1, which="LA", return_eigenvectors=False)[0]
    assert sharp(mlp(), batches) == pytest.approx(float(expected), **CLOSE)


@pytest.mark.parametrize(
    "norm",
    [nn.LayerNorm(6), nn.GroupNorm(2, 6), nn.BatchNorm1d(6), nn.BatchNorm1d(6).eval()],
    ids=["layer", "group", "batch", "running"],
)
def test_second_derivatives_of_norms_are_whole(norm):
    batches = data(4, sizes=(9,))

    def build() -> nn.Module:
        return seeded(nn.Sequential(nn.Linear(4, 6), norm, nn.Tanh(), nn.Linear(6, 3))).double()

    bn = "batch" if norm.training else "keep"
    expected = largest(finite_difference_hessian(build(), batches[0], {}))
    assert sharp(build(), batches, bn=bn) == pytest.approx(expected, rel=1e-5)


def test_a_tied_weight_is_one_variable():
    def loss_fn(output: Tensor, target: Tensor) -> Tensor:
        return nn.functional.cross_entropy(output.flatten(0, 1), target.flatten())

    draw = torch.Generator().manual_seed(0)
    tokens, target = torch.randint(7, (2, 2, 9), generator=draw)
    model = seeded(Tied()).double()
    weight = model.encoder.weight.detach().clone()

    def loss(values: Tensor) -> Tensor:
        return loss_fn(functional_call(model, {"encoder.weight": values}, (tokens,)), target)

    expected = largest(hessian(loss, weight).reshape(weight.numel(), weight.numel()))
    for convert in (lambda same: same, lambda same: pol.sign_in(same, targets="decoder")):
        model = convert(model)
        found = sharp(model, [(tokens, target)], loss_fn=loss_fn, parameters="encoder.weight")
        assert found == pytest.approx(expected, **CLOSE)


def test_a_loss_without_curvature_is_flat():
    x = torch.ones(3, 2, dtype=torch.float64)
    linear = nn.Linear(2, 1).double()
    assert sharp(linear, [(x, x)], loss_fn=lambda output, _: output.mean()) == pytest.approx(0.0)


@pytest.mark.gpu
def test_a_gpu_gives_the_same():
    batches = data(1, 4, 4)
    model = half_masked(convnet())
    assert sharp(half_masked(convnet()).cuda(), batches) == pytest.approx(
        sharp(model, batches), **CLOSE
    )
