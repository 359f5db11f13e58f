"""What is timed to decide about a layer, and what becomes of arguments that cannot decide."""

import pytest
import torch
from torch import nn

from polarity import deploy
from polarity._csr import encode
from polarity.deploy.sparse_linear import sparse_twin
from tests.helpers import dense_wins, sparse_wins
from tests.laws.refusals import fingerprint
from tests.models import thin_mlp, thinned, x_of


def test_whole_layers_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a layer does beside its product counts: it can be more than the product itself."""
    forwards: list[type] = []
    for kind in (nn.Linear, deploy.SparseLinear):

        def counted(self, x, kind=kind, forward=kind.forward):
            forwards.append(kind)
            return forward(self, x)

        monkeypatch.setattr(kind, "forward", counted)

    def compare(dense, sparse):
        for call, kind in ((dense, nn.Linear), (sparse, deploy.SparseLinear)):
            forwards.clear()
            call()
            assert forwards == [kind]
        return 1.0, 2.0

    deploy.compress(thin_mlp(), x_of(4, 6), measure=compare)


def test_hooks_of_a_layer_are_not_called_by_the_measurement() -> None:
    model, calls = thin_mlp(), []
    model[0].register_forward_hook(lambda *_: calls.append(1))
    deploy.compress(model, x_of(4, 6), measure=dense_wins)
    assert len(calls) == 2  # the outputs before and after


@pytest.mark.parametrize("bias", [True, False])
def test_a_twin_computes_the_same_and_leaves_its_layer_alone(bias: bool) -> None:
    layer = thinned(nn.Linear(6, 8, bias=bias))
    before, state = fingerprint(layer.weight), torch.random.get_rng_state()
    weight, x = layer.weight, x_of(3, 2, 6)
    twin = sparse_twin(layer, encode(layer.weight))
    torch.testing.assert_close(twin(x), layer(x))
    assert type(layer) is nn.Linear
    assert layer.weight is weight
    assert fingerprint(layer.weight) == before
    assert twin.bias is layer.bias
    assert torch.equal(torch.random.get_rng_state(), state)


WRONG = {
    "no function": ({"measure": None}, "measure=None is a NoneType, expected a function"),
    "one number": ({"measure": lambda d, s: 1.0}, "measure returned 1.0, expected two numbers"),
    "three numbers": ({"measure": lambda d, s: (1, 2, 3)}, "expected two numbers"),
    "words": ({"measure": lambda d, s: ("fast", "slow")}, "expected two numbers"),
    "a seed": ({"generator": 3}, r"generator=3 is an int, expected a torch\.Generator"),
}


@pytest.mark.parametrize(("arguments", "words"), WRONG.values(), ids=WRONG.keys())
def test_what_cannot_decide_is_named(arguments: dict, words: str) -> None:
    model = thin_mlp()
    before = fingerprint(model)
    with pytest.raises(TypeError, match=words):
        deploy.compress(model, x_of(4, 6), **({"measure": sparse_wins} | arguments))
    assert fingerprint(model) == before
    assert not any("forward" in vars(module) for module in model.modules())


def test_times_that_are_no_numbers_leave_a_layer_dense() -> None:
    for times in ((float("nan"), 1.0), (1.0, float("nan")), (0.0, 0.0)):
        report = deploy.compress(thin_mlp(), x_of(4, 6), measure=lambda d, s, times=times: times)
        assert report.swapped == ()


def test_a_model_that_is_compressed_already_is_told_so() -> None:
    model = thin_mlp()
    deploy.compress(model, x_of(4, 6), measure=sparse_wins)
    with pytest.raises(ValueError, match=r"compressed already, polarity\.deploy\.decompress"):
        deploy.compress(model, x_of(4, 6), measure=sparse_wins)
    deploy.decompress(model)
    assert len(deploy.compress(model, x_of(4, 6), measure=sparse_wins).swapped) == 2


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((None,), "must be Tensor"),
        (None, "example_inputs is a NoneType, expected a tensor, a tuple"),
        ("x", "example_inputs is a str, expected a tensor, a tuple"),
    ],
)
def test_inputs_that_the_model_does_not_take_are_its_own_error(given: object, said: str) -> None:
    model = thin_mlp()
    before = fingerprint(model)
    with pytest.raises(TypeError, match=said):
        deploy.compress(model, given, measure=sparse_wins)
    assert fingerprint(model) == before
