"""What every form owes every kind of layer: the derivatives of an explicit mask, however taken."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, hessian, jvp, stack_module_state, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

import polarity as pol
from tests.forms import Form, compacted, random_masks
from tests.helpers import (
    build,
    feed,
    outputs,
)
from tests.laws.explicit import (
    Values,
    close,
    converted,
    explicit,
    loss_of,
    plain_or_skip,
    values_of,
)
from tests.laws.grid import EVERY_FORM, EVERY_KIND
from tests.models import KINDS, Kind

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


def turn_round(model: nn.Module) -> None:
    """Move the survivors of every compact weight to other places, as many as before."""
    masks = {name: mask.flip(-1) for name, mask in pol.masks(model).items()}
    compacted(pol.load_masks(pol.expand(model), masks))


@EVERY_FORM
@EVERY_KIND
def test_an_ensemble_runs_as_one_call(kind: Kind, form: Form) -> None:
    # Parametrized modules have classes of their own; of what holds them the class is one.
    models = [nn.Sequential(converted(kind, form, seed)) for seed in (0, 5)]
    plains, inputs = [nn.Sequential(build(kind)) for _ in models], feed(kind)
    if form.compact:  # as many survivors, elsewhere
        turn_round(models[1])
    elif form.enforced:
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
