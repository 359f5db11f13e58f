"""A mask that is not applied where stored values are known to be zero: same numbers, always."""

import copy
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim
from torch.nn.functional import cross_entropy, linear
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint

import polarity as pol
from polarity.parametrizations.kept_zeros import leaks
from tests.models import seeded

STEPS = 40


@pytest.fixture(autouse=True)
def _no_weight_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("masked", "keep_where", "masked_product"):
        monkeypatch.setattr(f"polarity.parametrizations.{module}.SMALL", 0)


class ByHand(nn.Module):
    """Two linear layers whose weights are multiplied by their masks in forward."""

    def __init__(self, masks: list[Tensor], product: bool) -> None:
        super().__init__()
        plain = network()
        self.masks, self.product = masks, product
        weights = [plain[0].weight.detach(), plain[2].weight.detach()]
        if product:
            pairs = [pol.parametrizations.balanced_factors(w, 1.0) for w in weights]
            leaves = [f * mask for pair, mask in zip(pairs, masks, strict=True) for f in pair]
        else:
            leaves = [w * mask for w, mask in zip(weights, masks, strict=True)]
        self.leaves = nn.ParameterList(nn.Parameter(leaf) for leaf in leaves)
        self.biases = nn.ParameterList([plain[0].bias, plain[2].bias])

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """In the order of the converted network, on which clipping by norm depends."""
        for i in (0, 1):
            yield self.biases[i]
            yield from self.leaves[2 * i : 2 * i + 2] if self.product else self.leaves[i : i + 1]

    def weight(self, i: int) -> Tensor:
        if self.product:
            return self.leaves[2 * i] * self.leaves[2 * i + 1] * self.masks[i]
        return self.leaves[i] * self.masks[i]

    def forward(self, x: Tensor) -> Tensor:
        hidden = linear(x, self.weight(0), self.biases[0]).relu()
        return linear(hidden, self.weight(1), self.biases[1])


def network() -> nn.Sequential:
    return seeded(nn.Sequential(nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 4))).train()


def drawn_masks(seed: int = 3) -> list[Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return [torch.rand(shape, generator=draw) < 0.4 for shape in ((10, 12), (4, 10))]


def install(model: nn.Module, masks: list[Tensor]) -> nn.Module:
    return pol.load_masks(model, {"0.weight": masks[0], "2.weight": masks[1]})


def ours(product: bool = False, shortcut: bool = True) -> nn.Sequential:
    model = install(network(), drawn_masks())
    if product:
        pol.sign_in(model)
    pol.mask_shortcut(model, shortcut)
    return model


def batches(seed: int = 5) -> Iterator[tuple[Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randn(6, 12, generator=draw), torch.randint(4, (6,), generator=draw)


def effective(model: nn.Module) -> list[Tensor]:
    if isinstance(model, ByHand):
        return [model.weight(0).detach(), model.weight(1).detach()]
    with torch.no_grad():
        return [model[0].weight.clone(), model[2].weight.clone()]


def stored(model: nn.Module) -> nn.Parameter:
    return model[0].parametrizations.weight.original


def is_short(model: nn.Module) -> bool:
    """Whether the next forward pass applies no mask to the first layer."""
    name = type(model[0].weight.grad_fn).__name__
    assert name in ("ViewBackward0", "_KeepWhereBackward", "MulBackward0") or (
        name in ("_MaskedProductBackward", "WhereBackward0")
    )
    return name in ("ViewBackward0", "MulBackward0")


Treatment = Callable[[nn.Module], Any]


def nothing(model: nn.Module) -> None:
    pass


def train(
    model: nn.Module,
    optimizer: optim.Optimizer,
    steps: int = STEPS,
    before_step: Treatment = nothing,
    seed: int = 5,
) -> nn.Module:
    for _, (x, y) in zip(range(steps), batches(seed), strict=False):
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        before_step(model)
        optimizer.step()
    return model


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(effective(one), effective(other), strict=True))


OPTIMIZERS: dict[str, Callable[..., optim.Optimizer]] = {
    "SGD": lambda p: optim.SGD(p),
    "SGD momentum decay": lambda p: optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.1),
    "SGD nesterov": lambda p: optim.SGD(p, 0.1, momentum=0.9, nesterov=True, foreach=True),
    "SGD dampening": lambda p: optim.SGD(p, 0.1, momentum=0.9, dampening=0.3),
    "SGD maximize": lambda p: optim.SGD(p, 0.01, momentum=0.5, maximize=True),
    "SGD fused": lambda p: optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.1, fused=True),
    "Adam": lambda p: optim.Adam(p),
    "Adam amsgrad decay": lambda p: optim.Adam(p, 0.05, amsgrad=True, weight_decay=0.1),
    "Adam foreach": lambda p: optim.Adam(p, 0.05, foreach=True),
    "Adam fused": lambda p: optim.Adam(p, 0.05, fused=True, weight_decay=0.1),
    "AdamW": lambda p: optim.AdamW(p, 0.05),
    "AdamW fused amsgrad": lambda p: optim.AdamW(p, 0.05, fused=True, amsgrad=True),
    "NAdam": lambda p: optim.NAdam(p, 0.05, weight_decay=0.1),
    "NAdam decoupled": lambda p: optim.NAdam(
        p, 0.05, weight_decay=0.1, decoupled_weight_decay=True
    ),
    "RAdam": lambda p: optim.RAdam(p, 0.05, weight_decay=0.1),
    "Adamax": lambda p: optim.Adamax(p, 0.05, weight_decay=0.1),
    "Adamax foreach": lambda p: optim.Adamax(p, 0.05, foreach=True),
    "RMSprop": lambda p: optim.RMSprop(p),
    "RMSprop centered momentum": lambda p: optim.RMSprop(
        p, 0.01, momentum=0.9, centered=True, weight_decay=0.1
    ),
    "Adagrad": lambda p: optim.Adagrad(p, 0.1, weight_decay=0.1, initial_accumulator_value=0.1),
    "Adadelta": lambda p: optim.Adadelta(p, weight_decay=0.1),
    "ASGD": lambda p: optim.ASGD(p, 0.1, weight_decay=0.1),
    "Rprop": lambda p: optim.Rprop(p),
}


@pytest.mark.parametrize("product", [False, True], ids=["mask", "sign_in"])
@pytest.mark.parametrize("build", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_forty_steps_are_those_of_a_mask_in_forward_bit_for_bit(build: Any, product: bool) -> None:
    model, reference = ours(product), ByHand(drawn_masks(), product)
    train(model, build(model.parameters()))
    train(reference, build(reference.parameters()))
    assert same(model, reference)
    assert is_short(model), "the cheap way was not taken"
    leaves = [p for n, p in model[0].named_parameters() if "original" in n]
    assert not any(leaf[~drawn_masks()[0]].any() for leaf in leaves)


@pytest.mark.parametrize("product", [False, True], ids=["mask", "sign_in"])
def test_adafactor_leaves_zeros_alone(product: bool) -> None:
    # Its rates depend on all of a tensor at once, so that only our own exact way is comparable.
    model, exact = ours(product), ours(product, shortcut=False)
    for each in (model, exact):
        train(each, optim.Adafactor(each.parameters(), 0.05))
    assert same(model, exact)
    assert is_short(model)
    assert not is_short(exact)


class Orthogonal(optim.Optimizer):
    """A step that mixes the entries of a matrix, as Muon and Shampoo do."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 0.05})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for p in self.param_groups[0]["params"]:
            direction = p.grad
            if p.dim() == 2:
                u, _, v = torch.linalg.svd(p.grad, full_matrices=False)
                direction = u @ v
            p.data.add_(direction, alpha=-0.05)  # behind autograd's back, as old code does


@pytest.mark.parametrize("product", [False, True], ids=["mask", "sign_in"])
def test_an_optimizer_that_mixes_entries_is_masked_exactly(product: bool) -> None:
    model, exact = ours(product), ours(product, shortcut=False)
    for each in (model, exact):
        train(each, Orthogonal(each.parameters()))
    assert same(model, exact)
    assert not is_short(model)


@pytest.mark.skipif(not hasattr(optim, "Muon"), reason="this PyTorch has no Muon")
def test_muon_is_masked_exactly() -> None:
    model, exact = ours(), ours(shortcut=False)
    for each in (model, exact):
        train(each, optim.Muon([p for p in each.parameters() if p.dim() == 2], lr=0.05))
    assert same(model, exact)
    assert not is_short(model)


def clip_value(model: nn.Module) -> None:
    nn.utils.clip_grad_value_(model.parameters(), 0.01)


def clip_norm(model: nn.Module) -> None:
    nn.utils.clip_grad_norm_(list(model.parameters()), 0.05)


@pytest.mark.parametrize("product", [False, True], ids=["mask", "sign_in"])
@pytest.mark.parametrize("clip", [clip_value, clip_norm])
def test_clipping_sees_masked_gradients(clip: Treatment, product: bool) -> None:
    model, reference = ours(product), ByHand(drawn_masks(), product)
    for each in (model, reference):
        train(each, optim.SGD(each.parameters(), 0.5, momentum=0.9), before_step=clip)
    for a, b in zip(effective(model), effective(reference), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)  # norms are summed in any order
    assert is_short(model)


@pytest.mark.parametrize("product", [False, True], ids=["mask", "sign_in"])
def test_mixed_precision_with_a_gradient_scaler(product: bool) -> None:
    trained = []
    for model in (ours(product), ours(product, shortcut=False)):
        optimizer = optim.SGD(model.parameters(), 0.1, momentum=0.9)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
        for _, (x, y) in zip(range(STEPS), batches(), strict=False):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = cross_entropy(model(x), y)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            clip_norm(model)
            scaler.step(optimizer)
            scaler.update()
        trained.append(model)
    assert same(*trained)
    assert is_short(trained[0])


def test_gradients_accumulate_over_several_batches() -> None:
    model, reference = ours(), ByHand(drawn_masks(), False)
    for each in (model, reference):
        optimizer = optim.Adam(each.parameters(), 0.05)
        for i, (x, y) in zip(range(STEPS), batches(), strict=False):
            cross_entropy(each(x), y).backward()
            if i % 4 == 3:
                optimizer.step()
                optimizer.zero_grad(set_to_none=i % 8 == 3)
    assert same(model, reference)
    assert is_short(model)


@pytest.mark.parametrize("told", [True, False], ids=["optimizer told", "not told"])
def test_a_mask_installed_during_training(told: bool) -> None:
    trained = []
    for shortcut in (True, False):
        model = pol.mask_weights(network())
        pol.mask_shortcut(model, shortcut)
        optimizer = optim.SGD(model.parameters(), 0.1, momentum=0.9)
        train(model, optimizer, 5)
        pol.imp_prune(model, 0.6, optimizer=optimizer if told else None)
        train(model, optimizer, 20, seed=6)
        trained.append(model)
    assert same(*trained)
    assert is_short(trained[0]) == told, "old momentum moves what is stored, and is found"


def test_old_momentum_that_a_rate_of_zero_holds_back_is_found_all_the_same() -> None:
    trained = []
    for shortcut in (True, False):
        model = pol.mask_weights(network())
        pol.mask_shortcut(model, shortcut)
        optimizer = optim.SGD(model.parameters(), 0.1, momentum=0.9)
        train(model, optimizer, 5)
        pol.imp_prune(model, 0.6)
        optimizer.param_groups[0]["lr"] = 0.0
        train(model, optimizer, 3)
        optimizer.param_groups[0]["lr"] = 0.1
        train(model, optimizer, 10)
        trained.append(model)
    assert same(*trained)


def test_state_that_is_loaded_with_something_in_pruned_entries_is_found() -> None:
    trained = []
    for shortcut in (True, False):
        model = ours(shortcut=shortcut)
        optimizer = optim.Adam(model.parameters(), 0.05)
        train(model, optimizer, 5)
        state = copy.deepcopy(optimizer.state_dict())
        for each in state["state"].values():
            each["exp_avg"].add_(0.1)
        optimizer.load_state_dict(state)
        train(model, optimizer, 10)
        trained.append(model)
    assert same(*trained)
    assert not is_short(trained[0])


@pytest.mark.parametrize("start", [0, 29])
@pytest.mark.parametrize("in_place", [True, False], ids=["written to", "replaced"])
def test_noise_on_gradients_is_found_in_the_step_that_brings_it_first(
    start: int, in_place: bool
) -> None:
    trained = []
    for shortcut in (True, False):
        model = ours(shortcut=shortcut)
        draw, count = torch.Generator().manual_seed(8), iter(range(STEPS))

        def add_noise(model: nn.Module, draw: Any = draw, count: Any = count) -> None:
            if next(count) >= start:
                for p in model.parameters():
                    noise = 0.01 * torch.randn(p.shape, generator=draw)
                    p.grad = p.grad.add_(noise) if in_place else p.grad + noise

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            train(model, optim.SGD(model.parameters(), 0.1, momentum=0.9), before_step=add_noise)
        said = [w for w in caught if "pruned entries" in str(w.message)]
        assert len(said) == (2 if shortcut else 0), "once for each of two weights"
        trained.append(model)
    assert same(*trained)
    assert not is_short(trained[0])


def test_noise_behind_autograds_back_is_found_by_looking_again_and_never_seen_in_evaluation():
    model = ours()
    optimizer = optim.SGD(model.parameters(), 0.1)
    train(model, optimizer, 5)
    stored(model).data.add_(0.1)
    assert not effective(model)[0][~drawn_masks()[0]].any()
    x, _ = next(batches())
    expected = copy.deepcopy(model).eval()(x)
    assert torch.equal(model.eval()(x), expected)
    model.train()
    with pytest.warns(UserWarning, match="pruned entries"):
        train(model, optimizer, 60)
    assert not is_short(model)


def test_data_that_is_replaced_is_noticed_at_once() -> None:
    model = ours()
    train(model, optim.SGD(model.parameters(), 0.1), 5)
    stored(model).data = torch.ones(10, 12)
    assert not is_short(model)
    assert torch.equal(model[0].weight != 0, drawn_masks()[0])


def test_a_step_by_hand_keeps_every_number() -> None:
    trained = []
    for model in (ours(), ours(shortcut=False)):
        for _, (x, y) in zip(range(STEPS), batches(), strict=False):
            model.zero_grad()
            cross_entropy(model(x), y).backward()
            with torch.no_grad():
                for p in model.parameters():
                    p.sub_(p.grad, alpha=0.1)
        trained.append(model)
    assert same(*trained)
    with torch.no_grad():
        stored(trained[0]).add_(1.0)
    assert torch.equal(trained[0][0].weight != 0, drawn_masks()[0])


def test_a_mask_changed_in_place_holds_at_the_next_forward() -> None:
    model = ours()
    train(model, optim.SGD(model.parameters(), 0.1), 5)
    mask = model[0].parametrizations.weight[0].mask
    mask[:5] = False
    assert not model[0].weight[:5].any()


def test_autograd_grad_and_second_derivatives_are_masked() -> None:
    (x, y), results = next(batches()), []
    for model in (ours(), ours(shortcut=False)):
        leaves = [model[i].parametrizations.weight.original for i in (0, 2)]
        assert is_short(model) == (not results)
        plain = torch.autograd.grad(cross_entropy(model(x).tanh(), y), leaves)
        first = torch.autograd.grad(cross_entropy(model(x).tanh(), y), leaves, create_graph=True)
        along = sum((g * (1 + leaf.detach())).sum() for g, leaf in zip(first, leaves, strict=True))
        second = torch.autograd.grad(along, leaves)
        cross_entropy(model(x), y).backward(create_graph=True)
        kept = [leaf.grad.detach().clone() for leaf in leaves]
        model.zero_grad()
        results.append([*plain, *first, *second, *kept])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    pruned = [~mask for mask in drawn_masks()] * 4
    assert not any(g[where].any() for g, where in zip(results[0], pruned, strict=True))


def test_backward_to_chosen_inputs_and_hooks_of_others_see_masked_gradients() -> None:
    (x, y), model, seen = next(batches()), ours(), []
    outside = ~drawn_masks()[0]
    cross_entropy(model(x), y).backward(inputs=[stored(model)])
    assert not stored(model).grad[outside].any()
    model(x)
    before = stored(model).register_hook(lambda g: seen.append(g.clone()))
    cross_entropy(model(x), y).backward()
    before.remove()
    stored(model).register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.clone()))
    cross_entropy(model(x), y).backward()
    assert len(seen) == 2
    assert all(g.any() and not g[outside].any() for g in seen)


def test_two_weights_whose_gradients_share_memory_do_not_mask_each_other() -> None:
    layers = [nn.Linear(4, 4, bias=False) for _ in range(2)]
    masks = [torch.eye(4) > 0, torch.eye(4) == 0]
    for layer, mask in zip(layers, masks, strict=True):
        pol.load_masks(layer, {"weight": mask})
    total = layers[0].weight.view(-1) + layers[1].weight.view(-1)
    total.backward(torch.arange(1.0, 17.0))
    given = torch.arange(1.0, 17.0).view(4, 4)
    for layer, mask in zip(layers, masks, strict=True):
        assert torch.equal(layer.parametrizations.weight.original.grad, given * mask)


def test_a_write_between_forward_and_step_is_looked_at_in_the_next_forward() -> None:
    trained = []
    for shortcut in (True, False):
        model = ours(shortcut=shortcut)

        def write(model: nn.Module) -> None:
            with torch.no_grad():
                stored(model).add_(0.01)

        optimizer = optim.SGD(model.parameters(), 0.1)
        train(model, optimizer, 10)
        train(model, optimizer, 10, before_step=write, seed=6)
        trained.append(model)
    assert same(*trained)
    assert not is_short(trained[0])


def test_a_gradient_that_somebody_else_holds_is_left_as_it_is() -> None:
    model, outside = ours(), ~drawn_masks()[0]
    given = torch.ones(10, 12)
    model[0].weight.backward(given)
    assert torch.equal(given, torch.ones(10, 12))
    assert torch.equal(stored(model).grad, (~outside).float())
    (x, y) = next(batches())
    with parametrize.cached():
        weight = model[0].weight
        weight.retain_grad()
        loss = cross_entropy(model(x), y)
        dense, masked = torch.autograd.grad(loss, [weight, stored(model)], retain_graph=True)
        weight.grad = stored(model).grad = None
        loss.backward()
    assert weight.grad[outside].any(), "the weight's own gradient is dense, the leaf's is not"
    assert torch.equal(dense, weight.grad)
    assert torch.equal(masked, torch.where(outside, 0.0, dense))
    assert torch.equal(masked, stored(model).grad)


@pytest.mark.parametrize("size", [30, 600], ids=["small", "beyond the cache"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_gradients_are_masked_bit_for_bit(dtype: torch.dtype, size: int) -> None:
    layer = nn.Linear(size, size, bias=False, dtype=dtype)
    draw = torch.Generator().manual_seed(1)
    mask = torch.rand(size, size, generator=draw) < 0.5
    pol.load_masks(layer, {"weight": mask})
    odd = torch.tensor([torch.nan, -torch.inf, -0.0, 1e-40, -3.0], dtype=dtype)
    gradient = odd[torch.randint(5, (size, size), generator=draw)]
    expected = torch.where(mask, gradient, torch.zeros((), dtype=dtype))
    for given in (gradient, gradient.t().contiguous().t()):
        layer.zero_grad()
        (layer.weight * given).sum().backward()  # a product of its own, which nobody else holds
        bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
        result = layer.parametrizations.weight.original.grad.contiguous()
        assert torch.equal(result.isnan(), expected.isnan())  # of which there are many
        number = ~expected.isnan()
        assert torch.equal(result[number].view(bits), expected[number].view(bits))


@pytest.mark.parametrize("kind", ["linear", "autocast", "conv", "channels_last", "attention"])
def test_the_gradients_of_ordinary_layers_are_masked_in_place(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    conv = kind in ("conv", "channels_last")
    layer: nn.Module = nn.Conv2d(4, 6, 3) if conv else nn.Linear(8, 6)
    x = torch.randn(2, 4, 8, 8) if conv else torch.randn(5, 8)
    if kind == "channels_last":
        layer, x = (
            layer.to(memory_format=torch.channels_last),
            x.contiguous(memory_format=torch.channels_last),
        )
    if kind == "attention":
        layer, x = nn.MultiheadAttention(8, 2), torch.randn(3, 5, 8)
    pol.mask_weights(layer)
    if kind == "channels_last":
        layer.to(memory_format=torch.channels_last)

    def refuse(*_: Any) -> None:
        raise AssertionError("a copy was made")

    monkeypatch.setattr("polarity.parametrizations.masked_gradient.keep_where", refuse)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=kind == "autocast"):
        out = layer(x, x, x)[0] if kind == "attention" else layer(x)
    out.square().sum().backward()
    assert all(p.grad.any() for n, p in layer.named_parameters() if n.endswith("original"))


@pytest.mark.parametrize("product", [False, True], ids=["mask", "sign_in"])
@pytest.mark.parametrize("way", ["penalty", "hook", "dense pass"])
def test_dense_gradients_that_join_in_mid_training_are_found_at_once(
    way: str, product: bool
) -> None:
    trained = []
    for shortcut in (True, False):
        model = ours(product, shortcut)
        optimizer = optim.SGD(model.parameters(), 0.1, momentum=0.9)
        train(model, optimizer, 20)
        leaves = [p for name, p in model.named_parameters() if "original" in name]
        if way == "hook":
            for leaf in leaves:
                leaf.register_hook(lambda g: g + 0.01)
        for _, (x, y) in zip(range(10), batches(6), strict=False):
            optimizer.zero_grad()
            loss = cross_entropy(model(x), y)
            if way == "penalty":
                loss = loss + sum((leaf - 0.3).square().sum() for leaf in leaves)
            if way == "dense pass":
                for i in (0, 2):
                    model[i].parametrizations.weight[0].enforce = False
                loss = loss + cross_entropy(model(x), y)
                for i in (0, 2):
                    model[i].parametrizations.weight[0].enforce = True
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                loss.backward()
                optimizer.step()
        trained.append(model)
    assert same(*trained)


def test_a_dense_step_after_a_forward_without_one() -> None:
    trained = []
    for shortcut in (True, False):
        model = ours(shortcut=shortcut)
        optimizer = optim.SGD(model.parameters(), 0.1)
        train(model, optimizer, 5)
        x, _ = next(batches())
        model(x)
        for i in (0, 2):
            model[i].parametrizations.weight[0].enforce = False
        train(model, optimizer, 2)
        for i in (0, 2):
            model[i].parametrizations.weight[0].enforce = True
        trained.append(model)
    assert same(*trained)
    x, _ = next(batches())
    results = [model(x) for model in trained]
    assert torch.equal(*results)


def test_noise_that_a_rate_of_zero_holds_back_is_found_all_the_same() -> None:
    trained = []
    for shortcut in (True, False):
        model = ours(shortcut=shortcut)
        optimizer = optim.SGD(model.parameters(), 0.1)
        train(model, optimizer, 10)
        draw = torch.Generator().manual_seed(8)

        def add_noise(model: nn.Module, draw: Any = draw) -> None:
            for p in model.parameters():
                p.grad.add_(torch.randn(p.shape, generator=draw), alpha=0.01)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            optimizer.param_groups[0]["lr"] = 0.0
            train(model, optimizer, 3, before_step=add_noise)
            optimizer.param_groups[0]["lr"] = 0.1
            train(model, optimizer, 6, before_step=add_noise)
        trained.append(model)
    assert same(*trained)


def test_another_mask_over_values_it_does_not_allow_is_applied_every_time() -> None:
    model, (x, _) = ours(), next(batches())
    model(x)
    masking = model[0].parametrizations.weight[0]
    masking.mask = masking.mask & (torch.arange(12) % 2 == 0)  # as young as the old one
    for _ in range(3):
        assert torch.equal(model[0].weight != 0, masking.mask)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_model_may_change_its_dtype_in_mid_training(dtype: torch.dtype) -> None:
    model = ours()
    train(model, optim.SGD(model.parameters(), 0.1), 3)
    model.to(dtype)
    x, y = next(batches())
    cross_entropy(model(x.to(dtype)), y).backward()
    assert not stored(model).grad[~drawn_masks()[0]].any()


def test_writes_that_raise_no_version_are_found_without_an_optimizer_too() -> None:
    model, (x, _) = ours(), next(batches())
    model(x)
    stored(model).data.add_(0.1)
    for _ in range(62):
        model(x)
    with pytest.warns(UserWarning, match="pruned entries"):
        result = model(x)
    assert torch.equal(result, copy.deepcopy(model).eval()(x))


@pytest.mark.parametrize("holder", ["hook", "prehook", "function", "multi", "numpy"])
def test_gradients_that_python_holds_are_left_as_they_are(holder: str) -> None:
    model, held, (x, _) = ours(), [], next(batches())
    outside = ~drawn_masks()[0]
    array = torch.ones(10, 12).numpy()

    class Keep(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, value: Tensor) -> Tensor:
            return value.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            if holder == "numpy":
                held.append(torch.from_numpy(array.copy()))
                return torch.from_numpy(array)
            kept = gradient * 2
            held.append(kept)
            return kept

    with parametrize.cached():
        weight = model[0].weight
        if holder == "hook":
            weight.register_hook(lambda g: held.append(g))
        elif holder == "prehook":
            weight.grad_fn.register_prehook(lambda gs: held.append(gs[0]))
        elif holder == "multi":
            torch.autograd.graph.register_multi_grad_hook([weight], lambda gs: held.append(gs[0]))
        used = Keep.apply(weight) if holder in ("function", "numpy") else weight
        linear(x, used).square().sum().backward()
    if holder == "numpy":
        assert (array == 1).all()
    assert held[0][outside].any()
    assert stored(model).grad.any()
    assert not stored(model).grad[outside].any()


def test_infinite_gradients_of_pruned_entries_do_not_come_through() -> None:
    model, outside = ours(), ~drawn_masks()[0]
    weight = model[0].weight
    weight.backward(torch.where(outside, torch.inf, 1.0))
    assert torch.equal(stored(model).grad, (~outside).float())


def test_a_model_that_is_gone_before_backward_still_masks() -> None:
    (x, y), model = next(batches()), ours()
    leaf, loss = stored(model), cross_entropy(model(x), y)
    del model
    loss.backward()
    assert leaf.grad.any()
    assert not leaf.grad[~drawn_masks()[0]].any()


@pytest.mark.parametrize("by_hand", [False, True], ids=["merge", "remove_parametrizations"])
def test_after_a_mask_is_taken_off_nothing_masks(by_hand: bool) -> None:
    model = ours()
    optimizer = optim.SGD(model.parameters(), 0.1)
    train(model, optimizer, 5)
    held = model[0].parametrizations.weight[0]
    if by_hand:
        for i in (0, 2):
            parametrize.remove_parametrizations(model[i], "weight", leave_parametrized=False)
    else:
        pol.merge(model, optimizer=optimizer)
    plain = network()
    plain.load_state_dict(model.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(model, optimizer, 70)
    train(plain, optim.SGD(plain.parameters(), 0.1), 70)
    assert torch.equal(model[0].weight, plain[0].weight)
    assert model[0].weight[~held.mask].all()


def test_copies_and_loaded_models_work_for_themselves() -> None:
    model = ours()
    train(model, optim.SGD(model.parameters(), 0.1), 5)
    twins = [copy.deepcopy(model), install(network(), [~mask for mask in drawn_masks()])]
    twins[1].load_state_dict(model.state_dict())
    for twin in twins:
        (x, y) = next(batches())
        cross_entropy(twin(x), y).backward()
        assert not stored(twin).grad[~drawn_masks()[0]].any()
        assert stored(model).grad is not stored(twin).grad
        train(twin, optim.SGD(twin.parameters(), 0.1), 5, seed=9)
        assert is_short(twin)
    train(model, optim.SGD(model.parameters(), 0.1), 5, seed=9)
    assert all(same(model, twin) for twin in twins)


def test_recomputed_activations_take_the_same_way_as_the_first_time() -> None:
    model, exact = ours(), ours(shortcut=False)
    for each in (model, exact):
        optimizer = optim.SGD(each.parameters(), 0.1)
        for step, (x, y) in zip(range(9), batches(), strict=False):
            optimizer.zero_grad()
            cross_entropy(checkpoint(each, x, use_reentrant=False), y).backward()
            optimizer.step()
            if step % 2:
                with torch.no_grad():
                    each[0].parametrizations.weight.original.add_(0.01)
    assert same(model, exact)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("transposed", [False, True])
def test_a_single_entry_outside_the_mask_is_seen(dtype: torch.dtype, transposed: bool) -> None:
    mask = torch.rand(400, 300, generator=torch.Generator().manual_seed(0)) < 0.5
    values = torch.where(mask, torch.full(mask.shape, torch.nan), 0.0).to(dtype)
    if transposed:
        values = values.t().contiguous().t()
    assert not leaks(values, mask, signed=True)
    places = [torch.nonzero(~mask)[at].tolist() for at in (0, 7, -1)]
    for row, column in places:
        for value in (1e-40, -3.0, torch.nan):
            values[row, column] = value
            if values[row, column] != 0:
                assert leaks(values, mask)
        values[row, column] = -0.0
        assert not leaks(values, mask)
        assert leaks(values, mask, signed=True)
        values[row, column] = 0.0


def test_small_weights_are_masked_in_every_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    model = ours()
    assert not is_short(model)
    assert type(model[0].weight.grad_fn).__name__ == "WhereBackward0"
    layer = pol.mask_weights(nn.Linear(64, 64))
    assert type(layer.weight.grad_fn).__name__ == "ViewBackward0"


def test_torch_func_and_compiled_models_apply_the_mask() -> None:
    model, (x, _) = ours(), next(batches())
    train(model, optim.SGD(model.parameters(), 0.1), 2)
    values = {name: p.detach() for name, p in model.named_parameters()}

    def loss(values: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(model, values, (x,)).square().sum()

    name = "0.parametrizations.weight.original"
    assert not torch.func.grad(loss)(values)[name][~drawn_masks()[0]].any()
    torch._dynamo.reset()
    graphs = []

    def count(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(model, backend=count, fullgraph=True)
    for _ in range(2):
        torch.testing.assert_close(compiled(x), model(x))
        compiled(x).sum().backward()
        assert not stored(model).grad[~model[0].parametrizations.weight[0].mask].any()
        stored(model).data.add_(0.0)
        model[0].parametrizations.weight[0].mask.logical_not_()
        model.zero_grad()
    assert len(graphs) == 1, "a mask that changes in place needs no new graph"


def test_the_switch_is_by_name_copied_with_the_model_and_not_in_the_state_dict() -> None:
    model = ours()
    keys = list(model.state_dict())
    assert is_short(model)
    assert pol.mask_shortcut(model, False) is model
    assert not is_short(model)
    assert not is_short(copy.deepcopy(model))
    assert list(model.state_dict()) == keys
    pol.mask_shortcut(model, True)
    assert is_short(model)
    with pytest.raises(ValueError, match="no masked weights"):
        pol.mask_shortcut(network(), False)


@pytest.mark.parametrize("mode", ["eval", "no_grad"])
def test_evaluation_always_applies_the_mask(mode: str) -> None:
    model = ours()
    train(model, optim.SGD(model.parameters(), 0.1), 3)
    stored(model).data.fill_(1.0)
    model.train(mode != "eval")
    with torch.set_grad_enabled(mode != "no_grad"):
        assert torch.equal(model[0].weight != 0, drawn_masks()[0])
