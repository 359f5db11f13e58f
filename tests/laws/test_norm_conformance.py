"""What interpolated norms owe copies, checkpoints, dtypes, torch.func and torch.compile."""

import copy
import io

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn.utils import parametrize
from torch.optim.swa_utils import AveragedModel

import polarity as pol
from polarity.attach.norms import attached_norms, detach_norms
from tests.helpers import plain_state, same_state, train_step
from tests.models import generator, seeded
from tests.norm_nets import EVERY_NET, NETS, X, alphas, gradients, moved, pair


@EVERY_NET
def test_a_deepcopy_draws_for_itself(kind: str) -> None:
    model = pair(kind)[0].train()
    model(X)
    twin = copy.deepcopy(model)
    before, shared = plain_state(model), alphas(model)
    assert alphas(twin) == shared
    first = twin(X)
    assert alphas(twin) != shared
    assert len(set(alphas(twin))) == 1
    assert same_state(plain_state(model), before)
    assert torch.equal(model(X), first)
    assert alphas(model) == alphas(twin)
    pol.merge(twin)
    assert alphas(model)
    assert not twin._forward_pre_hooks
    assert parametrize.is_parametrized(model[1])


def test_an_averaged_model_evaluates_the_mean_of_what_was_trained() -> None:
    model = pair("layer")[0]
    averaged = AveragedModel(model)
    averaged.update_parameters(model)
    first = {name: value.clone() for name, value in attached_norms(model).items()}
    moved(model, seed=3)
    averaged.update_parameters(model)
    means = attached_norms(averaged.module)
    for name, value in attached_norms(model).items():
        torch.testing.assert_close(means[name], (first[name] + value) / 2)


@EVERY_NET
def test_a_run_resumed_from_a_checkpoint_draws_on(kind: str) -> None:
    model = pair(kind)[0].train()
    model(X)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = pol.interpolate_norms(seeded(NETS[kind](), 4), generator=generator(5)).train()
    other(X)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert same_state(plain_state(other), plain_state(model))
    for _ in range(3):
        assert torch.equal(other(X), model(X))
        assert alphas(other) == alphas(model)


@EVERY_NET
def test_a_dense_checkpoint_sets_what_is_trained_and_nothing_else(kind: str) -> None:
    model, plain, _ = pair(kind)
    start = {name: value.clone() for name, value in model.state_dict().items() if "initial" in name}
    other = moved(plain, seed=6)
    model.load_state_dict(other.state_dict())
    assert torch.equal(model.eval()(X), other.eval()(X))
    assert same_state({k: v for k, v in model.state_dict().items() if k in start}, start)
    assert same_state(dict(sorted(pol.dense_state_dict(model).items())),
                      dict(sorted(other.state_dict().items())))  # fmt: skip


@EVERY_NET
def test_merging_leaves_the_same_plain_model_with_trained_norms(kind: str) -> None:
    model = seeded(NETS[kind]())
    keys, order = list(model.state_dict()), list(dict(model.named_parameters()))
    parameters = list(model.parameters())
    classes = [type(module) for module in model.modules()]
    pol.interpolate_norms(model, generator=generator())
    moved(model).train()(X)
    trained = {name: value.clone() for name, value in attached_norms(model).items()}
    expected = model.eval()(X)
    assert pol.merge(model) is model
    assert torch.equal(model(X), expected)
    assert list(model.state_dict()) == keys
    assert list(dict(model.named_parameters())) == order
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert all(torch.equal(model.get_parameter(name), value) for name, value in trained.items())
    assert [type(module) for module in model.modules()] == classes
    hooks = [m._forward_pre_hooks | m._load_state_dict_pre_hooks for m in model.modules()]
    assert not any(hooks)
    assert detach_norms(model) == ()


def test_masks_and_interpolated_norms_live_side_by_side() -> None:
    plain = seeded(NETS["batch"]())
    keys = list(plain.state_dict())
    model = pol.interpolate_norms(pol.mask_weights(plain), generator=generator())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    train_step(model, optimizer, (X,))
    pol.imp_prune(model, density=0.5, optimizer=optimizer)
    train_step(model, optimizer, (X,))
    assert pol.density(model) == pytest.approx(0.5, abs=0.01)
    expected = model.eval()(X)
    pol.merge(model)
    assert torch.equal(model(X), expected)
    assert list(model.state_dict()) == keys


def test_a_rewind_point_holds_what_is_trained_whatever_the_mode() -> None:
    model = pair("layer")[0].train()
    model(X)
    trained = {name: value.clone() for name, value in attached_norms(model).items()}
    point = pol.RewindPoint.capture(model)
    assert all(torch.equal(point.weights[name], value) for name, value in trained.items())
    moved(model)
    point.restore_weights(model)
    assert all(torch.equal(attached_norms(model)[name], value) for name, value in trained.items())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_after_a_change_of_dtype_one_draw_still_serves_all(dtype: torch.dtype) -> None:
    model = pair("batch")[0].to(dtype).train()
    output = model(X.to(dtype))
    assert output.dtype == dtype
    assert len(set(alphas(model))) == 1
    assert alphas(model)[0] < 1
    found = {id(m.alpha) for m in model.modules() if isinstance(m, pol.NormInterp)}
    assert len(found) == 1


def test_norms_kept_in_float32_in_a_half_model_still_work() -> None:
    model = pair("layer")[0].bfloat16()
    model[-2].float()
    model[-2].register_forward_pre_hook(lambda _, args: (args[0].float(),))
    model[-2].register_forward_hook(lambda _, args, output: output.bfloat16())
    model(X.bfloat16()).sum().backward()
    assert model[-2].parametrizations.weight.original.grad.dtype == torch.float32


@pytest.mark.gpu
def test_on_the_gpu_the_values_are_those_of_the_cpu() -> None:
    model = pair("batch")[0].train()
    twin = copy.deepcopy(model).cuda()
    for _ in range(4):
        torch.testing.assert_close(twin(X.cuda()).cpu(), model(X), rtol=1e-3, atol=1e-3)
        assert alphas(twin) == alphas(model)


@EVERY_NET
def test_autocast_leaves_parameters_and_gradients_in_float32(kind: str) -> None:
    model, plain, _ = pair(kind)
    pol.set_norm_alpha(model, 1.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output, expected = model(X), plain(X)
    assert output.dtype == expected.dtype
    assert torch.equal(output, expected)
    pol.set_norm_alpha(model, 0.5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(X).float().sum().backward()
    assert all(value.dtype == torch.float32 for value in gradients(model).values())


@EVERY_NET
def test_functional_call_takes_other_parameters_for_one_call(kind: str) -> None:
    model, twin = pair(kind)[0], moved(pair(kind)[0], seed=1)
    twin.load_state_dict({k: v for k, v in model.state_dict().items() if "stream" in k}, False)
    before = {name: value.clone() for name, value in model.named_parameters()}
    output = functional_call(model, dict(twin.named_parameters()), (X,))
    assert torch.equal(output, twin(X))
    assert same_state(dict(model.named_parameters()), before)


@pytest.mark.parametrize("kind", ["layer", "group", "rms"])
def test_torch_func_sees_one_value_for_all_it_maps_over(kind: str) -> None:
    model, twin, x = pair(kind)[0].double(), pair(kind)[0].double(), X.double()
    values = {name: p.detach() for name, p in model.named_parameters()}

    def loss(values: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(model, values, (x[None],)).square().sum()

    each = vmap(grad(loss), in_dims=(None, 0))(values, x)
    twin(x).square().sum().backward()
    assert alphas(model) == alphas(twin)
    assert type(pol.norm_alpha(model).popitem()[1]) is Tensor
    for name, parameter in twin.named_parameters():
        torch.testing.assert_close(each[name].sum(0), parameter.grad, msg=name)
    first = alphas(model)
    grad(loss)(values, x[0])
    assert alphas(model) != first


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
def test_stacked_models_draw_from_their_own_streams() -> None:
    models = [pol.interpolate_norms(NETS["layer"](), generator=generator(s)) for s in range(3)]
    base = copy.deepcopy(models[0]).to("meta")
    state, buffers = stack_module_state(models)
    outputs = vmap(lambda *s: functional_call(base, s, (X,)))(state, buffers)
    for model, output in zip(models, outputs, strict=True):
        torch.testing.assert_close(output, model(X))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("kind", "backend"), [("batch", "aot_eager"), ("layer", "eager"), ("group", "eager")]
)
def test_a_compiled_model_draws_the_same_values_in_one_graph(kind: str, backend: str) -> None:
    torch._dynamo.reset()
    model, twin = pair(kind)[0].train(), pair(kind)[0].train()
    counter = CompileCounterWithBackend(backend)
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    for _ in range(4):
        for each in (compiled, twin):
            each.zero_grad()
            (each(X).square().sum() + each(2 * X).square().sum()).backward()
        assert alphas(model) == alphas(twin)
        torch.testing.assert_close(gradients(model), gradients(twin))
    assert counter.frame_count == 1
    for value in (0.2, 0.6, 0.8):
        pol.set_norm_alpha(model, value)
        pol.set_norm_alpha(twin, value)
        torch.testing.assert_close(compiled(X), twin(X))
    assert counter.frame_count == 2, "a fixed value is another graph, its amount is not"
    pol.set_norm_alpha(model, "random")
    compiled(X)
    assert counter.frame_count == 2


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_compiled_blocks_of_an_eager_model_need_one_graph_each() -> None:
    torch._dynamo.reset()
    model, twin = pair("batch")[0].train(), pair("batch")[0].train()
    counter = CompileCounterWithBackend("aot_eager")
    for index in (1, 4):
        model[index].compile(backend=counter, fullgraph=True)
    for _ in range(3):
        torch.testing.assert_close(model(X), twin(X))
        model(X).sum().backward()
        twin(X).sum().backward()
        assert alphas(model) == alphas(twin)
    with pol.set_norm_alpha(model, "hold"), pol.set_norm_alpha(twin, "hold"):
        for each in (model, twin):
            (each(X).sum() + each(2 * X).square().sum()).backward()
    # PyTorch 2.6 makes no graph of a module of torch.nn, only of what it calls outside of torch:
    # here one for each of the four tensors that are read.
    assert counter.frame_count <= (4 if torch.__version__.startswith("2.6.") else 2)
    torch.testing.assert_close(gradients(model), gradients(twin))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_inductor_draws_the_same_values() -> None:
    torch._dynamo.reset()
    model, twin = pair("batch")[0].train(), pair("batch")[0].train()
    compiled = torch.compile(model, fullgraph=True)
    for _ in range(3):
        torch.testing.assert_close(compiled(X), twin(X))
        assert alphas(model) == alphas(twin)


def test_the_fast_path_of_a_transformer_sees_trained_norms() -> None:
    build = lambda: nn.TransformerEncoder(  # noqa: E731
        nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True), 2
    )
    plain = seeded(build())
    model = pol.interpolate_norms(copy.deepcopy(plain), generator=generator())
    moved(plain), moved(model)
    x = torch.randn(2, 5, 8, generator=generator())
    pol.set_norm_alpha(model, 0.0)
    for each in (plain, model):
        each.eval()
    with torch.no_grad():
        assert torch.equal(model(x), plain(x))
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    with torch.inference_mode():
        expected = plain(x, src_key_padding_mask=padding)
        assert torch.equal(model(x, src_key_padding_mask=padding), expected)
