"""A weight that several layers share is one target with aliases, masked and counted once."""

import pytest
import torch
from torch import Tensor, nn

import polarity as pol


class Tied(nn.Module):
    """A language model in small: the decoder's weight is the embedding's."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.middle = nn.Linear(3, 3)
        self.decoder = nn.Linear(3, 5)
        self.decoder.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.decoder(self.middle(self.embed(tokens)))


def two_linears_of_one_weight() -> nn.Sequential:
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    return nn.Sequential(first, second)


def one_linear_used_twice() -> nn.Sequential:
    layer = nn.Linear(3, 3)
    return nn.Sequential(layer, nn.ReLU(), layer)


@pytest.mark.parametrize(
    ("make", "name", "aliases"),
    [
        (Tied, "embed.weight", ("decoder.weight",)),
        (two_linears_of_one_weight, "0.weight", ("1.weight",)),
        (one_linear_used_twice, "0.weight", ("2.weight",)),
    ],
)
def test_a_tied_weight_is_one_target_with_aliases(make, name, aliases):
    model = make()
    targets = name if make is Tied else None
    assert pol.find_targets(model, targets)[name].aliases == aliases
    masked = pol.mask_weights(model, targets=targets)
    assert pol.find_targets(masked, targets)[name].aliases == aliases
    assert not set(aliases) & set(pol.masks(model))


@pytest.mark.parametrize(
    "user", ["embed.weight", "decoder.weight", "decoder", nn.Embedding, "embed"]
)
def test_every_user_of_a_tied_weight_sees_its_mask(user):
    model = Tied()
    leaf = model.embed.weight
    pol.mask_weights(model, targets=user)
    mask = torch.tensor([True, False, True]).repeat(5, 1)
    pol.load_masks(model, {"embed.weight": mask})
    assert torch.equal(model.embed.weight != 0, mask)
    assert torch.equal(model.decoder.weight, model.embed.weight)
    model(torch.arange(5)).square().sum().backward()
    assert [each is leaf for each in model.parameters()].count(True) == 1
    assert torch.equal(leaf.grad != 0, mask)


@pytest.mark.parametrize("make", [two_linears_of_one_weight, one_linear_used_twice])
def test_a_tied_weight_is_pruned_and_counted_once(make):
    model = make()
    report = pol.imp_prune(model, density=4 / 9)
    assert (report.survivors, report.total, len(report)) == (4, 9, 1)
    assert pol.density(model) == 4 / 9
    assert torch.equal(model[0].weight, model[-1].weight)
    assert int((model[-1].weight != 0).sum()) == 4


def test_a_mask_may_be_given_under_any_of_the_names_of_a_tied_weight():
    mask = torch.eye(5)[:, :3]
    model = pol.load_masks(Tied(), {"decoder.weight": mask})
    assert torch.equal(pol.masks(model)["embed.weight"], mask.bool())


@pytest.mark.parametrize(
    ("make", "targets", "exclude", "names"),
    [
        (Tied, "decoder", "embed", ("embed.weight", "decoder.weight")),
        (Tied, "decoder.weight", nn.Embedding, ("embed.weight", "decoder.weight")),
        (Tied, "embed.weight", "decoder", ("embed.weight", "decoder.weight")),
        (two_linears_of_one_weight, None, "1", ("0.weight", "1.weight")),
        (two_linears_of_one_weight, None, "0.weight", ("0.weight", "1.weight")),
        (one_linear_used_twice, nn.Linear, "2.*", ("0.weight", "2.weight")),
    ],
)
def test_selecting_one_user_and_excluding_another_is_a_conflict_that_names_both(
    make, targets, exclude, names
):
    model = make()
    with pytest.raises(ValueError, match="tied to") as error:
        pol.mask_weights(model, targets=targets, exclude=exclude)
    assert [name for name in names if name not in str(error.value)] == []
    assert list(model.state_dict()) == list(make().state_dict())


def test_excluding_all_users_of_a_tied_weight_is_no_conflict():
    assert list(pol.find_targets(Tied(), exclude=["embed", "decoder"])) == ["middle.weight"]
