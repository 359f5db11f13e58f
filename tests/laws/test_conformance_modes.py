"""What every form owes every kind of layer in every mode of PyTorch: graphs, dtypes, freezing."""

import io

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

import polarity as pol
from tests.forms import FORMS, Form, compacted, random_masks
from tests.helpers import (
    build,
    feed,
    leaf_and_mask,
    outputs,
    same_state,
    tensor_at,
    train,
    train_step,
    zeroed,
)
from tests.laws.explicit import close, converted, explicit, loss_of
from tests.laws.grid import EVERY_FORM, EVERY_KIND, KINDS_IN_TURN
from tests.models import KINDS, Kind

# Graphs


@pytest.mark.filterwarnings("ignore::UserWarning")
@KINDS_IN_TURN
def test_a_compiled_layer_follows_every_change_of_its_mask(kind: Kind, form: Form) -> None:
    follow_every_change(kind, form, "aot_eager")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", [FORMS[0], FORMS[5]], ids=lambda form: form.name)
def test_a_layer_compiled_by_inductor_follows_every_change_of_its_mask(form: Form) -> None:
    follow_every_change(KINDS[0], form, "inductor")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@EVERY_FORM
@EVERY_KIND
def test_every_layer_compiled_by_inductor_follows_its_mask(kind: Kind, form: Form) -> None:
    follow_every_change(kind, form, "inductor")


def follow_every_change(kind: Kind, form: Form, backend: str) -> None:
    """Change the masks of a compiled layer in every way; it computes what the layer computes."""
    torch._dynamo.reset()
    model, inputs = converted(kind, form), feed(kind)
    counter = CompileCounterWithBackend(backend)
    compiled = torch.compile(model, backend=counter, fullgraph=kind.fullgraph)

    def give_back() -> None:
        now = pol.RewindPoint.capture(model)
        pol.reinit_signs(model, "standard", init=now, trained=now)

    steps = [
        lambda: pol.imp_prune(model, density=0.4),
        lambda: pol.imp_prune(model, density=0.3),
        *([lambda: pol.expand(model)] if form.compact else []),
        lambda: flip(model),
        give_back,
        lambda: pol.imp_prune(model, density=0.1),
        *([lambda: compacted(model, multiplies=form.multiplies)] if form.compact else []),
    ]
    compilations = []
    for step in steps:
        step()
        expected = model(*inputs)
        expected.sum().backward()
        gradients = [parameter.grad.clone() for parameter in model.parameters()]
        model.zero_grad()
        output = compiled(*inputs)
        torch.testing.assert_close(output, expected)
        output.sum().backward()
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            torch.testing.assert_close(parameter.grad, gradient)
        model.zero_grad()
        compilations.append(counter.frame_count)
    if kind.fullgraph and not form.compact:
        assert compilations[:3] == [1, 1, 1], "a mask that changes in place needs no new graph"


def flip(model: nn.Module) -> None:
    """Turn every mask into its opposite, in place; what is stored follows where it must."""
    for module in model.modules():
        if isinstance(module, pol.MaskedWeight):
            module.mask.logical_not_()
            if module.in_step is not None:
                module.in_step.project()


@pytest.mark.filterwarnings("ignore")
@KINDS_IN_TURN
def test_a_weight_of_any_size_can_be_traced(kind: Kind, form: Form) -> None:
    # In evaluation attention takes another way where no gradients are recorded.
    model, inputs, others = converted(kind, form).train(), feed(kind), feed(kind, seed=8)
    traced = torch.jit.trace(model, inputs)
    file = io.BytesIO()
    torch.jit.save(traced, file)
    file.seek(0)
    loaded = torch.jit.load(file)
    with torch.no_grad():
        for given in (inputs, others):
            close(traced(*given), model(*given))
            close(loaded(*given), model(*given))
        if form.enforced and not form.compact:
            pol.load_masks(model, random_masks(model, 0.3, seed=9))
        close(traced(*inputs), model(*inputs))
    loss_of(traced(*inputs)).backward()
    seen = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    loss_of(model(*inputs)).backward()
    close(seen, [p.grad for p in model.parameters()])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", [f for f in FORMS if f.compact], ids=lambda form: form.name)
@EVERY_KIND
def test_a_trace_of_compact_weights_raises_once_they_are_pruned(kind: Kind, form: Form) -> None:
    model, inputs = converted(kind, form).train(), feed(kind)
    traced = torch.jit.trace(model, inputs)
    pol.imp_prune(model, density=0.2)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        traced(*inputs)


@pytest.mark.filterwarnings("ignore")
@KINDS_IN_TURN
def test_an_exported_layer_holds_its_mask(kind: Kind, form: Form) -> None:
    model, inputs = converted(kind, form), feed(kind)
    program = torch.export.export(model, inputs, strict=False)
    exported = program.module()
    close(exported(*inputs), model(*inputs))
    close(exported(*feed(kind, seed=8)), model(*feed(kind, seed=8)))
    with torch.no_grad():
        for name, p in exported.named_parameters():
            if "original" in name:
                p.add_(0.5)
    values = {name: p.detach() for name, p in exported.named_parameters()}
    close(exported(*inputs), explicit(kind, form, model)(values))


# Dtypes and swaps


@EVERY_FORM
@EVERY_KIND
def test_autocast_computes_in_bfloat16_and_trains_in_float32(kind: Kind, form: Form) -> None:
    model, plain, inputs = converted(kind, form), build(kind), feed(kind)
    if form.enforced:
        zeroed(plain, random_masks(plain))
    for _ in range(2):
        if not form.same_parameters:
            plain.load_state_dict(pol.dense_state_dict(model))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            try:
                expected = plain(*inputs)
            except RuntimeError as error:
                if "could not create a primitive descriptor" not in str(error):
                    raise
                pytest.skip("PyTorch itself cannot run this layer in bfloat16 on this processor")
            output = model(*inputs)
        assert output.dtype == expected.dtype
        assert torch.equal(output, expected)
        output.float().square().sum().backward()
        assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())
        with torch.no_grad():
            for parameter in (*model.parameters(), *plain.parameters()):
                parameter.mul_(0.5)


@KINDS_IN_TURN
def test_a_model_whose_parameters_are_swapped_trains_on(kind: Kind, form: Form) -> None:
    ends = []
    for swapped in (True, False):
        model, inputs = converted(kind, form), feed(kind)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        torch.__future__.set_swap_module_params_on_conversion(swapped)
        try:
            for _ in range(2):
                train_step(model, optimizer, inputs)
                optimizer.zero_grad()
                before = outputs(model, inputs)
                model.double().float()
                assert torch.equal(outputs(model, inputs), before)
                model.load_state_dict({k: v.clone() for k, v in model.state_dict().items()})
                assert torch.equal(outputs(model, inputs), before)
                pol.imp_prune(model, density=0.3)
            train_step(model, optimizer, inputs)
        finally:
            torch.__future__.set_swap_module_params_on_conversion(False)
        ends.append(pol.dense_state_dict(model))
    assert all(torch.equal(ends[0][name], value) for name, value in ends[1].items())


# Freezing


@EVERY_FORM
@EVERY_KIND
def test_a_layer_that_is_frozen_after_training_computes_on(kind: Kind, form: Form) -> None:
    model, inputs = train(converted(kind, form), feed(kind)), feed(kind)
    expected = outputs(model, inputs)
    for frozen in (True, False):
        model.requires_grad_(not frozen)
        for training in (True, False):
            output = model.train(training)(*inputs)
            assert output.requires_grad != frozen
            close(output.detach(), expected)
        given = tuple(x.clone().requires_grad_(x.is_floating_point()) for x in inputs)
        if given[0].requires_grad:
            loss_of(model(*given)).backward()
            assert given[0].grad.any()
    with torch.inference_mode():
        close(model(*inputs).clone(), expected)
    train(model, inputs)
    assert not torch.equal(outputs(model, inputs), expected)


@EVERY_FORM
@EVERY_KIND
def test_weights_may_be_frozen_and_thawed_at_every_step(kind: Kind, form: Form) -> None:
    model, inputs = converted(kind, form).train(), feed(kind)
    masks = pol.masks(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    chosen = {id(leaf) for leaf, _ in leaf_and_mask(model)}
    for step in range(6):
        frozen = step % 2 == 1
        for p in model.parameters():
            p.requires_grad_(not (frozen and id(p) in chosen))
        before = {name: tensor_at(model, name).detach().clone() for name in masks}
        if any(p.requires_grad for p in model.parameters()):
            train_step(model, optimizer, inputs)
        else:
            model(*inputs)
        weights = {name: tensor_at(model, name).detach() for name in masks}
        assert same_state(weights, before) == frozen
        for name, mask in masks.items():
            assert not form.enforced or not weights[name][~mask].any()
