"""A layer that keeps its non-zero weights only: its product, its checkpoints, its copies."""

import copy
import io
import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import polarity as pol
from polarity import deploy
from tests.helpers import sparse_wins, swapped_modules
from tests.laws.refusals import fingerprint
from tests.models import thin_mlp, thinned, x_of


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("density", [0.0, 0.05, 0.5, 1.0])
@pytest.mark.parametrize(
    "shape", [(6,), (1, 6), (7, 6), (64, 6), (2, 97, 6), (2, 1, 3, 6), (1, 1, 6)]
)
def test_a_swapped_layer_is_the_linear_map_of_numpy(shape, density, bias, dtype):
    layer = thinned(nn.Linear(6, 5, bias=bias, dtype=dtype), density)
    weight = layer.weight.detach().numpy().astype(np.float64)
    offset = layer.bias.detach().numpy().astype(np.float64) if bias else 0.0
    x = x_of(*shape, dtype=dtype)
    deploy.compress(layer, x, break_even=1.0, measure=sparse_wins)
    assert type(layer) is deploy.SparseLinear
    y = layer(x)
    expected = x.numpy().astype(np.float64) @ weight.T + offset
    assert y.dtype == dtype
    assert y.shape == (*shape[:-1], 5)
    assert y.is_contiguous()
    tolerance = 1e-5 if dtype == torch.float32 else 1e-13
    np.testing.assert_allclose(y.detach().numpy(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("seed", range(25))
def test_random_chains_are_the_linear_maps_of_numpy(seed):
    draw = np.random.default_rng(seed)
    widths = draw.integers(1, 40, size=draw.integers(2, 5))
    parts: list[nn.Module] = []
    for first, second in pairwise(widths):
        linear = nn.Linear(int(first), int(second), bias=bool(draw.integers(2))).double()
        parts += [thinned(linear, draw.random(), seed), nn.ReLU()]
    model = nn.Sequential(*parts).eval()
    x = x_of(*draw.integers(1, 5, size=draw.integers(0, 3)), int(widths[0]), dtype=torch.float64)
    y = x.numpy()
    for layer in parts[::2]:
        offset = 0.0 if layer.bias is None else layer.bias.detach().numpy()
        y = np.maximum(y @ layer.weight.detach().numpy().T + offset, 0)
    choice = iter(draw.integers(0, 2, size=100))
    deploy.compress(
        model, x, break_even=1.0, measure=lambda dense, sparse: (2.0, 1.0 + 2 * next(choice))
    )
    np.testing.assert_allclose(model(x).detach().numpy(), y, rtol=1e-11, atol=1e-11)


def test_the_state_dict_goes_into_the_same_model_again():
    model, x = thin_mlp(), x_of(4, 6)
    deploy.compress(model, x, measure=sparse_wins)
    state = model.state_dict()
    assert [key for key in state if key.startswith("0.")] == [
        *("0.bias", "0.values", "0.crow_indices", "0.col_indices")
    ]
    assert state["0.crow_indices"].dtype == state["0.col_indices"].dtype == torch.int32
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    fresh = deploy.restore(thinned(thin_mlp(), 0.7, seed=3), loaded)
    assert swapped_modules(fresh) == swapped_modules(model)
    assert torch.equal(fresh(x), model(x))
    with torch.no_grad():
        fresh[0].values.zero_()
    assert loaded["0.values"].any()  # the model has tensors of its own


def test_a_compressed_model_takes_other_numbers_of_entries_and_dense_checkpoints():
    x = x_of(4, 6)
    model, other, dense = (
        thin_mlp(0.2),
        thinned(thin_mlp(), 0.3, seed=4),
        thinned(thin_mlp(), 0.1, seed=5),
    )
    deploy.compress(model, x, measure=sparse_wins)
    expected = dense(x)
    model.load_state_dict(dense.state_dict())
    torch.testing.assert_close(model(x), expected)
    assert torch.equal(model[0].weight, dense[0].weight)
    deploy.compress(other, x, measure=sparse_wins)
    model.load_state_dict(other.state_dict())
    assert torch.equal(model(x), other(x))
    wrong = nn.Sequential(nn.Linear(6, 7), nn.ReLU(), nn.Linear(8, 3)).state_dict()
    with pytest.raises(RuntimeError, match=r"size mismatch for 0.weight: \(7, 6\).*\(8, 6\)"):
        model.load_state_dict(wrong)


def test_indices_out_of_range_never_reach_a_kernel():
    model = thin_mlp()
    deploy.compress(model, x_of(4, 6), measure=sparse_wins)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    state["0.col_indices"][0] = 1000
    with pytest.raises(RuntimeError, match="the sparse weight of '0' is bad"):
        model.load_state_dict(state)
    plain = thin_mlp()
    before = fingerprint(plain.state_dict())
    with pytest.raises(ValueError, match="the sparse weight of '0' does not fit"):
        deploy.restore(plain, state)
    assert fingerprint(plain.state_dict()) == before


@pytest.mark.parametrize("how", ["deepcopy", "pickle", "torch.save"])
def test_a_compressed_model_can_be_copied(how):
    model, x = thin_mlp(), x_of(4, 6)
    deploy.compress(model, x, measure=sparse_wins)
    if how == "torch.save":
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        twin = torch.load(file, weights_only=False)
    else:
        twin = copy.deepcopy(model) if how == "deepcopy" else pickle.loads(pickle.dumps(model))
    expected = model(x)
    with torch.no_grad():
        model[0].values.zero_()
    assert torch.equal(twin(x), expected)


def test_safetensors_keep_a_compressed_model(tmp_path):
    model, x = thin_mlp(), x_of(4, 6)
    deploy.compress(model, x, measure=sparse_wins)
    pol.save(model, tmp_path / "model.safetensors")
    twin = thinned(thin_mlp(), 0.3, seed=4)
    deploy.compress(twin, x, measure=sparse_wins)
    pol.load(twin, tmp_path / "model.safetensors")
    assert torch.equal(twin(x), model(x))


def test_decompress_gives_equal_weights_in_their_old_places():
    model, x = thin_mlp(), x_of(4, 6)
    model[0].weight.requires_grad_(False)
    before, flags = (
        fingerprint(model.state_dict()),
        [(n, p.requires_grad) for n, p in model.named_parameters()],
    )
    expected = model(x)
    deploy.compress(model, x, measure=sparse_wins)
    assert swapped_modules(model) == ["0", "2"]
    assert deploy.decompress(model) is model
    assert fingerprint(model.state_dict()) == before
    assert [(n, p.requires_grad) for n, p in model.named_parameters()] == flags
    assert [type(each) for each in model] == [nn.Linear, nn.ReLU, nn.Linear]
    assert torch.equal(model(x), expected)
    assert vars(model[0]).keys() == vars(nn.Linear(1, 1)).keys()


@pytest.mark.parametrize("rows", [1, 4, 131])
def test_gradients_pass_through_to_input_and_bias(rows):
    model, plain, x = thin_mlp(), thin_mlp(), x_of(rows, 6)
    deploy.compress(model, x, measure=sparse_wins)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    model(ours).square().sum().backward()
    plain(theirs).square().sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
    torch.testing.assert_close(model[0].bias.grad, plain[0].bias.grad)
    assert [name for name, _ in model.named_parameters()] == ["0.bias", "2.bias"]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients(mode):
    model, x = thin_mlp(), x_of(4, 6)
    expected = model(x).detach()
    with mode():
        deploy.compress(model, x, measure=sparse_wins)
        torch.testing.assert_close(model(x), expected)
    assert not model[0].values.is_inference()
    model(x.clone().requires_grad_()).sum().backward()
    with mode():
        deploy.decompress(model)
    model(x).sum().backward()
    assert model[0].weight.grad.abs().sum() > 0


def test_it_moves_and_changes_its_dtype_as_a_module_does():
    model, x = thin_mlp(), x_of(4, 6)
    deploy.compress(model, x, measure=sparse_wins)
    expected = model(x)
    wide = model.double()(x.double())
    torch.testing.assert_close(wide, expected.double())
    assert model[0].col_indices.dtype == torch.int32
    assert model.to("meta")(x.to("meta").double()).shape == (4, 3)


def test_restore_leaves_the_layers_alone_if_the_rest_does_not_fit():
    model = thin_mlp()
    deploy.compress(model, x_of(4, 6), measure=sparse_wins)
    state = {**model.state_dict(), "another": torch.zeros(1)}
    plain = thin_mlp()
    leaves = [id(p) for p in plain.parameters()]
    with pytest.raises(RuntimeError, match="another"):
        deploy.restore(plain, state)
    assert [id(p) for p in plain.parameters()] == leaves
    assert not any(parametrize.is_parametrized(each) for each in plain)
