"""RNN, LSTM and GRU keep a list of their weights beside the weights; both must agree."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

import polarity as pol
from tests.forms import half_masked, half_remembered, half_signed_in, random_masks
from tests.helpers import full_precision, plain_state, same_state
from tests.models import noise, seeded

SEQUENCE = noise(3, 5, 4)(torch.Generator().manual_seed(2))[0]
MODULES: dict[str, Any] = {
    "rnn": lambda: nn.RNN(4, 6, batch_first=True),
    "lstm": lambda: nn.LSTM(4, 6, batch_first=True),
    "stacked_lstm": lambda: nn.LSTM(4, 6, 2, batch_first=True, bidirectional=True),
    "projected_lstm": lambda: nn.LSTM(4, 6, batch_first=True, proj_size=3),
    "gru": lambda: nn.GRU(4, 6, 2, batch_first=True, bias=False),
}
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections")
every_module = pytest.mark.parametrize("module", MODULES)
FORMS = {"masked": half_masked, "remembered": half_remembered}


def output(module: nn.Module) -> Tensor:
    return module(SEQUENCE)[0]


def flat_weights_agree(module: Any) -> bool:
    pairs = zip(module._flat_weights, module._flat_weights_names, strict=True)
    return all(weight is getattr(module, name) for weight, name in pairs)


@every_module
def test_every_input_and_recurrent_weight_is_found_and_no_bias(module: str) -> None:
    plain = MODULES[module]()
    expected = [name for name, _ in plain.named_parameters() if name.startswith("weight")]
    assert list(pol.masks(pol.mask_weights(plain))) == expected


@every_module
@pytest.mark.parametrize("form", FORMS)
def test_every_parameter_trains_step_after_step_as_by_hand(module: str, form: str) -> None:
    plain, model = seeded(MODULES[module]()), FORMS[form](seeded(MODULES[module]()))
    masks = random_masks(plain) if form == "masked" else {}
    opts = [torch.optim.SGD(each.parameters(), lr=0.5) for each in (plain, model)]
    for _ in range(4):
        with torch.no_grad():
            for name, mask in masks.items():
                plain.get_parameter(name).masked_fill_(~mask, 0.0)
        for each, opt in zip((plain, model), opts, strict=True):
            opt.zero_grad()
            output(each).square().mean().backward()
            opt.step()
    with torch.no_grad():
        for name, mask in masks.items():
            plain.get_parameter(name).masked_fill_(~mask, 0.0)
    start = seeded(MODULES[module]())
    for name, value in pol.dense_state_dict(model).items():
        assert torch.equal(value, plain.get_parameter(name)), name
        assert not torch.equal(value, start.get_parameter(name)), name


@every_module
@pytest.mark.parametrize("form", FORMS)
def test_an_evaluation_between_two_steps_disturbs_nothing(module: str, form: str) -> None:
    model = FORMS[form](seeded(MODULES[module]()))
    with torch.no_grad():
        before = output(model)
    output(model).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.5)
        after = output(model)
    assert not torch.equal(before, after)


@every_module
def test_merging_after_a_forward_pass_leaves_no_stale_weights(module: str) -> None:
    model = half_masked(seeded(MODULES[module]()))
    before = output(model)
    pol.merge(model)
    assert flat_weights_agree(model)
    assert torch.equal(output(model), before)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert not output(model).any()


@every_module
@pytest.mark.parametrize("form", FORMS)
def test_a_copy_made_right_after_a_training_step_is_complete(module: str, form: str) -> None:
    model = FORMS[form](seeded(MODULES[module]()))
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    output(model).square().mean().backward()
    sgd.step()
    twin = copy.deepcopy(model)
    assert torch.equal(output(twin), output(model))
    before = plain_state(model)
    opt = torch.optim.SGD(twin.parameters(), lr=0.1)
    output(twin).square().mean().backward()
    opt.step()
    assert same_state(plain_state(model), before)
    assert all(
        not torch.equal(a, b) for a, b in zip(twin.parameters(), model.parameters(), strict=True)
    )


@every_module
@pytest.mark.parametrize("form", FORMS)
def test_a_forward_pass_leaves_no_graph_behind_in_the_module(module: str, form: str) -> None:
    model = FORMS[form](seeded(MODULES[module]()))
    output(model)
    assert all(weight is None or weight.grad_fn is None for weight in model._flat_weights)


@every_module
@pytest.mark.parametrize("form", [*FORMS.values(), half_signed_in])
@pytest.mark.parametrize("swapped", [False, True], ids=["moved", "swapped"])
def test_a_module_that_was_moved_holds_no_graph_and_can_be_copied(
    module: str, form: Any, swapped: bool
) -> None:
    model = seeded(MODULES[module]())
    torch.__future__.set_swap_module_params_on_conversion(swapped)
    try:
        model = form(model).double().float()
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    assert all(weight is None or weight.grad_fn is None for weight in model._flat_weights)
    twin = copy.deepcopy(model)
    output(model).square().mean().backward()
    assert all(bool(parameter.grad.any()) for parameter in model.parameters())
    twin.double()
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert torch.equal(output(twin.float()), output(model))
    pol.merge(model).double()
    assert "_apply" not in vars(model)


def test_a_module_masked_in_part_trains_the_rest_as_well() -> None:
    model = pol.mask_weights(seeded(nn.LSTM(4, 6, batch_first=True)), targets="weight_hh_l0")
    pol.imp_prune(model, 0.5)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    before = plain_state(model)
    for _ in range(2):
        sgd.zero_grad()
        output(model).square().mean().backward()
        assert all(bool(parameter.grad.any()) for parameter in model.parameters())
        sgd.step()
    assert not torch.equal(model.weight_ih_l0, before["weight_ih_l0"])


@pytest.mark.parametrize("cell", [nn.RNNCell, nn.LSTMCell, nn.GRUCell])
def test_cells_are_pruned_like_layers(cell: Any) -> None:
    model = seeded(cell(4, 6))
    pol.imp_prune(model, 0.5)
    assert list(pol.masks(model)) == ["weight_ih", "weight_hh"]
    state = model(SEQUENCE[:, 0])
    state = state[0] if isinstance(state, tuple) else state
    state.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert list(pol.merge(model).state_dict()) == list(cell(4, 6).state_dict())


def test_an_lstm_pruned_by_torch_is_taken_over_and_trains() -> None:
    model = seeded(nn.LSTM(4, 6, batch_first=True))
    torch_prune.l1_unstructured(model, "weight_ih_l0", amount=0.5)
    before, mask = output(model), model.weight_ih_l0_mask.bool()
    pol.mask_weights(model)
    assert torch.equal(output(model), before)
    assert torch.equal(pol.masks(model)["weight_ih_l0"], mask)
    sgd = torch.optim.SGD(model.parameters(), lr=0.5)
    output(model).square().mean().backward()
    sgd.step()
    assert not torch.equal(output(model), before)
    assert torch.equal(model.weight_ih_l0 != 0, mask)


@pytest.mark.gpu
@every_module
def test_a_module_moved_to_the_gpu_agrees_with_the_cpu(module: str) -> None:
    model = half_masked(seeded(MODULES[module]()))
    expected = output(model)
    model.cuda()
    with full_precision():
        for _ in range(2):
            result = model(SEQUENCE.cuda())[0]
            torch.testing.assert_close(result.cpu(), expected, rtol=1e-3, atol=1e-4)
            result.sum().backward()
        merged = pol.merge(model)(SEQUENCE.cuda())[0]
        torch.testing.assert_close(merged.cpu(), expected, rtol=1e-3, atol=1e-4)
