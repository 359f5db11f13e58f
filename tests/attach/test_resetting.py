"""``reset_parameters`` of a masked layer: the mask times what the plain layer would draw."""

import copy
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import polarity as pol
from polarity.attach.norms import attached_norms
from tests.forms import FORMS, Form, compacted, random_masks
from tests.helpers import build, feed, leaf_and_mask, outputs, tensor_at, train_step
from tests.laws.refusals import fingerprint
from tests.models import KINDS, WIDE, Kind, seeded

EVERY_FORM = pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)


class Gained(nn.Linear):
    """A layer of one's own: more parameters, Python attributes, and a reset that calls another."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.gain = nn.Parameter(torch.ones(outputs))
        self.register_buffer("seen", torch.zeros(2))
        self.resets = 0

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if hasattr(self, "gain"):
            self.resets += 1
            self.gain.data.uniform_(1, 2)  # past autograd's version counter
            self.seen.normal_()
            self.weight = nn.Parameter(self.weight.detach() * 2)


class Breaking(nn.Linear):
    """A layer whose reset fails after it has written."""

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if hasattr(self, "broken"):
            self.half_done = True
            raise OSError("disk full")


LAYERS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "linear": (lambda: nn.Linear(6, 5), "reset_parameters"),
    "wide": (lambda: nn.Linear(300, 900), "reset_parameters"),
    "without bias": (lambda: nn.Linear(6, 5, bias=False), "reset_parameters"),
    "conv1d": (lambda: nn.Conv1d(3, 4, 3), "reset_parameters"),
    "conv2d": (lambda: nn.Conv2d(4, 8, 3, groups=2), "reset_parameters"),
    "conv3d": (lambda: nn.Conv3d(2, 3, 2), "reset_parameters"),
    "transposed": (lambda: nn.ConvTranspose2d(3, 4, 3), "reset_parameters"),
    "wide conv": (lambda: nn.Conv2d(64, 300, 3), "reset_parameters"),
    "bilinear": (lambda: nn.Bilinear(3, 4, 5), "reset_parameters"),
    "attention": (lambda: nn.MultiheadAttention(8, 2), "_reset_parameters"),
    "wide attention": (lambda: nn.MultiheadAttention(160, 2), "_reset_parameters"),
    "separate q, k, v": (
        lambda: nn.MultiheadAttention(8, 2, kdim=6, vdim=7, add_bias_kv=True),
        "_reset_parameters",
    ),
    "rnn": (lambda: nn.RNN(4, 6), "reset_parameters"),
    "gru": (lambda: nn.GRU(4, 6, bidirectional=True), "reset_parameters"),
    "lstm": (lambda: nn.LSTM(4, 6, num_layers=2), "reset_parameters"),
    "wide lstm": (lambda: nn.LSTM(80, 150), "reset_parameters"),
    "lstm with projections": (lambda: nn.LSTM(4, 6, proj_size=3), "reset_parameters"),
    "rnn cell": (lambda: nn.RNNCell(4, 6), "reset_parameters"),
    "lstm cell": (lambda: nn.LSTMCell(4, 6), "reset_parameters"),
    "gru cell": (lambda: nn.GRUCell(4, 6), "reset_parameters"),
    "embedding": (lambda: nn.Embedding(7, 4, padding_idx=0), "reset_parameters"),
    "one's own": (lambda: Gained(6, 5), "reset_parameters"),
}
EVERY_LAYER = pytest.mark.parametrize(("make", "method"), LAYERS.values(), ids=LAYERS.keys())


def masks_of(model: nn.Module) -> dict[str, Tensor]:
    """Return half-full masks of every matrix, whatever kind of layer holds it."""
    draw = torch.Generator().manual_seed(1)
    matrices = {n: p for n, p in model.named_parameters() if p.dim() > 1 and "bias_" not in n}
    return {n: torch.rand(p.shape, generator=draw) < 0.5 for n, p in matrices.items()}


def attach(model: nn.Module, form: Form) -> nn.Module:
    """Mask every matrix of a layer in one of the forms."""
    values = [(p, p.detach().clone()) for p in model.parameters()]
    pol.mask_weights(model, masks=masks_of(model))
    if form.name == "in_step":
        pol.enforce_in_step(model, torch.optim.SGD(model.parameters(), lr=0.1))
    elif form.name == "remembered":
        for module in model.modules():
            if isinstance(module, pol.MaskedWeight):
                module.enforce = False
        with torch.no_grad():
            for parameter, value in values:
                parameter.copy_(value)
    elif "sign_in" in form.name:
        pol.sign_in(model, beta=0.5)
    else:
        assert form.compact or form.name == "masked", "a new form: say how it is attached"
    return compacted(model, multiplies=form.multiplies) if form.compact else model


def check(model: nn.Module, plain: nn.Module, form: Form, masks: dict[str, Tensor]) -> None:
    """Compare with mask times plain twin, in every parameter and buffer."""
    assert all(torch.equal(pol.masks(model)[name], mask) for name, mask in masks.items())
    ours, by_tensor = pol.dense_state_dict(model), {}
    for name, mask in masks.items():
        by_tensor[tensor_at(plain, name).data_ptr()] = mask
    for name, value in plain.state_dict().items():
        kept = by_tensor.get(value.data_ptr())
        if kept is None or not form.enforced:
            kept = torch.ones_like(value, dtype=torch.bool)
        expected = torch.where(kept, value, 0.0)
        if form.same_parameters or kept.all():
            assert torch.equal(ours[name], expected), name
        else:
            torch.testing.assert_close(ours[name], expected, rtol=1e-5, atol=1e-6)
    if form.enforced:
        assert not any(leaf[~mask].any() for leaf, mask in leaf_and_mask(model))


@EVERY_FORM
@EVERY_LAYER
@pytest.mark.parametrize("mode", ["train", "eval", "inference", "swap"])
def test_a_reset_is_the_mask_times_the_reset_of_the_plain_layer_under_the_same_seed(
    make: Callable[[], nn.Module], method: str, form: Form, mode: str
) -> None:
    plain = make()
    model, masks = attach(copy.deepcopy(plain), form), masks_of(plain)
    model.train(mode == "train")
    leaves, before = list(model.parameters()), pol.dense_state_dict(model)
    untouched = {"out_proj.weight"}  # which attention leaves to its inner layer
    torch.__future__.set_swap_module_params_on_conversion(mode == "swap")
    try:
        torch.manual_seed(5)
        getattr(plain, method)()
        after_plain = torch.get_rng_state()
        torch.manual_seed(5)
        with torch.inference_mode() if mode == "inference" else nullcontext():
            getattr(model, method)()
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    assert torch.equal(torch.get_rng_state(), after_plain), "it drew other numbers"
    check(model, plain, form, masks)
    for name in masks.keys() - untouched:
        assert not torch.equal(pol.dense_state_dict(model)[name], before[name])
    assert all(a is b for a, b in zip(leaves, model.parameters(), strict=True))
    assert not any(p.is_inference() for p in model.parameters())
    assert getattr(model, "resets", 1) == getattr(plain, "resets", 1) == 1


@EVERY_FORM
@pytest.mark.parametrize("kind", [*KINDS, WIDE], ids=lambda kind: kind.name)
def test_applying_reset_parameters_gives_every_masked_layer_new_survivors_and_keeps_its_mask(
    kind: Kind, form: Form
) -> None:
    plain = build(kind)
    model, masks = form.attach(build(kind)), random_masks(plain)
    for each in (plain, model):
        torch.manual_seed(5)
        each.apply(lambda m: m.reset_parameters() if hasattr(m, "reset_parameters") else None)
    check(model, plain, form, masks)
    before = pol.dense_state_dict(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    train_step(model.train(), optimizer, feed(kind))
    assert any(not torch.equal(before[n], v) for n, v in pol.dense_state_dict(model).items())


@EVERY_FORM
@pytest.mark.parametrize("width", [5, 300])
def test_resetting_one_of_two_tied_layers_resets_both(form: Form, width: int) -> None:
    def tied() -> nn.Sequential:
        model = seeded(nn.Sequential(nn.Linear(width, width), nn.Linear(width, width)))
        model[1].weight = model[0].weight
        return model

    plain, model = tied(), form.attach(tied())
    for each in (plain, model):
        torch.manual_seed(5)
        each[1].reset_parameters()
    check(model, plain, form, random_masks(plain))
    assert torch.equal(model[0].weight, model[1].weight)


@EVERY_FORM
def test_a_reset_that_raises_leaves_everything_as_it_was(form: Form) -> None:
    model = attach(Breaking(300, 90), form)
    model.broken = True

    def everything() -> list[Any]:
        return [fingerprint(model.state_dict()), list(vars(model)), type(model), model._modules]

    before, state = everything(), torch.get_rng_state()
    with pytest.raises(OSError, match="disk full"):
        model.reset_parameters()
    assert everything() == before
    assert torch.equal(torch.get_rng_state(), state)


class Reshaping(nn.Linear):
    def reset_parameters(self) -> None:
        super().reset_parameters()
        if hasattr(self, "grow"):
            self.bias.data.fill_(7.0)
            self.weight = nn.Parameter(torch.ones(2, 2))


def test_a_reset_to_another_shape_is_refused_and_writes_nothing() -> None:
    model = pol.mask_weights(Reshaping(6, 5))
    model.grow = True
    before = fingerprint(model.state_dict())
    with pytest.raises(
        ValueError, match=r"'weight' in shape \(2, 2\), expected the model's \(5, 6\)"
    ):
        model.reset_parameters()
    assert fingerprint(model.state_dict()) == before


@pytest.mark.parametrize("broken", ["copy_", "_foreach_copy_"])
def test_a_write_that_fails_leaves_everything_as_it_was(
    broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of memory")

    model = pol.mask_weights(nn.Linear(6, 5))
    before = fingerprint(model.state_dict())
    owner = torch.Tensor if broken == "copy_" else torch
    monkeypatch.setattr(owner, broken, fail)
    if broken == "_foreach_copy_":
        with pytest.raises(RuntimeError, match="out of memory"):
            model.reset_parameters()
        assert fingerprint(model.state_dict()) == before
    else:
        model.reset_parameters()  # the one write is another


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_an_interpolated_norm_resets_its_trained_values_and_statistics(training: bool) -> None:
    plain = seeded(nn.BatchNorm1d(4))
    model = pol.interpolate_norms(copy.deepcopy(plain)).train(training)
    plain.reset_parameters()
    model.reset_parameters()
    assert {n: v.tolist() for n, v in attached_norms(model).items()} == {
        "weight": [1.0] * 4,
        "bias": [0.0] * 4,
    }
    for name, value in plain.named_buffers():
        assert torch.equal(model.get_buffer(name), value)


def test_a_copy_and_its_original_reset_each_its_own() -> None:
    model = pol.mask_weights(nn.Linear(6, 5))
    twin = copy.deepcopy(model)
    before, other = model.weight.detach().clone(), twin.weight.detach().clone()
    twin.reset_parameters()
    assert torch.equal(model.weight, before)
    assert not torch.equal(twin.weight, other)
    pol.merge(model)
    other = twin.weight.detach().clone()
    twin.reset_parameters()
    assert not torch.equal(twin.weight, other)


def test_a_merged_layer_has_the_reset_of_its_class_again() -> None:
    model = pol.merge(pol.mask_weights(nn.Linear(6, 5)))
    assert type(model) is nn.Linear
    assert model.reset_parameters.__func__ is nn.Linear.reset_parameters


class WithoutInverse(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def test_a_further_parametrization_without_inverse_is_named_and_nothing_is_written() -> None:
    model = pol.mask_weights(nn.Linear(6, 5))
    nn.utils.parametrize.register_parametrization(model, "weight", WithoutInverse())
    before = fingerprint(model.state_dict())
    with pytest.raises(ValueError, match="'weight' cannot be written: WithoutInverse"):
        model.reset_parameters()
    assert fingerprint(model.state_dict()) == before


# What cannot be noticed


INITS = {
    "normal_": nn.init.normal_,
    "ones_": nn.init.ones_,
    "kaiming_uniform_": nn.init.kaiming_uniform_,
    "orthogonal_": nn.init.orthogonal_,
}
EVERY_INIT = pytest.mark.parametrize("init", INITS.values(), ids=INITS.keys())
SIZES = pytest.mark.parametrize("kind", [KINDS[0], KINDS[2], WIDE], ids=lambda kind: kind.name)
MODES = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
COMPUTED = [form for form in FORMS if form.enforced and (form.sees_writes or form.compact)]
STORED = [form for form in FORMS if form not in COMPUTED]


@pytest.mark.parametrize("form", COMPUTED, ids=lambda form: form.name)
@MODES
@SIZES
@EVERY_INIT
def test_init_functions_on_a_computed_weight_change_nothing(
    init: Callable[[Tensor], Tensor], kind: Kind, training: bool, form: Form
) -> None:
    model, inputs = form.attach(build(kind)).train(training), feed(kind)
    for _ in range(2):
        before, output = fingerprint(model.state_dict()), outputs(model, inputs)
        for name in pol.masks(model):
            init(tensor_at(model, name))
        assert fingerprint(model.state_dict()) == before
        assert torch.equal(outputs(model, inputs), output)


@pytest.mark.parametrize("form", STORED, ids=lambda form: form.name)
@MODES
@SIZES
@EVERY_INIT
def test_init_functions_write_where_no_mask_is_in_forward_and_a_projection_masks_that(
    init: Callable[[Tensor], Tensor], kind: Kind, training: bool, form: Form
) -> None:
    model = form.attach(build(kind)).train(training)
    for name, mask in pol.masks(model).items():
        torch.manual_seed(3)
        expected = init(torch.empty(mask.shape))
        torch.manual_seed(3)
        init(tensor_at(model, name))
        masking = pol.find_targets(model)[name].masking
        if masking.in_step is not None:
            masking.in_step.project()
            expected = torch.where(mask, expected, 0.0)
        assert torch.equal(tensor_at(model, name), expected)
