"""Frozen weights: skipped by default, prunable when selected, and frozen afterwards."""

import pytest
import torch
from torch import Tensor, nn

import polarity as pol
from tests.models import WIDE, SmallGpt2, Tied, seeded


def frozen_net() -> nn.Sequential:
    net = seeded(nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)))
    net[0].requires_grad_(False)
    return net


class Adapted(nn.Module):
    """A frozen layer and a trained low-rank sum on top of it, under peft's names."""

    def __init__(self, base: nn.Linear, rank: int = 2) -> None:
        super().__init__()
        self.base_layer = base.requires_grad_(False)
        self.lora_A = nn.Linear(base.in_features, rank, bias=False)
        self.lora_B = nn.Linear(rank, base.out_features, bias=False)
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.base_layer(x) + self.lora_B(self.lora_A(x))


def adapted() -> nn.Sequential:
    return nn.Sequential(
        Adapted(seeded(nn.Linear(8, 9))), nn.ReLU(), Adapted(seeded(nn.Linear(9, 4)))
    )


def grads(model: nn.Module) -> dict[str, bool]:
    return {name: leaf.requires_grad for name, leaf in model.named_parameters()}


def test_a_frozen_weight_is_left_out_by_default_and_the_reason_says_how_to_take_it():
    found = pol.find_targets(frozen_net())
    assert list(found) == ["2.weight"]
    assert found.skipped == {
        "0.weight": "frozen (requires_grad=False): targets='0.weight' takes it"
    }


@pytest.mark.parametrize(
    "targets",
    ["0.weight", "0", "*", nn.Linear, lambda name, p: name == "0.weight"],
    ids=["name", "module", "glob", "type", "predicate"],
)
def test_every_form_of_targets_takes_a_frozen_weight(targets):
    assert "0.weight" in pol.find_targets(frozen_net(), targets)


def test_a_frozen_model_is_pruned_after_training_and_stays_frozen():
    net = frozen_net().requires_grad_(False)
    before = net[0].weight.clone()
    report = pol.imp_prune(net, density=0.4, targets="*")
    assert (report.survivors, report.total) == (18, 45)
    assert not any(grads(net).values())
    mask = pol.masks(net)["0.weight"]
    assert torch.equal(net[0].weight, before * mask)
    pol.merge(net)
    assert not any(grads(net).values())
    assert all(isinstance(net[at].weight, nn.Parameter) for at in (0, 2))


@pytest.mark.parametrize(
    "make", [frozen_net, lambda: nn.Sequential(WIDE.build())], ids=["small", "wide"]
)
def test_the_factors_of_a_frozen_weight_and_their_product_are_frozen(make):
    net = make()
    net[0].requires_grad_(False)
    plain = net[0].weight.clone()
    pol.sign_in(net, targets="0")
    chain = net[0].parametrizations.weight
    assert [chain.original0.requires_grad, chain.original1.requires_grad] == [False, False]
    assert not net[0].weight.requires_grad
    pol.imp_prune(net, density=0.5, targets="0")
    assert not chain.original0.requires_grad
    mask = pol.masks(net)["0.weight"]
    pol.merge(net)
    assert isinstance(net[0].weight, nn.Parameter)
    assert not net[0].weight.requires_grad
    torch.testing.assert_close(net[0].weight, plain * mask)


def test_the_frozen_base_under_adapters_is_pruned_and_the_adapters_are_trained():
    net = adapted()
    base = [f"{at}.base_layer.weight" for at in (0, 2)]
    assert set(pol.find_targets(net)) == {f"{at}.lora_{ab}.weight" for at in (0, 2) for ab in "AB"}
    report = pol.imp_prune(net, density=0.5, targets="*.base_layer")
    assert [layer.name for layer in report] == base
    stored = {name: target.weight.clone() for name, target in pol.find_targets(net, base).items()}
    sgd = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
    for _ in range(3):
        net(torch.randn(4, 8)).square().sum().backward()
        sgd.step()
    after = {name: target.weight for name, target in pol.find_targets(net, base).items()}
    assert all(torch.equal(stored[name], after[name]) for name in base)
    assert net[0].lora_B.weight.any()
    pol.merge(net)
    assert pol.find_targets(net, base)[base[0]].weight.count_nonzero() == report[base[0]].after


def test_a_masked_weight_is_pruned_after_it_was_frozen_and_after_it_was_thawed():
    net = frozen_net().requires_grad_(True)
    pol.imp_prune(net, density=0.8)
    net.requires_grad_(False)
    assert pol.imp_prune(net, density=0.6).survivors == 27
    assert not any(grads(net).values())
    net.requires_grad_(True)
    sgd = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    net(torch.ones(2, 6)).square().sum().backward()
    sgd.step()
    assert pol.imp_prune(net, density=0.4, optimizer=sgd).survivors == 18
    net(torch.ones(2, 6)).square().sum().backward()
    sgd.step()
    assert round(45 * pol.density(net)) == 18
    assert int(sum((net[at].weight != 0).sum() for at in (0, 2))) == 18


@pytest.mark.parametrize("make", [Tied, SmallGpt2])
def test_a_frozen_tied_embedding_is_taken_when_it_is_selected(make):
    model = make().requires_grad_(False)
    name = next(iter(dict(model.named_parameters())))
    report = pol.imp_prune(model, density=0.5, targets=name)
    assert [layer.name for layer in report] == [name]
    assert not any(grads(model).values())


def test_scores_masks_and_tickets_that_name_a_frozen_weight_select_it():
    net = frozen_net()
    pol.prune(net, {"0.weight": torch.rand(5, 6)}, density=0.5)
    assert list(pol.masks(net)) == ["0.weight"]
    other = pol.load_masks(frozen_net(), pol.masks(net))
    assert torch.equal(pol.masks(other)["0.weight"], pol.masks(net)["0.weight"])
    fresh = pol.signed_mask(net).apply(frozen_net())
    assert not fresh[0].parametrizations.weight.original.requires_grad


def test_frozen_norms_are_interpolated_when_they_are_selected():
    net = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4).requires_grad_(False))
    with pytest.raises(ValueError, match=r"1\.weight is frozen"):
        pol.interpolate_norms(net)
    pol.interpolate_norms(net, targets="1")
    assert not any(leaf.requires_grad for leaf in net[1].parameters())
    pol.merge(net)
