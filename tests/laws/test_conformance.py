"""What every parametrization owes every kind of layer."""

import copy
import io

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune
from torch.optim.swa_utils import AveragedModel

import polarity as pol
from tests.forms import FORMS, Form, random_masks
from tests.helpers import (
    at_survivors,
    build,
    feed,
    full_precision,
    leaf_and_mask,
    outputs,
    plain_state,
    same_state,
    tensor_at,
    train,
    train_step,
    zeroed,
)
from tests.models import KINDS, WIDE, Kind

pytestmark = [
    pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name),
    pytest.mark.parametrize("kind", [*KINDS, WIDE], ids=lambda kind: kind.name),
]


def converted(kind: Kind, form: Form, seed: int = 0) -> nn.Module:
    return form.attach(build(kind, seed))


def reference(kind: Kind, form: Form, seed: int = 0) -> nn.Module:
    """Return the plain model that computes what ``converted`` must compute."""
    model = build(kind, seed)
    return zeroed(model, random_masks(model)) if form.enforced else model


def agree(form: Form, ours: Tensor, plain: Tensor) -> bool:
    """Bit for bit, or up to the rounding of one product where the weight is one."""
    if form.exact:
        return torch.equal(ours, plain)
    return torch.allclose(ours, plain, rtol=1e-4, atol=1e-5)


def same(form: Form, one: Tensor, other: Tensor) -> bool:
    """Bit for bit, or up to the order in which a sparse product adds."""
    return (
        torch.allclose(one, other, rtol=1e-4, atol=1e-5)
        if form.multiplies
        else torch.equal(one, other)
    )


def same_masks(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def plain_name(name: str) -> str:
    return name.replace("parametrizations.", "").removesuffix(".original")


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_a_layer_computes_with_its_masked_weights(kind: Kind, form: Form, training: bool) -> None:
    model = converted(kind, form).train(training)
    plain = reference(kind, form).train(training)
    inputs = feed(kind)
    assert agree(form, model(*inputs), plain(*inputs))
    with torch.no_grad():
        torch.testing.assert_close(model(*inputs), plain(*inputs))


def test_no_gradient_reaches_a_pruned_entry_and_every_survivor_has_its_own(
    kind: Kind, form: Form
) -> None:
    model, plain, inputs = converted(kind, form), reference(kind, form), feed(kind)
    masks = pol.masks(model)
    model(*inputs).square().sum().backward()
    plain(*inputs).square().sum().backward()
    for name, mask in masks.items():
        expected = tensor_at(plain, name).grad
        path, _, tensor_name = name.rpartition(".")
        chain = model.get_submodule(path).parametrizations[tensor_name]
        if not form.same_parameters:  # the chain rule of a product
            m, v = chain.original0, chain.original1
            expected = at_survivors(expected * mask, mask, form)
            close = {"rtol": 1e-3, "atol": 1e-4}
            torch.testing.assert_close(m.grad, expected * v, **close)
            torch.testing.assert_close(v.grad, expected * m, **close)
            assert form.compact or not m.grad[~mask].any()
            assert form.compact or not v.grad[~mask].any()
            continue
        stored = chain.original
        expected = at_survivors(expected * mask if form.enforced else expected, mask, form)
        assert agree(form, stored.grad, expected)
        assert bool(stored.grad[(at_survivors(mask, mask, form)) & (expected != 0)].all())


def test_backward_works_step_after_step_and_gives_the_same_gradients_again(
    kind: Kind, form: Form
) -> None:
    model, inputs = converted(kind, form), feed(kind)
    seen = []
    for _ in range(3):
        model.zero_grad()
        model(*inputs).square().sum().backward()
        seen.append([parameter.grad.clone() for parameter in model.parameters()])
    assert all(torch.equal(a, b) for later in seen[1:] for a, b in zip(seen[0], later, strict=True))
    (model(*inputs).sum() + model(*inputs).sum()).backward()


@pytest.mark.parametrize("after_forward", [False, True], ids=["fresh", "after_forward"])
@pytest.mark.parametrize("changed", ["copy", "original"])
def test_a_deepcopy_and_its_original_go_separate_ways(
    kind: Kind, form: Form, changed: str, after_forward: bool
) -> None:
    model, inputs = converted(kind, form), feed(kind)
    if after_forward:
        model(*inputs)
    twin = copy.deepcopy(model)
    worked_on, left_alone = (twin, model) if changed == "copy" else (model, twin)
    before, output, masks = plain_state(left_alone), left_alone(*inputs), pol.masks(left_alone)
    train(worked_on, inputs)
    pol.imp_prune(worked_on, density=0.25)
    pol.merge(worked_on)
    assert not torch.equal(worked_on(*inputs), output)
    assert same_state(plain_state(left_alone), before)
    assert torch.equal(left_alone(*inputs), output)
    assert same_masks(pol.masks(left_alone), masks)
    train(left_alone, inputs)
    pol.merge(left_alone)
    assert list(left_alone.state_dict()) == list(kind.build().state_dict())


def test_a_state_dict_round_trip_restores_weights_masks_and_enforcement(
    kind: Kind, form: Form
) -> None:
    model, inputs = converted(kind, form), feed(kind)
    other = converted(kind, form, seed=5)
    pol.imp_prune(other, density=0.1)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert same_state(plain_state(other), plain_state(model))
    assert same_masks(pol.masks(other), pol.masks(model))
    assert torch.equal(outputs(other, inputs), outputs(model, inputs))


def test_a_dense_checkpoint_loads_under_the_masks(kind: Kind, form: Form) -> None:
    model, inputs, dense = converted(kind, form), feed(kind), build(kind, seed=7).state_dict()
    names, masks = list(dense), pol.masks(model)
    model.load_state_dict(dense)
    assert list(dense) == names, "the caller's checkpoint was changed"
    assert same_masks(pol.masks(model), masks)
    assert agree(form, outputs(model, inputs), outputs(reference(kind, form, seed=7), inputs))


def test_a_checkpoint_of_torch_pruning_loads_and_computes_the_same(kind: Kind, form: Form) -> None:
    pruned, inputs = build(kind, seed=7), feed(kind)
    masks = random_masks(pruned, density=0.3, seed=9)
    for target in pol.find_targets(pruned, tuple(masks)).values():
        for use in target.owners:
            torch_prune.custom_from_mask(use.module, use.tensor_name, masks[target.name])
    model = converted(kind, form)
    model.load_state_dict(pruned.state_dict())
    assert same_masks(pol.masks(model), masks)
    assert agree(form, outputs(model, inputs), outputs(pruned, inputs))


def test_the_dense_state_dict_loads_into_the_plain_model(kind: Kind, form: Form) -> None:
    model, plain, inputs = converted(kind, form), build(kind, seed=5), feed(kind)
    before = plain_state(model)
    dense = pol.dense_state_dict(model)
    assert dense.keys() == plain.state_dict().keys()
    plain.load_state_dict(dense)
    assert same(form, outputs(plain, inputs), outputs(model, inputs))
    train(plain, inputs)
    assert same_state(plain_state(model), before)


def test_merging_gives_the_plain_model_back(kind: Kind, form: Form) -> None:
    plain = build(kind)
    keys, parameters = list(plain.state_dict()), dict(plain.named_parameters())
    classes = [type(module) for module in plain.modules()]
    model, inputs = train(form.attach(plain), feed(kind)), feed(kind)
    if form.sees_writes:  # as the momentum of an optimizer that was not told of pruning does
        with torch.no_grad():
            for leaf, _ in leaf_and_mask(model):
                leaf.add_(0.1)
    output = outputs(model, inputs)
    assert pol.merge(model) is model
    assert same(form, outputs(model, inputs), output)
    assert list(model.state_dict()) == keys
    assert list(dict(model.named_parameters())) == list(parameters)
    assert [type(module) for module in model.modules()] == classes
    for kind_of_hook in ("forward", "load_state_dict_pre", "load_state_dict_post"):
        assert not any(getattr(m, f"_{kind_of_hook}_hooks") for m in model.modules())
    if form.same_parameters:
        assert all(p is parameters[name] for name, p in model.named_parameters())
    train(model, inputs)
    build(kind).load_state_dict(model.state_dict())


def test_a_weight_that_is_assigned_is_copied_and_seen_through_the_mask(
    kind: Kind, form: Form
) -> None:
    model, inputs = converted(kind, form), feed(kind)
    masks, given = pol.masks(model), {}
    for name in masks:
        path, _, tensor_name = name.rpartition(".")
        given[name] = tensor_at(build(kind, seed=7), name).detach().clone()
        setattr(model.get_submodule(path), tensor_name, given[name])
        expected = given[name].masked_fill(~masks[name], 0.0) if form.enforced else given[name]
        assert agree(form, tensor_at(model, name), expected)
    kept = {name: value.clone() for name, value in given.items()}
    train(model, inputs)
    assert same_masks(given, kept)


def test_a_merged_model_can_be_masked_again(kind: Kind, form: Form) -> None:
    model, inputs = pol.merge(converted(kind, form)), feed(kind)
    form.attach(model)
    assert agree(form, outputs(model, inputs), outputs(reference(kind, form), inputs))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_a_change_of_dtype_reaches_weights_and_spares_masks(
    kind: Kind, form: Form, dtype: torch.dtype
) -> None:
    inputs = tuple(x.to(dtype) if x.is_floating_point() else x for x in feed(kind))
    model, plain = converted(kind, form).to(dtype), reference(kind, form).to(dtype)
    assert all(mask.dtype == torch.bool for mask in pol.masks(model).values())
    output = outputs(model, inputs)
    assert output.dtype == dtype
    if form.same_parameters:
        assert same(form, output, outputs(plain, inputs))
    pol.imp_prune(model, density=0.25)
    assert outputs(model, inputs).dtype == dtype


def test_an_averaged_model_is_a_mean_of_its_own(kind: Kind, form: Form) -> None:
    model, inputs = converted(kind, form), feed(kind)
    model(*inputs)
    averaged = AveragedModel(model)
    averaged.update_parameters(model)
    first = [leaf.detach().clone() for leaf, _ in leaf_and_mask(model)]
    output = outputs(model, inputs)
    assert torch.equal(outputs(averaged, inputs), output)
    train(model, inputs)
    assert torch.equal(outputs(averaged, inputs), output)
    averaged.update_parameters(model)
    trained = [leaf.detach() for leaf, _ in leaf_and_mask(model)]
    means = [leaf for leaf, _ in leaf_and_mask(averaged)]
    for a, b, mean in zip(first, trained, means, strict=True):
        torch.testing.assert_close(mean.detach(), (a + b) / 2)
    assert same_masks(pol.masks(averaged.module), pol.masks(model))


def test_pruned_entries_stay_zero_while_everything_else_trains(kind: Kind, form: Form) -> None:
    model, inputs = converted(kind, form).train(), feed(kind)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05, weight_decay=0.1)
    train_step(model, optimizer, inputs)
    pol.imp_prune(model, density=0.3, optimizer=optimizer)
    masks = pol.masks(model)
    survivors = {name: tensor_at(model, name).detach()[mask] for name, mask in masks.items()}
    for _ in range(5):
        train_step(model, optimizer, inputs)
    for name, mask in masks.items():
        weight = tensor_at(model, name).detach()
        assert not weight[~mask].any()
        assert not torch.equal(weight[mask], survivors[name])
    assert not any(leaf[~mask].any() for leaf, mask in leaf_and_mask(model))


@pytest.mark.gpu
def test_a_model_on_the_gpu_prunes_as_on_the_cpu(kind: Kind, form: Form) -> None:
    model, inputs = converted(kind, form), feed(kind)
    twin = copy.deepcopy(model).cuda()
    on_gpu = tuple(x.cuda() for x in inputs)
    with full_precision():
        close = {"rtol": 1e-3, "atol": 1e-4}
        torch.testing.assert_close(outputs(twin, on_gpu).cpu(), outputs(model, inputs), **close)
        assert all(mask.is_cuda for mask in pol.masks(twin).values())
        for each in (model, twin):
            pol.imp_prune(each, density=0.25)
        assert same_masks({k: v.cpu() for k, v in pol.masks(twin).items()}, pol.masks(model))
        output = outputs(twin, on_gpu)
        torch.testing.assert_close(outputs(pol.merge(twin), on_gpu), output)
