"""Which weights are targets when nothing is selected, and the reason for each that is not."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import polarity as pol
from tests.models import Experts, SmallGpt2, Tied, TransposedLinear, Twins

EIGHT = [
    f"transformer.h.{block}.{layer}.weight"
    for block in (0, 1)
    for layer in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
]


class OwnNorm(nn.Module):
    """A norm by its name, with a matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 3))


class NormedLinear(nn.Linear):
    """A linear layer in spite of its name."""


class Renamed(nn.Module):
    """Its matrix is no ``weight``."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.ones(3, 3))


class Alias(nn.Module):
    """Holds a layer's weight under a second name of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.kernel = self.layer.weight


class DeepTie(nn.Module):
    """The embedding and the layer that is tied to it, each inside another module."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.Linear(4, 9), nn.Linear(4, 2))
        self.body = nn.ModuleDict({"embed": nn.EmbeddingBag(9, 4)})
        self.head[0].weight = self.body["embed"].weight


def test_the_eight_matrices_of_a_gpt2_are_found_and_its_embeddings_are_not():
    found = pol.find_targets(SmallGpt2())
    assert list(found) == EIGHT
    wte, wpe = found.skipped["transformer.wte.weight"], found.skipped["transformer.wpe.weight"]
    assert wte.startswith("an embedding, tied to lm_head.weight")
    assert wpe.startswith("an embedding:")
    assert len(found.skipped) == 2


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: TransposedLinear(3, 4), ["weight"]),
        (lambda: Experts(2, 3), ["weight"]),
        (lambda: nn.Bilinear(2, 3, 4), ["weight"]),
        (lambda: NormedLinear(3, 3), ["weight"]),
        (lambda: nn.Sequential(nn.Bilinear(2, 2, 2), nn.LayerNorm([2, 2])), ["0.weight"]),
        (Twins, ["first.weight"]),
        (Alias, ["layer.weight"]),
        (Tied, ["middle.weight"]),
        (DeepTie, ["head.1.weight"]),
        (
            lambda: nn.ModuleDict({"held": nn.ParameterDict({"weight": torch.ones(2, 2)})}),
            ["held.weight"],
        ),
    ],
    ids=lambda it: it if isinstance(it, list) else None,
)
def test_the_weight_of_any_module_that_is_neither_a_norm_nor_an_embedding_is_found(make, names):
    assert [use.name for t in pol.find_targets(make()).values() for use in t.uses
            if use.tensor_name == "weight"][: len(names)] == names  # fmt: skip
    assert len(pol.find_targets(make())) == 1


def test_a_reused_module_of_any_kind_is_one_target():
    layer = TransposedLinear(3, 3)
    found = pol.find_targets(nn.ModuleDict({"once": layer, "again": nn.Sequential(layer)}))
    assert [(name, target.aliases) for name, target in found.items()] == [
        ("once.weight", ("again.0.weight",))
    ]


LEFT = {
    "embedding": (lambda: nn.Embedding(3, 3), "weight", "an embedding"),
    "bag": (lambda: nn.EmbeddingBag(3, 3), "weight", "an embedding"),
    "embedding first": (Tied, "encoder.weight", "an embedding, tied to it.decoder.weight"),
    "layer first": (DeepTie, "head.0.weight", "tied to embedding it.body.embed.weight"),
    "norm": (lambda: nn.LayerNorm([3, 3]), "weight", "a norm"),
    "norm by name": (OwnNorm, "weight", "a norm"),
    "frozen": (lambda: nn.Linear(3, 3).requires_grad_(False), "weight", "frozen (requires_grad"),
    "another name": (Renamed, "kernel", "not named weight"),
    "bias of attention": (
        lambda: nn.MultiheadAttention(4, 2, add_bias_kv=True),
        "bias_k",
        "not named weight",
    ),
    "list": (lambda: nn.ParameterList([torch.ones(3, 3)]), "0", "not named weight"),
    "dict": (lambda: nn.ParameterDict({"w": torch.ones(3, 3)}), "w", "not named weight"),
}


@pytest.mark.parametrize(("make", "name", "reason"), LEFT.values(), ids=LEFT)
def test_every_matrix_that_is_no_target_is_skipped_with_its_reason_and_the_way_to_take_it(
    make, name, reason
):
    model = nn.ModuleDict({"it": make(), "good": nn.Linear(2, 2)})
    why = pol.find_targets(model).skipped[f"it.{name}"]
    assert why.startswith(reason)
    assert why.endswith(f": targets='it.{name}' takes it")
    assert list(pol.find_targets(model, f"it.{name}")) == [f"it.{name}"]
    pol.imp_prune(model, density=0.5, targets=f"it.{name}")
    assert list(pol.masks(model)) == [f"it.{name}"]


def test_what_is_excluded_or_not_selected_is_skipped_with_that_reason():
    net = nn.Sequential(nn.Linear(2, 3), nn.Conv1d(1, 1, 2), nn.Linear(3, 2))
    assert pol.find_targets(net, exclude="0").skipped == {"0.weight": "excluded"}
    assert pol.find_targets(net, nn.Linear, "0").skipped == {
        "0.weight": "excluded",
        "1.weight": "not selected by targets",
    }


@pytest.mark.parametrize("targets", ["*", nn.Module, ["middle", "*"]], ids=str)
def test_types_and_globs_prefer_weights_that_are_not_tied_to_an_embedding(targets):
    assert list(pol.find_targets(Tied(), targets)) == ["middle.weight"]


@pytest.mark.parametrize(
    "targets", ["decoder", "decoder.weight", "enc*", nn.Embedding, lambda name, p: p.dim() > 1]
)
def test_a_weight_tied_to_an_embedding_is_taken_when_it_is_asked_for(targets):
    assert "encoder.weight" in pol.find_targets(Tied(), targets)


def test_a_weight_tied_to_an_embedding_stays_a_target_once_it_is_masked():
    model = pol.mask_weights(Tied(), targets="decoder")
    found = pol.find_targets(model)
    assert (list(found), found.skipped) == (["encoder.weight", "middle.weight"], {})
    assert list(pol.masks(pol.mask_weights(model))) == ["encoder.weight", "middle.weight"]
    alone = pol.mask_weights(nn.Sequential(nn.Embedding(3, 2), nn.Linear(2, 2)), targets="*.weight")
    assert list(pol.find_targets(pol.mask_weights(alone, targets="0"))) == ["1.weight"]


def test_the_bias_of_a_layer_that_is_tied_to_an_embedding_is_not_taken_with_it():
    model = DeepTie()
    assert list(pol.find_targets(model, "head.0")) == ["head.0.weight"]


def test_excluding_the_embedding_is_no_conflict_when_its_tied_layer_is_not_selected():
    assert list(pol.find_targets(Tied(), exclude="encoder")) == ["middle.weight"]


def test_a_model_of_tied_embeddings_alone_is_refused_with_the_reason():
    layer, embedding = nn.Linear(3, 4, bias=False), nn.Embedding(4, 3)
    layer.weight = embedding.weight
    with pytest.raises(ValueError, match=r"no prunable weights; 0\.weight is an embedding, tied"):
        pol.find_targets(nn.Sequential(embedding, layer))


def test_a_custom_layer_with_a_parametrization_of_its_own_is_refused_and_can_be_excluded():
    net = nn.Sequential(parametrizations.weight_norm(TransposedLinear(2, 3)), nn.Linear(3, 3))
    with pytest.raises(ValueError, match=r"0\.weight is already parametrized by _WeightNorm"):
        pol.find_targets(net)
    found = pol.find_targets(net, exclude="0")
    assert (list(found), found.skipped) == (["1.weight"], {"0.weight": "excluded"})


def test_a_complex_weight_is_skipped_for_its_dtype():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, dtype=torch.complex64))
    found = pol.find_targets(net)
    assert list(found) == ["0.weight"]
    assert "complex64, not floating point" in found.skipped["1.weight"]
    assert (found.reach.taken, found.reach.total) == (4, 4)


FLOAT8 = [torch.float8_e4m3fn, torch.float8_e5m2]


def in_float8(dtype: torch.dtype) -> nn.Sequential:
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    net[1].weight = nn.Parameter(net[1].weight.detach().to(dtype), requires_grad=False)
    return net


@pytest.mark.parametrize("dtype", FLOAT8, ids=str)
def test_a_float8_weight_is_skipped_by_default_with_the_reason(dtype):
    net = in_float8(dtype)
    found = pol.find_targets(net)
    assert list(found) == ["0.weight"]
    assert f"of dtype {dtype}" in found.skipped["1.weight"]
    pol.imp_prune(net, 0.5, exclude="1")
    assert list(pol.masks(net)) == ["0.weight"]


CALLS = {
    "mask_weights": lambda net: pol.mask_weights(net, targets=["0", "1"]),
    "imp_prune": lambda net: pol.imp_prune(net, 0.5, targets=["0", "1.weight"]),
    "sign_in": lambda net: pol.sign_in(net, targets="*"),
    "load_masks": lambda net: pol.load_masks(
        net, {"0.weight": torch.ones(3, 2), "1.weight": torch.ones(2, 3)}
    ),
    "prune": lambda net: pol.prune(
        net, {"0.weight": torch.ones(3, 2), "1.weight": torch.ones(2, 3)}, density=0.5
    ),
}


def as_bytes(tensor: Tensor) -> list[int]:
    return tensor.reshape(-1).view(torch.uint8).tolist()


LATER = CALLS | {
    "merge": pol.merge,
    "density": pol.density,
    "prune all": lambda net: pol.imp_prune(net, 0.5),
    "rewind": lambda net: pol.imp_prune(net, 0.5, rewind=pol.RewindPoint.capture(net)),
}


@pytest.mark.parametrize("call", LATER.values(), ids=LATER)
def test_a_mask_that_was_converted_to_float8_is_refused_before_anything_is_changed(call):
    net = pol.mask_weights(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)))
    net[1].to(torch.float8_e4m3fn)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(TypeError, match=r"1\.weight is of dtype .* expected 16 bits or more"):
        call(net)
    after = net.state_dict()
    assert list(after) == list(before)
    assert [as_bytes(after[name]) for name in before] == [as_bytes(before[name]) for name in before]


@pytest.mark.parametrize("dtype", FLOAT8, ids=str)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_float8_weight_that_is_selected_is_refused_before_anything_is_changed(call, dtype):
    net = in_float8(dtype)
    before: list[Tensor] = list(net.parameters())
    with pytest.raises(TypeError, match=r"1\.weight is of dtype .* expected 16 bits or more"):
        call(net)
    assert [id(each) for each in net.parameters()] == [id(each) for each in before]
    assert list(net.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]
