"""Masks that others changed, as averages of models do: reported once, repaired in a line."""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import polarity as pol
from tests.forms import FORMS, Form, half_masked
from tests.helpers import build, feed, outputs, train_step
from tests.models import KINDS, WIDE, Kind

# An average of compact weights has their survivors, and cannot go on once they are others.
DENSE = [form for form in FORMS if not form.compact]
EVERY_FORM = pytest.mark.parametrize("form", DENSE, ids=lambda form: form.name)
COMPACT = pytest.mark.parametrize("form", [f for f in FORMS if f.compact], ids=lambda f: f.name)
SIZES = pytest.mark.parametrize("kind", [KINDS[0], WIDE], ids=lambda kind: kind.name)
REMEDY = r"Restore it with pol\.load_masks\(average, pol\.masks\(model\)\)"


class ZipEma:
    """An average of whole checkpoints, as timm's ModelEmaV2 and V3 keep it."""

    def __init__(self, model: nn.Module, decay: float = 0.9) -> None:
        self.module, self.decay = copy.deepcopy(model).eval(), decay

    def update(self, model: nn.Module) -> None:
        pairs = zip(self.module.state_dict().values(), model.state_dict().values(), strict=True)
        for mine, theirs in pairs:
            if mine.is_floating_point():
                mine.copy_(self.decay * mine + (1 - self.decay) * theirs)
            else:
                mine.copy_(theirs)


def torch_average(model: nn.Module, use_buffers: bool) -> Any:
    average = AveragedModel(model, use_buffers=use_buffers)
    average.update = average.update_parameters
    return average


def torch_ema(model: nn.Module) -> Any:
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    average.update = average.update_parameters
    return average


def write_back(model: nn.Module, average: nn.Module) -> None:
    """Copy an average into the model, as Lightning's EMAWeightAveraging does before validation."""
    for name in ("parameters", "buffers"):
        pairs = zip(getattr(model, name)(), getattr(average, name)(), strict=True)
        for mine, theirs in pairs:
            mine.data.copy_(theirs.data)


def averaged(kind: Kind, form: Form, make: Callable[[nn.Module], Any]) -> tuple[nn.Module, Any]:
    """Return a model that was pruned between two updates of an average, and the average."""
    model = form.attach(build(kind))
    average = make(model)
    average.update(model)
    train_step(model, torch.optim.SGD(model.parameters(), lr=0.05), feed(kind))
    pol.imp_prune(model, density=0.25)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        average.update(model)
    return model, average


def changes(action: Callable[[], object]) -> list[str]:
    """Run something and return what was said of masks that were changed from outside."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        action()
    said = [str(each.message) for each in caught if issubclass(each.category, UserWarning)]
    return [each for each in said if "changed from outside" in each]


AVERAGES = {
    "zip": ZipEma,
    "torch with buffers": lambda model: torch_average(model, True),
    "torch ema": torch_ema,
}
EVERY_AVERAGE = pytest.mark.parametrize("make", AVERAGES.values(), ids=AVERAGES.keys())


# Where it is seen


OCCASIONS: dict[str, Callable[[nn.Module], object]] = {
    "train or eval": lambda model: model.train(not model.training),
    "checkpoint": lambda model: model.state_dict(),
}
EVERY_OCCASION = pytest.mark.parametrize("look", OCCASIONS.values(), ids=OCCASIONS.keys())


@EVERY_AVERAGE
@EVERY_FORM
@SIZES
@EVERY_OCCASION
def test_an_averaged_mask_is_reported_once_by_name_with_its_remedy(
    make: Any, form: Form, kind: Kind, look: Callable[[nn.Module], object]
) -> None:
    _, average = averaged(kind, form, make)
    (said,) = changes(lambda: look(average.module))
    assert said.startswith("the mask of 'weight' was changed from outside: it holds values other")
    assert changes(lambda: [look(average.module), look(average.module)]) == []
    with pytest.raises(ValueError, match=r"mask of 'weight' holds values other .*load_masks\(aver"):
        pol.imp_prune(average.module, density=0.1)


@EVERY_AVERAGE
@EVERY_FORM
@SIZES
def test_one_line_gives_an_average_the_masks_of_its_model(
    make: Any, form: Form, kind: Kind
) -> None:
    model, average = averaged(kind, form, make)
    assert changes(lambda: pol.load_masks(average.module, pol.masks(model))) == []
    assert changes(lambda: [average.module.train(), average.module.eval()]) == []
    mask = pol.masks(average.module)["weight"]
    assert torch.equal(mask, pol.masks(model)["weight"])
    assert not average.module.weight[~mask].any()
    assert pol.density(average.module) == pol.density(model)
    assert torch.isfinite(outputs(average.module, feed(kind))).all()


@EVERY_FORM
@SIZES
def test_an_average_without_buffers_follows_the_masks_unreported(form: Form, kind: Kind) -> None:
    model, average = averaged(kind, form, lambda model: torch_average(model, False))
    assert changes(lambda: [average.train(), average.eval(), average.state_dict()]) == []
    assert torch.equal(pol.masks(average.module)["weight"], pol.masks(model)["weight"])


def regrow(model: nn.Module) -> None:
    """Give pruned entries back, as copying the buffers of an older model does."""
    for name, buffer in model.named_buffers():
        if name.endswith("mask"):
            buffer.data.copy_(torch.ones_like(buffer))


READERS: dict[str, Callable[[nn.Module], object]] = {
    "masks": pol.masks,
    "density": pol.density,
    "imp_prune": lambda model: pol.imp_prune(model, density=0.05),
    "signed_mask": pol.signed_mask,
    **OCCASIONS,
}


@EVERY_FORM
@SIZES
@pytest.mark.parametrize("read", READERS.values(), ids=READERS.keys())
def test_a_mask_that_was_given_back_pruned_entries_is_reported_once(
    form: Form, kind: Kind, read: Callable[[nn.Module], object]
) -> None:
    model = form.attach(build(kind))
    mask = pol.masks(model)["weight"]
    more = mask.numel() - int(mask.sum())
    regrow(model)
    (said,) = changes(lambda: read(model))
    assert f"the mask of 'weight' was changed from outside: it has {mask.numel()} ones" in said
    assert f"{more} more than polarity last wrote" in said
    assert changes(lambda: [read(model), read(model)]) == []


@EVERY_FORM
@SIZES
def test_what_lightning_writes_back_is_reported_by_the_model_itself(form: Form, kind: Kind) -> None:
    model, average = averaged(kind, form, ZipEma)
    masks = pol.masks(model)
    write_back(model, average.module)
    assert len(changes(lambda: model.train(not model.training))) == 1
    with pytest.raises(ValueError, match="mask of 'weight' holds values other than 0 and 1"):
        pol.masks(model)
    pol.load_masks(model, masks)
    assert torch.equal(pol.masks(model)["weight"], masks["weight"])


def test_an_older_average_that_is_written_back_is_reported() -> None:
    model = pol.mask_weights(build(KINDS[0]))
    average = copy.deepcopy(model)  # of before the pruning: all ones
    pol.imp_prune(model, density=0.2)
    write_back(model, average)
    (said,) = changes(lambda: pol.density(model))
    assert "has 30 ones, 24 more than polarity last wrote" in said


@EVERY_AVERAGE
@EVERY_FORM
@SIZES
@pytest.mark.parametrize("assign", [False, True])
def test_an_averaged_checkpoint_is_reported_by_the_model_that_loads_it(
    make: Any, form: Form, kind: Kind, assign: bool
) -> None:
    model, average = averaged(kind, form, make)
    state = copy.deepcopy(average.module.state_dict())
    masks = pol.masks(model)
    (said,) = changes(lambda: model.load_state_dict(state, assign=assign))
    assert said.startswith("the mask of 'weight' was changed from outside: it holds values other")
    assert changes(lambda: [model.train(), model.eval(), model.state_dict()]) == []
    assert changes(lambda: pol.load_masks(model, masks)) == []
    assert torch.equal(pol.masks(model)["weight"], masks["weight"])


def test_the_name_is_the_plain_one_within_the_model() -> None:
    model = half_masked(nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 3))))
    regrow(model)
    said = changes(model.eval)
    assert [each.split("'")[1] for each in said] == ["0.weight", "1.0.weight"]


# Where it is not


@EVERY_FORM
@SIZES
def test_what_polarity_writes_and_loads_is_never_reported(form: Form, kind: Kind) -> None:
    model, other = form.attach(build(kind)), form.attach(build(kind, 5))
    pol.imp_prune(other, density=0.1)
    dense = build(kind, 7).state_dict()

    def life() -> None:
        for source in (model, other):  # to fewer ones and to more
            source.train(), source.eval()
            for target in (model, other):
                target.load_state_dict(source.state_dict())
                target.train(), target.eval()
        model.load_state_dict(dense)
        model.load_state_dict(pol.mask_weights(build(kind)).state_dict())
        copy.deepcopy(model).train().eval()
        pol.load_masks(model, {"weight": torch.rand(model.weight.shape) < 0.9})
        model.train(), model.double(), model.float(), model.eval(), model.state_dict()
        pol.signed_mask(other).apply(model)
        model.train(), pol.masks(model), pol.imp_prune(model, 0.5)
        start = pol.RewindPoint.capture(model)
        pol.imp_prune(model, 0.5, rewind=start), model.eval()
        pol.load_masks(model, {"weight": torch.ones(model.weight.shape)}), model.train()

    assert changes(life) == []


@EVERY_FORM
def test_a_mask_with_fewer_ones_is_not_reported(form: Form) -> None:
    model = form.attach(build(KINDS[0]))
    for name, buffer in model.named_buffers():
        if name.endswith("mask"):
            buffer[0].zero_()
    assert changes(lambda: [model.train(), model.state_dict(), pol.density(model)]) == []


@EVERY_FORM
def test_a_dense_checkpoint_does_not_hide_a_change(form: Form) -> None:
    model = form.attach(build(KINDS[0]))
    regrow(model)
    dense = build(KINDS[0], 7).state_dict()
    assert len(changes(lambda: [model.load_state_dict(dense), model.train()])) == 1


@EVERY_FORM
def test_forward_never_looks(form: Form, monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = form.attach(build(WIDE)), feed(WIDE)
    regrow(model)

    def look(*_: Any) -> None:
        raise AssertionError("the mask was counted")

    monkeypatch.setattr("polarity.parametrizations.masked.count_ones", look)
    assert changes(lambda: [model(*inputs), model(*inputs).sum().backward()]) == []
    model.eval()  # in this mode already: no look


@EVERY_FORM
@pytest.mark.parametrize("where", ["fake", "meta", "compiled", "exported", "vmap"])
def test_nothing_is_read_where_there_are_no_values(form: Form, where: str) -> None:
    model, inputs = form.attach(build(KINDS[0])), feed(KINDS[0])
    regrow(model)

    def life(x: Tensor) -> Tensor:
        model.train(), model.eval()
        return model(x)

    def act() -> None:
        if where == "compiled":
            torch._dynamo.reset()
            torch.compile(life, backend="eager")(*inputs)
        elif where == "exported":
            torch.export.export(model, inputs, strict=False)
        elif where == "vmap":
            torch.func.vmap(life)(inputs[0])
        elif where == "fake":
            with FakeTensorMode():
                model.train(), model.eval()
        else:
            other = copy.deepcopy(model).to("meta")
            other.train(), other.eval(), other.state_dict()

    # Where PyTorch reads the real checkpoint (export), or runs Python around a graph, it is seen.
    said = changes(lambda: [act(), model.train()])
    assert len(said) == 1


def test_a_mask_registered_by_hand_is_watched_too() -> None:
    layer = nn.Linear(4, 4)
    mask = pol.MaskedWeight(torch.eye(4))
    nn.utils.parametrize.register_parametrization(layer, "weight", mask)
    regrow(layer)
    assert len(changes(layer.eval)) == 1


@COMPACT
def test_an_average_of_compact_weights_is_refused_other_survivors(form: Form) -> None:
    model = form.attach(build(WIDE))
    average = AveragedModel(model)
    average.update_parameters(model)
    assert pol.density(average.module) == pol.density(model)
    pol.imp_prune(model, density=0.2)
    average.update_parameters(AveragedModel(form.attach(build(WIDE))).module)
    with pytest.raises(RuntimeError, match="size"):
        average.update_parameters(model)
    fresh = AveragedModel(model)
    fresh.update_parameters(model)
    assert torch.equal(outputs(fresh, feed(WIDE)), outputs(model, feed(WIDE)))
