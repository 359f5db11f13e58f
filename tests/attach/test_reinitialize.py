"""``reinitialize``: new values for a whole model under its masks, all at once, from one seed."""

import copy
import re
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import polarity as pol
from polarity.attach.norms import attached_norms
from tests.forms import FORMS, Form, random_masks
from tests.helpers import build, leaf_and_mask, tensor_at
from tests.laws.refusals import fingerprint
from tests.models import KINDS, WIDE, Kind, generator, seeded

EVERY_FORM = pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
# But for the one whose weight no method draws, which is refused.
DRAWN = [kind for kind in [*KINDS, WIDE] if kind.name != "own_weight"]
EVERY_KIND = pytest.mark.parametrize("kind", DRAWN, ids=lambda kind: kind.name)


def reset_all(model: nn.Module) -> None:
    """Reset every module of a plain model by its own method, inner ones first."""

    def reset(module: nn.Module) -> None:
        method = getattr(module, "reset_parameters", getattr(module, "_reset_parameters", None))
        if method is not None:
            method()

    model.apply(reset)


def drawn(plain: nn.Module, draw: torch.Generator, by: Callable[[nn.Module], object]) -> nn.Module:
    """Return what a plain model becomes under the seed that a generator gives next."""
    seed = int(torch.randint(2**62, (), generator=draw))
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        by(plain)
    return plain


def check(model: nn.Module, plain: nn.Module, form: Form, masks: dict[str, Tensor]) -> None:
    ours = pol.dense_state_dict(model)
    by_tensor = {tensor_at(plain, name).data_ptr(): mask for name, mask in masks.items()}
    for name, value in plain.state_dict().items():
        mask = by_tensor.get(value.data_ptr()) if form.enforced else None
        expected = value if mask is None else torch.where(mask, value, 0.0)
        if form.same_parameters or mask is None:
            assert torch.equal(ours[name], expected), name
        else:
            torch.testing.assert_close(ours[name], expected, rtol=1e-5, atol=1e-6)
    assert not any(leaf[~m].any() for leaf, m in leaf_and_mask(model) if form.enforced)


@EVERY_FORM
@EVERY_KIND
def test_every_tensor_is_the_mask_times_what_the_plain_model_draws(kind: Kind, form: Form) -> None:
    model, masks = form.attach(build(kind)), random_masks(build(kind))
    leaves, state = list(model.parameters()), torch.get_rng_state()
    assert pol.reinitialize(model, generator=generator(3)) is model
    assert torch.equal(torch.get_rng_state(), state)
    assert all(a is b for a, b in zip(leaves, model.parameters(), strict=True))
    assert all(torch.equal(pol.masks(model)[name], mask) for name, mask in masks.items())
    check(model, drawn(build(kind), generator(3), reset_all), form, masks)


def sharp(module: nn.Module) -> None:
    """Draw as models of ``transformers`` do: by data, and by the type of the module."""
    if isinstance(module, (nn.Linear, nn.Conv2d, nn.Embedding)):
        module.weight.data.normal_(0.0, 0.02)
        if getattr(module, "bias", None) is not None:
            nn.init.constant_(module.bias, 0.5)


@EVERY_FORM
@pytest.mark.parametrize("kind", [KINDS[0], KINDS[2], KINDS[8], WIDE], ids=lambda kind: kind.name)
def test_a_function_of_ones_own_sees_plain_parameters_and_draws_them(
    kind: Kind, form: Form
) -> None:
    model, masks = form.attach(build(kind)), random_masks(build(kind))

    def init(module: nn.Module) -> None:
        assert "Parametrized" not in type(module).__name__
        assert all(isinstance(p, nn.Parameter) for p in module.parameters(recurse=False))
        sharp(module)

    pol.reinitialize(model, init=init, generator=generator(3))
    check(model, drawn(build(kind), generator(3), lambda m: m.apply(sharp)), form, masks)


def test_an_init_that_knows_the_model_sees_its_own_modules() -> None:
    model = pol.mask_weights(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)))

    def init(module: nn.Module) -> None:
        if module is model[1]:
            nn.init.ones_(module.weight)

    before = model[0].weight.detach().clone()
    with pytest.warns(UserWarning, match=r"nothing wrote to '0\.weight', expected"):
        pol.reinitialize(model, init=init)
    assert torch.equal(model[1].weight, torch.ones(4, 4))
    assert torch.equal(model[0].weight, before)


def network() -> nn.Sequential:
    return seeded(
        nn.Sequential(nn.Linear(300, 40), nn.BatchNorm1d(40), nn.LayerNorm(40), nn.Linear(40, 3))
    )


@pytest.mark.parametrize("interpolated", [False, True])
def test_biases_norms_and_running_statistics_start_anew(interpolated: bool) -> None:
    model = pol.mask_weights(network())
    if interpolated:
        pol.interpolate_norms(model, generator=generator())
        initial = model[1].parametrizations.weight[0].initial.clone()
    pol.reinitialize(model)
    trained = attached_norms(model) or dict(model.named_parameters())
    for name in ("1.weight", "1.bias", "2.weight", "2.bias"):
        assert torch.equal(trained[name], torch.full((40,), float(name.endswith("weight"))))
    assert torch.equal(model[1].running_var, torch.ones(40))
    assert not model[1].running_mean.any()
    assert not torch.equal(model[0].bias, network()[0].bias)
    if interpolated:
        assert torch.equal(model[1].parametrizations.weight[0].initial, initial)


def test_the_seed_comes_from_the_generator_or_else_from_the_global_one() -> None:
    results = []
    for _ in range(2):
        torch.manual_seed(7)
        first = pol.reinitialize(pol.mask_weights(network()))[0].weight.detach()
        results.append([first, pol.reinitialize(network(), generator=generator(1))[0].weight])
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    assert not torch.equal(results[0][0], results[0][1])
    torch.manual_seed(7)
    model = pol.reinitialize(network())
    again = model[0].weight.detach().clone()
    assert not torch.equal(pol.reinitialize(model)[0].weight, again), "the next seed is another"


@pytest.mark.gpu
def test_one_seed_gives_one_model_on_every_device() -> None:
    here = pol.imp_prune(model := network(), density=0.5) and model
    there = copy.deepcopy(here).cuda()
    for each in (here, there):
        pol.reinitialize(each, generator=generator(3))
    for name, value in here.state_dict().items():
        assert torch.equal(there.state_dict()[name].cpu(), value)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_a_model_of_another_dtype_draws_in_its_own(dtype: torch.dtype) -> None:
    model = pol.mask_weights(network().to(dtype))
    pol.reinitialize(model, generator=generator(3))
    expected = drawn(network().to(dtype), generator(3), reset_all)
    assert torch.equal(model[0].weight, expected[0].weight)


class Bare(nn.Module):
    """A weight that no method draws."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.inner = nn.Parameter(torch.ones(3, 3)), nn.Linear(3, 3)


@EVERY_FORM
def test_prunable_weights_that_nothing_reached_are_named_and_keep_every_bit(form: Form) -> None:
    model = Bare()
    pol.mask_weights(model, targets=("weight", "inner.weight"))
    if form.name == "sign_in":
        pol.sign_in(model, beta=0.3)
    before = fingerprint({n: p for n, p in model.named_parameters() if "inner" not in n})
    with pytest.warns(UserWarning, match=r"nothing wrote to 'weight', expected a reset_param") as w:
        pol.reinitialize(model)
    assert [each.filename for each in w] == [__file__]
    after = fingerprint({n: p for n, p in model.named_parameters() if "inner" not in n})
    assert before == after
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pol.reinitialize(model, init=lambda m: [p.data.normal_() for p in m.parameters()])


class Block(nn.Module):
    """A module that draws the weights of the layers inside it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, width)

    def reset_parameters(self) -> None:
        nn.init.constant_(self.inner.weight, 0.25)


@EVERY_FORM
@pytest.mark.parametrize("width", [4, 300])
def test_a_block_draws_the_layers_inside_it_where_its_own_method_changes_nothing(
    form: Form, width: int
) -> None:
    model = form.attach(seeded(Block(width)))
    mask = pol.masks(model)["inner.weight"]
    if form.enforced and form.sees_writes:
        before = fingerprint(model.state_dict())
        model.reset_parameters()
        assert fingerprint(model.state_dict()) == before
    pol.reinitialize(model)
    expected = 0.25 * mask if form.enforced else torch.full((width, width), 0.25)
    torch.testing.assert_close(model.inner.weight.detach(), expected)


class Half(nn.Linear):
    def reset_parameters(self) -> None:
        super().reset_parameters()
        if hasattr(self, "broken"):
            raise OSError("disk full")


def half() -> nn.Module:
    model = pol.mask_weights(nn.Sequential(nn.Linear(3, 3), Half(3, 3)))
    model[1].broken = True
    return model


REFUSALS = {
    "no module draws": (
        lambda: nn.Sequential(nn.ReLU()),
        {},
        ValueError,
        "no module has reset_parameters: pass init=",
    ),
    "init does nothing": (network, {"init": lambda m: None}, ValueError, "set nothing: pass init="),
    "init is no function": (network, {"init": 3}, TypeError, "init=3 is an int, expected a func"),
    "a number as generator": (network, {"generator": 3}, TypeError, "generator=3 is an int"),
    "no module": (lambda: 3, {}, TypeError, "model is an int, expected a torch.nn.Module"),
    "a method raises": (half, {}, OSError, "disk full"),
    "lazy": (lambda: nn.LazyLinear(3), {}, ValueError, "is lazy: run one batch"),
    "meta": (lambda: nn.Linear(3, 3, device="meta"), {}, ValueError, "'weight' on the meta device"),
}


@pytest.mark.parametrize(("make", "given", "error", "said"), REFUSALS.values(), ids=REFUSALS)
def test_a_refused_call_leaves_model_and_random_state_as_they_were(
    make: Callable[[], nn.Module], given: dict, error: type[Exception], said: str
) -> None:
    model = make()
    readable = isinstance(model, nn.Module) and not any(
        p.is_meta or nn.parameter.is_lazy(p) for p in model.parameters()
    )
    before, state = fingerprint(model.state_dict()) if readable else None, torch.get_rng_state()
    with pytest.raises(error, match=re.escape(said)):
        pol.reinitialize(model, **given)
    assert torch.equal(torch.get_rng_state(), state)
    assert not readable or fingerprint(model.state_dict()) == before
