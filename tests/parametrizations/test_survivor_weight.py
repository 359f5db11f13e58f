"""A weight that is stored as its survivors does what the dense weight does, however it is used."""

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import polarity as pol
from polarity.parametrizations import survivor_weight
from polarity.parametrizations.survivor_weight import SurvivorWeight
from tests.forms import compacted
from tests.models import TransposedLinear, generator

STORED = "parametrizations.weight.original"


def layer(
    density: float = 0.4,
    *,
    bias: bool = True,
    dtype: torch.dtype = torch.float64,
    sizes: tuple[int, int] = (6, 5),
) -> nn.Linear:
    torch.manual_seed(0)
    made = nn.Linear(*sizes, bias=bias).to(dtype)
    mask = torch.rand(sizes[::-1], generator=generator(1)) < density
    compacted(pol.load_masks(made, {"weight": mask}))
    return made


def dense(compact: nn.Linear) -> nn.Linear:
    """Return a plain layer with the same values."""
    bias, dtype = compact.bias is not None, compact.weight.dtype
    plain = nn.Linear(compact.in_features, compact.out_features, bias, dtype=dtype)
    plain.load_state_dict(pol.dense_state_dict(compact))
    return plain


def draw(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=generator(3), dtype=dtype)


def gradients(model: nn.Linear, x: Tensor, run: Callable[..., Tensor] | None = None) -> list[Any]:
    """Return output and gradients: of the input, of the survivors, and of the bias."""
    x = x.detach().requires_grad_()
    output = (run or model)(x)
    leaves = [p for name, p in model.named_parameters() if name != "bias"]
    given = [x, *leaves, *([] if model.bias is None else [model.bias])]
    found = list(torch.autograd.grad(output.square().sum(), given))
    return [output, *found]


def agree(compact: nn.Linear, x: Tensor, run: Callable[..., Tensor] | None = None) -> None:
    ours, theirs = gradients(compact, x, run), gradients(dense(compact), x)
    theirs[2] = theirs[2][pol.masks(compact)["weight"]]
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize(
    "shape", [(6,), (1, 6), (4, 6), (70, 6), (2, 3, 6), (2, 3, 4, 6), (0, 6), (2, 0, 6)], ids=str
)
def test_linear_takes_any_leading_dimensions_with_and_without_bias(
    shape: tuple[int, ...], bias: bool
) -> None:
    compact = layer(bias=bias)
    assert isinstance(compact.weight, SurvivorWeight)
    agree(compact, draw(*shape))


@pytest.mark.parametrize("density", [0.0, 1.0])
def test_no_survivors_and_all_survivors_are_right(density: float) -> None:
    compact = layer(density)
    assert compact.get_parameter(STORED).numel() == 30 * density
    agree(compact, draw(4, 6))


STRIDED: dict[str, Callable[[], Tensor]] = {
    "transposed": lambda: draw(6, 4).t(),
    "expanded rows": lambda: draw(1, 6).expand(4, 6),
    "expanded columns": lambda: draw(4, 1).expand(4, 6),
    "every second column": lambda: draw(4, 12)[:, ::2],
    "batch in the middle": lambda: draw(2, 4, 6).transpose(0, 1),
}


@pytest.mark.parametrize("make", STRIDED.values(), ids=STRIDED)
def test_inputs_and_gradients_of_any_strides(make: Callable[[], Tensor]) -> None:
    compact = layer()
    agree(compact, make())
    given = make().detach().requires_grad_()
    found = torch.autograd.grad(compact(given).sum(), [given, compact.get_parameter(STORED)])
    plain = dense(compact)
    expected = torch.autograd.grad(plain(given).sum(), [given, plain.weight])
    mask = pol.masks(compact)["weight"]
    torch.testing.assert_close(found, (expected[0], expected[1][mask]))


def test_first_and_second_derivatives_pass_the_numerical_check() -> None:
    compact = layer()

    def run(x: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        return functional_call(compact, {STORED: values, "bias": bias}, (x,))

    given = [draw(4, 6), compact.get_parameter(STORED), compact.bias]
    leaves = tuple(each.detach().clone().requires_grad_() for each in given)
    assert torch.autograd.gradcheck(run, leaves)
    assert torch.autograd.gradgradcheck(run, leaves)


# What is not for the sparse product.

SAME_ERROR: dict[str, Callable[[nn.Module], Any]] = {
    "another width": lambda m: m(draw(4, 7)),
    "another dtype": lambda m: m(draw(4, 6, dtype=torch.float32)),
    "complex": lambda m: m(draw(4, 6, dtype=torch.complex128)),
    "no dimensions": lambda m: m(draw()),
    "a list": lambda m: m([1.0, 2.0]),
    "a bias of another width": lambda m: F.linear(draw(6), m.weight, draw(4)),
}


@pytest.mark.parametrize("call", SAME_ERROR.values(), ids=SAME_ERROR)
def test_a_wrong_argument_gets_the_error_of_a_plain_layer(call: Callable[[nn.Module], Any]) -> None:
    compact, errors = layer(), []
    for each in (dense(compact), compact):
        with pytest.raises((RuntimeError, TypeError)) as raised:
            call(each)
        errors.append((raised.type, str(raised.value)))
    assert errors[0] == errors[1]


def test_a_bias_that_is_broadcast_gets_its_own_gradient() -> None:
    compact, one = layer(), draw(1).requires_grad_()
    found = torch.autograd.grad(F.linear(draw(4, 6), compact.weight, one).sum(), one)
    assert float(found[0]) == 20


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_without_a_product_computes_with_the_dense_weight(
    dtype: torch.dtype,
) -> None:
    if survivor_weight.has_gradients("cpu", dtype):
        pytest.skip("this PyTorch multiplies sparse matrices of this dtype")
    compact, x = layer(dtype=dtype), draw(4, 6).to(dtype)
    assert type(compact.weight) is Tensor
    assert torch.equal(compact(x), dense(compact)(x))
    compact(x).sum().backward()
    assert compact.get_parameter(STORED).grad.dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_autocast_converts_what_it_converts_for_a_plain_layer(dtype: torch.dtype) -> None:
    compact, x = layer(dtype=dtype), draw(4, 6).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = compact(x), dense(compact)(x)
    assert ours.dtype == theirs.dtype
    torch.testing.assert_close(ours, theirs)
    ours.float().sum().backward()
    assert compact.get_parameter(STORED).grad.dtype == dtype


# Everything but linear.

DENSE_CALLS: dict[str, Callable[[Tensor], Any]] = {
    "abs": lambda w: w.abs(),
    "index": lambda w: w[1, 2:],
    "matmul": lambda w: draw(4, 6) @ w.T,
    "norm": lambda w: torch.linalg.vector_norm(w, dim=0),
    "stack": lambda w: torch.stack([w, w]),
    "compare": lambda w: (w == 0).sum(),
    "iterate": lambda w: torch.cat(list(w)),
    "to": lambda w: w.to(torch.float32),
    "like": lambda w: torch.zeros_like(w),
    "numpy": lambda w: torch.from_numpy(w.detach().numpy()),
    "list": lambda w: torch.tensor(w.tolist()),
    "convolution": lambda w: F.conv1d(draw(2, 6, 9), w[:, :, None]),
    "conv_transpose": lambda w: F.conv_transpose1d(draw(2, 5, 9), w[:, :, None]),
    "bilinear": lambda w: F.bilinear(draw(2, 3), draw(2, 2), w.view(5, 3, 2)),
    "embedding": lambda w: F.embedding(torch.tensor([0, 4, 2]), w),
    "linear of it": lambda w: F.linear(w, draw(3, 6)),
    "linear, in place of a bias": lambda w: F.linear(draw(4, 6), draw(5, 6), w[:, 0]),
    "properties": lambda w: (w.shape, w.dtype, w.device, w.stride(), w.is_contiguous(), len(w)),
    "printed": lambda w: repr(w.detach()),
}


@pytest.mark.parametrize("call", DENSE_CALLS.values(), ids=DENSE_CALLS)
def test_every_other_function_gets_the_dense_weight(call: Callable[[Tensor], Any]) -> None:
    compact = layer()
    plain = dense(compact)
    ours, theirs = call(compact.weight), call(plain.weight)
    if not isinstance(ours, Tensor):
        assert ours == theirs
        return
    assert type(ours) is Tensor
    torch.testing.assert_close(ours.detach(), theirs.detach())
    if theirs.requires_grad:
        ours.square().sum().backward()
        theirs.square().sum().backward()
        mask = pol.masks(compact)["weight"]
        found = compact.get_parameter(STORED).grad
        torch.testing.assert_close(found, plain.weight.grad[mask])


LAYERS: dict[str, tuple[Callable[[], nn.Module], Callable[[], tuple[Tensor, ...]]]] = {
    "bilinear": (lambda: nn.Bilinear(3, 4, 2), lambda: (draw(5, 3), draw(5, 4))),
    "transposed": (lambda: TransposedLinear(6, 5), lambda: (draw(4, 6),)),
    "1x1 convolution": (lambda: nn.Conv2d(3, 4, 1), lambda: (draw(2, 3, 5, 5),)),
    "convolution in 3d": (lambda: nn.Conv3d(2, 3, 3), lambda: (draw(1, 2, 4, 4, 4),)),
    "circular padding": (
        lambda: nn.Conv1d(2, 3, 3, padding=1, padding_mode="circular"), lambda: (draw(1, 2, 8),)
    ),
    "rnn cell": (lambda: nn.LSTMCell(4, 3), lambda: (draw(2, 4),)),
    "embedding bag": (lambda: nn.EmbeddingBag(7, 4), lambda: (torch.tensor([[1, 2], [6, 0]]),)),
}  # fmt: skip


@pytest.mark.parametrize(("make", "inputs"), LAYERS.values(), ids=LAYERS)
def test_layers_of_every_kind_compute_as_they_do_masked(
    make: Callable[[], nn.Module], inputs: Callable[[], tuple[Tensor, ...]]
) -> None:
    torch.manual_seed(0)
    masked = make().double()
    names = [name for name, p in masked.named_parameters() if p.dim() > 1]
    shapes = {name: masked.get_parameter(name).shape for name in names}
    pol.mask_weights(
        masked,
        masks={name: torch.rand(s, generator=generator(2)) < 0.5 for name, s in shapes.items()},
    )
    compact = compacted(copy.deepcopy(masked))
    for model in (masked, compact):
        output = model(*inputs())
        (output[0] if isinstance(output, tuple) else output).square().sum().backward()
    for (name, ours), theirs in zip(compact.named_parameters(), masked.parameters(), strict=True):
        expected = theirs.grad
        if "original" in name:
            expected = expected[theirs != 0]
        torch.testing.assert_close(ours.grad, expected)


def test_hooks_on_a_weight_without_a_gradient_of_its_own_are_refused() -> None:
    weight = layer().weight
    for call in (weight.retain_grad, lambda: weight.register_hook(print)):
        with pytest.raises(RuntimeError, match=r"weight\.stored.*expand\("):
            call()
    weight.stored.register_hook(lambda gradient: gradient)


# Saving, copying, recomputing.


def test_a_weight_is_saved_and_copied_as_a_dense_tensor() -> None:
    compact = layer()
    expected = pol.dense_state_dict(compact)["weight"]
    file = io.BytesIO()
    torch.save(compact.weight.detach(), file)
    file.seek(0)
    for copied in (
        torch.load(file, weights_only=True),
        copy.deepcopy(compact.weight.detach()),
        pickle.loads(pickle.dumps(compact.weight)),
    ):
        assert type(copied) is Tensor
        assert torch.equal(copied, expected)
    with pytest.raises(RuntimeError, match="graph leaves"):  # as any computed tensor
        copy.deepcopy(compact.weight)


def test_a_compact_model_is_not_pickled_whole() -> None:
    for write in (pickle.dumps, lambda model: torch.save(model, io.BytesIO())):
        with pytest.raises(
            RuntimeError, match=r"cannot be pickled: store the model with pol\.save"
        ):
            write(layer())


def test_gradients_survive_recomputation_and_hooks_on_saved_tensors() -> None:
    compact = layer()
    agree(compact, draw(4, 6), lambda x: checkpoint(compact, x, use_reentrant=False))
    with torch.autograd.graph.save_on_cpu():
        agree(compact, draw(4, 6))
    x = draw(4, 6).requires_grad_()
    checkpoint(compact, x, use_reentrant=True).square().sum().backward()
    expected = gradients(dense(compact), x)
    torch.testing.assert_close(x.grad, expected[1])
    kept = expected[2][pol.masks(compact)["weight"]]
    torch.testing.assert_close(compact.get_parameter(STORED).grad, kept)


def test_hooks_of_a_module_see_its_inputs_and_outputs() -> None:
    compact, seen = layer(), []
    compact.register_forward_hook(lambda m, given, output: seen.append(output) or output * 2)
    compact.register_full_backward_hook(lambda m, grad_in, grad_out: seen.append(grad_out[0]))
    x = draw(4, 6)
    assert torch.equal(compact(x), 2 * seen[0])
    compact(x.requires_grad_()).sum().backward()
    assert bool((seen[-1] == 1).all())


def test_a_value_that_was_saved_for_backward_may_not_change() -> None:
    compact = layer()
    output = compact(draw(4, 6).requires_grad_())
    with torch.no_grad():
        compact.get_parameter(STORED).add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


def test_a_graph_that_is_still_referred_to_does_not_outlive_the_shape_of_its_weight() -> None:
    compact = layer(0.8)
    sgd = torch.optim.SGD(compact.parameters(), lr=0.1, momentum=0.9)
    loss = compact(draw(4, 6)).square().sum()
    loss.backward()
    sgd.step()
    pol.imp_prune(compact, density=0.3, optimizer=sgd)
    again = compact(draw(4, 6)).square().sum()  # while ``loss`` still holds its graph
    again.backward()
    assert loss.grad_fn is not None
    sgd.step()
