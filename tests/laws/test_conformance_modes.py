"""What every form owes every kind of layer in every mode of PyTorch: one rule for the mask."""

import copy
import io
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.func import functional_call, grad, hessian, jvp, stack_module_state, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

import polarity as pol
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
from tests.models import FORMS, KINDS, WIDE, Form, Kind, random_masks

EVERY_FORM = pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
EVERY_KIND = pytest.mark.parametrize("kind", [*KINDS, WIDE], ids=lambda kind: kind.name)
RECURRENT = ("lstm", "gru")

Values = dict[str, Tensor]


def converted(kind: Kind, form: Form, seed: int = 0) -> nn.Module:
    return form.attach(build(kind, seed))


def values_of(model: nn.Module) -> Values:
    return {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}


def explicit(kind: Kind, form: Form, model: nn.Module) -> Callable[..., Tensor]:
    """Return the plain layer as a function of what is stored: every product is written down."""
    plain, inputs, masks = build(kind).train(model.training), feed(kind), pol.masks(model)

    def run(values: Values, *given: Tensor) -> Tensor:
        weights: Values = {}
        for name, value in values.items():
            inside = re.sub(r"\.original\d?$", "", name.replace("parametrizations.", ""))
            weights[inside] = weights[inside] * value if inside in weights else value
        for name, mask in masks.items() if form.enforced else ():
            weights[name] = weights[name] * mask
        return functional_call(plain, weights, given or inputs)

    return run


def plain_or_skip(kind: Kind, call: Callable[[], Any]) -> Any:
    """Return what PyTorch does with the plain layer; skip where it refuses a recurrent one."""
    try:
        return call()
    except (RuntimeError, NotImplementedError) as error:
        if kind.name not in RECURRENT:
            raise
        pytest.skip(f"PyTorch cannot do this with the plain layer: {str(error)[:60]}")


def close(ours: Any, theirs: Any) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def loss_of(output: Tensor) -> Tensor:
    return output.square().sum()


# Derivatives


@EVERY_FORM
@EVERY_KIND
def test_first_and_second_derivatives_are_those_of_an_explicit_mask(kind: Kind, form: Form) -> None:
    model, inputs = converted(kind, form), feed(kind)
    run, values = explicit(kind, form, model), values_of(model)
    results = []
    for output, leaves in (
        (model(*inputs), list(model.parameters())),
        (run(values), list(values.values())),
    ):
        first = torch.autograd.grad(loss_of(output), leaves, retain_graph=True)
        results.append([*first])
    with sdpa_kernel(SDPBackend.MATH):
        for place, (call, leaves) in enumerate(
            (
                (lambda: model(*inputs), list(model.parameters())),
                (lambda: run(values), [*values.values()]),
            )
        ):
            first = torch.autograd.grad(loss_of(call()), leaves, create_graph=True)
            along = sum(
                (g * (1 + leaf.detach())).sum() for g, leaf in zip(first, leaves, strict=True)
            )
            results[place] += [*first, *torch.autograd.grad(along, leaves)]
    close(*results)


@EVERY_FORM
@EVERY_KIND
def test_batched_gradients_are_those_of_an_explicit_mask(kind: Kind, form: Form) -> None:
    model, inputs = converted(kind, form), feed(kind)
    run, values = explicit(kind, form, model), values_of(model)
    output = run(values)
    draw = torch.Generator().manual_seed(3)
    given = torch.randn(3, *output.shape, generator=draw)

    def batched(output: Tensor, leaves: list[Tensor]) -> Any:
        return torch.autograd.grad(output, leaves, given, is_grads_batched=True)

    expected = plain_or_skip(kind, lambda: batched(output, list(values.values())))
    close(batched(model(*inputs), list(model.parameters())), expected)


@EVERY_FORM
@EVERY_KIND
def test_forward_mode_derivatives_are_those_of_an_explicit_mask(kind: Kind, form: Form) -> None:
    model, inputs = converted(kind, form).train(), feed(kind)  # attention's fast way has none
    run = explicit(kind, form, model)
    values = {name: value.detach() for name, value in values_of(model).items()}
    draw = torch.Generator().manual_seed(4)
    along = {name: torch.randn(v.shape, generator=draw) for name, v in values.items()}
    with sdpa_kernel(SDPBackend.MATH):
        expected = plain_or_skip(kind, lambda: jvp(run, (values,), (along,)))
        ours = jvp(lambda values: functional_call(model, values, inputs), (values,), (along,))
    close(ours, expected)


@EVERY_FORM
@EVERY_KIND
def test_gradients_by_torch_func_are_those_of_an_explicit_mask(kind: Kind, form: Form) -> None:
    model, inputs = converted(kind, form), feed(kind)
    run = explicit(kind, form, model)
    values = {name: value.detach() for name, value in values_of(model).items()}
    expected = grad(lambda values: loss_of(run(values)))(values)
    close(grad(lambda values: loss_of(functional_call(model, values, inputs)))(values), expected)


@EVERY_FORM
def test_a_whole_hessian_is_that_of_an_explicit_mask(form: Form) -> None:
    kind = KINDS[0]
    model, inputs = converted(kind, form), feed(kind)
    run = explicit(kind, form, model)
    values = {name: value.detach() for name, value in values_of(model).items()}
    expected = hessian(lambda values: loss_of(run(values)))(values)
    close(hessian(lambda values: loss_of(functional_call(model, values, inputs)))(values), expected)


# Calls with other tensors


@EVERY_FORM
@EVERY_KIND
def test_functional_call_takes_other_parameters_for_one_call(kind: Kind, form: Form) -> None:
    model, other, inputs = converted(kind, form), converted(kind, form, seed=5), feed(kind)
    before = outputs(model, inputs)
    output = functional_call(model, dict(other.named_parameters()), inputs)
    torch.testing.assert_close(output, other(*inputs), rtol=0, atol=0)
    assert torch.equal(outputs(model, inputs), before)
    # What is stored outside the mask does not count, in any form that enforces one.
    values = {name: value.detach() + 0.5 for name, value in values_of(model).items()}
    close(functional_call(model, values, inputs), explicit(kind, form, model)(values))


@EVERY_FORM
@EVERY_KIND
def test_vmap_runs_a_layer_on_one_example_at_a_time(kind: Kind, form: Form) -> None:
    model, plain = converted(kind, form), build(kind)
    plain.load_state_dict(pol.dense_state_dict(model))
    examples = tuple(x[:, None] for x in feed(kind))
    with torch.no_grad():
        expected = plain_or_skip(kind, lambda: vmap(plain)(*examples))
        close(vmap(model)(*examples), expected)


@EVERY_FORM
@EVERY_KIND
def test_an_ensemble_runs_as_one_call(kind: Kind, form: Form) -> None:
    # Parametrized modules have classes of their own; of what holds them the class is one.
    models = [nn.Sequential(converted(kind, form, seed)) for seed in (0, 5)]
    plains, inputs = [nn.Sequential(build(kind)) for _ in models], feed(kind)
    if form.enforced:
        pol.load_masks(models[1], random_masks(models[1], seed=9))
    for plain, model in zip(plains, models, strict=True):
        plain.load_state_dict(pol.dense_state_dict(model))

    def ensemble(members: list[nn.Module]) -> Tensor:
        parameters, buffers = stack_module_state(members)
        base = copy.deepcopy(members[0])

        def one(parameters: Values, buffers: Values) -> Tensor:
            return functional_call(base, (parameters, buffers), inputs)

        return vmap(one)(parameters, buffers)

    with torch.no_grad():
        expected = plain_or_skip(kind, lambda: ensemble(plains))
        close(ensemble(models), expected)


# Graphs


@pytest.mark.filterwarnings("ignore::UserWarning")
@EVERY_FORM
@EVERY_KIND
def test_a_compiled_layer_follows_every_change_of_its_mask(kind: Kind, form: Form) -> None:
    follow_every_change(kind, form, "aot_eager")


@pytest.mark.filterwarnings("ignore")
@EVERY_FORM
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
        lambda: flip(model),
        give_back,
        lambda: pol.imp_prune(model, density=0.1),
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
    if kind.fullgraph:
        assert compilations[:3] == [1, 1, 1], "a mask that changes in place needs no new graph"


def flip(model: nn.Module) -> None:
    """Turn every mask into its opposite, in place; what is stored follows where it must."""
    for module in model.modules():
        if isinstance(module, pol.MaskedWeight):
            module.mask.logical_not_()
            if module.in_step is not None:
                module.in_step.project()


@pytest.mark.filterwarnings("ignore")
@EVERY_FORM
@EVERY_KIND
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
        pol.load_masks(model, random_masks(model, 0.3, seed=9)) if form.enforced else None
        close(traced(*inputs), model(*inputs))
    loss_of(traced(*inputs)).backward()
    seen = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    loss_of(model(*inputs)).backward()
    close(seen, [p.grad for p in model.parameters()])


@pytest.mark.filterwarnings("ignore")
@EVERY_FORM
@EVERY_KIND
def test_an_exported_layer_holds_its_mask(kind: Kind, form: Form) -> None:
    model, inputs = converted(kind, form), feed(kind)
    program = torch.export.export(model, inputs)
    exported = program.module()
    close(exported(*inputs), model(*inputs))
    close(exported(*feed(kind, seed=8)), model(*feed(kind, seed=8)))
    with torch.no_grad():
        for name, p in exported.named_parameters():
            if "original" in name:
                p.add_(0.5)
    values = {name: p.detach() for name, p in exported.named_parameters()}
    close(exported(*inputs), explicit(kind, form, model)(values))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dynamo", [False, True], ids=["TorchScript", "export"])
@pytest.mark.parametrize("kind", [KINDS[0], KINDS[2], WIDE], ids=lambda kind: kind.name)
@EVERY_FORM
def test_a_layer_goes_to_onnx_by_both_exporters(
    form: Form, kind: Kind, dynamo: bool, tmp_path: Any
) -> None:
    pytest.importorskip("onnx")
    if dynamo:
        pytest.importorskip("onnxscript")
    model, inputs = converted(kind, form), feed(kind)
    file = tmp_path / "layer.onnx"
    torch.onnx.export(model, inputs, str(file), dynamo=dynamo)
    evaluator = pytest.importorskip("onnx.reference").ReferenceEvaluator(str(file))
    feeds = dict(zip(evaluator.input_names, (x.numpy() for x in inputs), strict=True))
    close(torch.from_numpy(evaluator.run(None, feeds)[0]), outputs(model, inputs))


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


@EVERY_FORM
@EVERY_KIND
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
