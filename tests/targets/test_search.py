"""Which parameters of which modules are prunable, under which names, and what is left out."""

import re
from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

import polarity as pol

SEPARATE = ["q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight"]
LSTM_TWO_WAYS = [
    f"weight_{kind}_l{layer}{way}"
    for layer in (0, 1)
    for way in ("", "_reverse")
    for kind in ("ih", "hh")
]
KINDS = {
    "Linear": (lambda: nn.Linear(3, 2), ["weight"]),
    "Conv1d": (lambda: nn.Conv1d(2, 2, 3), ["weight"]),
    "Conv2d": (lambda: nn.Conv2d(4, 4, 3, groups=2), ["weight"]),
    "Conv3d": (lambda: nn.Conv3d(2, 2, 3), ["weight"]),
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(2, 3, 3), ["weight"]),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(2, 3, 3), ["weight"]),
    "ConvTranspose3d": (lambda: nn.ConvTranspose3d(2, 3, 3), ["weight"]),
    "attention": (lambda: nn.MultiheadAttention(4, 2), ["in_proj_weight", "out_proj.weight"]),
    "attention, other widths": (lambda: nn.MultiheadAttention(4, 2, kdim=3, vdim=5), SEPARATE),
    "attention, extra biases": (
        lambda: nn.MultiheadAttention(4, 2, add_bias_kv=True),
        ["in_proj_weight", "out_proj.weight"],
    ),
    "RNN": (lambda: nn.RNN(3, 2), ["weight_ih_l0", "weight_hh_l0"]),
    "LSTM": (lambda: nn.LSTM(3, 2, 2, bidirectional=True), LSTM_TWO_WAYS),
    "LSTM, projected": (
        lambda: nn.LSTM(3, 4, proj_size=2),
        ["weight_ih_l0", "weight_hh_l0", "weight_hr_l0"],
    ),
    "GRU": (lambda: nn.GRU(3, 2), ["weight_ih_l0", "weight_hh_l0"]),
    "RNNCell": (lambda: nn.RNNCell(3, 2), ["weight_ih", "weight_hh"]),
    "LSTMCell": (lambda: nn.LSTMCell(3, 2), ["weight_ih", "weight_hh"]),
    "GRUCell": (lambda: nn.GRUCell(3, 2), ["weight_ih", "weight_hh"]),
    "encoder layer": (
        lambda: nn.TransformerEncoderLayer(4, 2, 8),
        [
            "self_attn.in_proj_weight",
            "self_attn.out_proj.weight",
            "linear1.weight",
            "linear2.weight",
        ],
    ),
}
each_kind = pytest.mark.parametrize(("make", "names"), KINDS.values(), ids=KINDS.keys())


class Bare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))


@each_kind
def test_the_weights_of_every_layer_kind_are_found(make, names):
    found = pol.find_targets(make())
    assert list(found) == names
    assert found.skipped.keys() == {name for name in ("bias_k", "bias_v") if hasattr(make(), name)
                                    and getattr(make(), name) is not None}  # fmt: skip


@each_kind
def test_names_and_shapes_stay_plain_once_masks_are_attached_and_used(make, names):
    module = make()
    shapes = [tuple(dict(module.named_parameters())[name].shape) for name in names]
    pol.imp_prune(pol.mask_weights(module), 0.5)
    assert list(pol.find_targets(module)) == list(pol.masks(module)) == names
    assert [tuple(mask.shape) for mask in pol.masks(module).values()] == shapes
    assert list(pol.find_targets(module, targets=tuple(names))) == names
    assert set(pol.RewindPoint.capture(module).weights) == set(make().state_dict())


@each_kind
def test_half_of_every_layer_kind_can_be_pruned_to_the_entry(make, names):
    module = make()
    total = sum(dict(module.named_parameters())[name].numel() for name in names)
    report = pol.imp_prune(module, density=0.5)
    holders = [name.rpartition(".") for name in names]
    weights = [getattr(module.get_submodule(path), last) for path, _, last in holders]
    assert report.total == total
    assert sum(int(weight.count_nonzero()) for weight in weights) == round(0.5 * total)


WITHOUT = [nn.BatchNorm2d(3), nn.LayerNorm(3), nn.Embedding(3, 2), nn.PReLU(), nn.ReLU(), Bare()]


@pytest.mark.parametrize("module", WITHOUT, ids=lambda module: type(module).__name__)
def test_modules_without_prunable_weights_are_refused_by_name(module):
    with pytest.raises(ValueError, match=f"^{type(module).__name__} has no prunable weights"):
        pol.find_targets(module)


@pytest.mark.parametrize("targets", ["scale", lambda name, parameter: True], ids=["name", "all"])
def test_any_parameter_can_be_asked_for(targets):
    module = pol.mask_weights(Bare(), targets=targets)
    pol.load_masks(module, {"scale": torch.tensor([1, 0, 1])})
    assert module.scale.tolist() == [1, 0, 1]


def test_the_order_of_weights_is_the_models_however_the_masks_came():
    module = nn.LSTM(3, 2)
    pol.mask_weights(module, targets="weight_hh_l0")
    pol.mask_weights(module, targets="weight_ih_l0")
    assert list(pol.masks(module)) == ["weight_ih_l0", "weight_hh_l0"]


def test_a_weight_pruned_by_torch_is_found_under_its_plain_name():
    net = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    prune.l1_unstructured(net[0], "weight", amount=2)
    assert list(pol.find_targets(net)) == ["0.weight", "1.weight"]
    assert list(pol.find_targets(net, "0.weight")) == ["0.weight"]


@pytest.fixture
def awkward() -> nn.Sequential:
    """One good weight, and one each that is frozen, lazy, and of integers."""
    net = nn.Sequential(
        OrderedDict(good=nn.Linear(2, 3), frozen=nn.Linear(3, 3), lazy=nn.LazyLinear(2))
    )
    net.frozen.weight.requires_grad_(False)
    net.codes = nn.Module()
    net.codes.table = nn.Parameter(torch.arange(3), requires_grad=False)
    return net


WHY = {"lazy.weight": "lazy", "codes.table": "torch.int64"}
BY_DEFAULT = {"frozen.weight": "frozen", "lazy.weight": "lazy"}


def test_lazy_and_integer_weights_are_skipped_with_the_reason(awkward):
    found = pol.find_targets(awkward, ["*", "codes.table"], exclude="frozen")
    assert list(found) == ["good.weight"]
    assert found.skipped.keys() == WHY.keys() | {"frozen.weight"}
    assert [name for name in WHY if WHY[name] not in found.skipped[name]] == []
    pol.mask_weights(awkward, targets=["*", "codes.table"], exclude="frozen")
    assert list(pol.masks(awkward)) == ["good.weight"]


def test_a_predicate_is_not_shown_what_has_no_shape_yet(awkward):
    assert list(pol.find_targets(awkward, lambda name, p: p.shape == (3, 2))) == ["good.weight"]


def test_what_has_no_shape_yet_is_skipped_only_where_it_was_asked_for(awkward):
    assert pol.find_targets(awkward, exclude="lazy").skipped.keys() == {"frozen.weight"}


def test_the_printed_table_shows_what_was_found_and_what_was_skipped_and_why(awkward):
    lines = str(pol.find_targets(awkward)).splitlines()
    rows = [re.split(r"\s{2,}", line) for line in lines]
    assert rows[0] == ["weight", "shape", "used by"]
    assert rows[2] == ["good.weight", "3x2", "Linear"]
    assert [row[:2] for row in rows[3:]] == [
        ["frozen.weight", "skipped"],
        ["lazy.weight", "skipped"],
        ["in reach: 6 of 15 matrix entries"],
    ]
    assert [row[0] for row in rows[3:-1] if BY_DEFAULT[row[0]] not in row[2]] == []


def test_verbose_masking_prints_that_table(awkward, capsys):
    table = str(pol.find_targets(awkward))
    pol.mask_weights(awkward)
    assert capsys.readouterr().out == ""
    pol.merge(awkward)
    pol.mask_weights(awkward, verbose=True)
    assert capsys.readouterr().out.strip() == table


@pytest.mark.parametrize("name", WHY)
def test_when_all_that_is_asked_for_is_skipped_the_error_says_why(awkward, name):
    with pytest.raises(ValueError, match="no prunable weights") as error:
        pol.find_targets(awkward, name)
    assert name in str(error.value)
    assert WHY[name] in str(error.value)


def test_a_lazy_weight_is_found_once_a_batch_has_passed(awkward):
    awkward.lazy(torch.ones(1, 3))
    assert "lazy.weight" in pol.find_targets(awkward)


def test_a_weight_frozen_after_masking_keeps_its_mask():
    layer = pol.mask_weights(nn.Linear(2, 2))
    layer.parametrizations.weight.original.requires_grad_(False)
    assert list(pol.find_targets(layer)) == ["weight"]


def test_a_weight_with_another_parametrization_is_refused_and_can_be_excluded():
    net = nn.Sequential(parametrizations.weight_norm(nn.Linear(2, 2)), nn.Linear(2, 2))
    keys = list(net.state_dict())
    with pytest.raises(ValueError, match=r"0\.weight is already parametrized by _WeightNorm"):
        pol.mask_weights(net)
    assert list(net.state_dict()) == keys
    assert list(pol.find_targets(net, exclude="0.weight")) == ["1.weight"]


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("normalise", [weight_norm, spectral_norm])
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: nn.Linear(2, 2), "weight"),
        (lambda: nn.LSTM(2, 2), "weight_hh_l0"),
        (lambda: nn.GRUCell(2, 2), "weight_hh"),
        (lambda: nn.MultiheadAttention(4, 2), "in_proj_weight"),
    ],
    ids=["Linear", "LSTM", "GRUCell", "attention"],
)
def test_a_weight_that_an_old_hook_computes_is_refused_by_name_and_can_be_excluded(
    normalise, make, name
):
    net = nn.Sequential(normalise(make(), name), nn.Linear(2, 2))
    with pytest.raises(ValueError, match=rf"0\.{name} is computed by a hook"):
        pol.find_targets(net)
    assert list(pol.find_targets(net, exclude="0")) == ["1.weight"]


class Facade(nn.Module):
    """Shows the weight of a layer inside it as its own, as heads and adapters do."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 2)

    @property
    def weight(self) -> Tensor:
        return self.inner.weight


@pytest.mark.parametrize(
    "targets",
    [None, "*", "*weight", nn.Module, lambda name, p: p.dim() == 2],
    ids=["default", "star", "glob", "type", "predicate"],
)
def test_a_property_that_shows_another_modules_weight_is_no_second_weight(targets):
    assert list(pol.find_targets(nn.Sequential(Facade()), targets)) == ["0.inner.weight"]


def test_a_sharded_weight_is_refused_by_name():
    layer = nn.Linear(2, 2)
    layer.weight.placements = ()  # what a DTensor has and a tensor has not
    with pytest.raises(TypeError, match=r"weight is sharded"):
        pol.find_targets(layer)
