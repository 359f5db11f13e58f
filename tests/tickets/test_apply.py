"""What a fresh network makes of a signed mask, in this process and in another."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune as torch_prune

import polarity as pol
from tests.forms import half_masked, half_remembered
from tests.helpers import build, feed, leaf_and_mask, plain_state, same_state, tensor_at, train
from tests.models import KINDS, Kind, Tied, seeded
from tests.tickets.test_signed_mask import everything, small, ticket_of

every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


@every_kind
@pytest.mark.parametrize("form", ["plain", "unpruned", "remembered", "sign_in"])
def test_a_fresh_network_keeps_its_magnitudes_and_takes_the_rest(kind: Kind, form: str) -> None:
    ticket = ticket_of(build(kind))
    fresh = build(kind, 5)
    start = plain_state(fresh)
    held = [*fresh.named_parameters(), *fresh.named_buffers()]  # tied ones once
    untouched = [name for name, _ in held if name not in ticket.names]
    forms: dict[str, Callable[[nn.Module], nn.Module]] = {
        "plain": lambda model: model,
        "unpruned": pol.mask_weights,
        "remembered": half_remembered,
        "sign_in": pol.sign_in,
    }
    forms[form](fresh)
    leaves = {id(parameter) for parameter in fresh.parameters()}
    assert ticket.apply(fresh) is fresh
    assert {id(parameter) for parameter in fresh.parameters()} == leaves
    for name, signs in ticket.signs.items():
        weight = tensor_at(fresh, name).detach().numpy()
        np.testing.assert_array_equal(np.sign(weight), signs.numpy())
        rounding = 3e-7 if form == "sign_in" else 0  # a product of two factors
        np.testing.assert_allclose(np.abs(weight), start[name].abs() * ticket.masks[name], rounding)
    assert same_state(pol.masks(fresh), ticket.masks)
    for name in untouched:
        assert torch.equal(tensor_at(fresh, name), start[name]), name
    for leaf, mask in leaf_and_mask(fresh):
        assert not bool(leaf[~mask].any())
    train(fresh.train(), feed(kind), lr=1e-3)
    assert same_state(pol.masks(fresh), ticket.masks)
    for name, mask in ticket.masks.items():
        assert not bool(tensor_at(fresh, name)[~mask].any())


def test_pruned_entries_are_a_clean_zero_and_so_are_survivors_without_a_magnitude() -> None:
    ticket = ticket_of(small())
    fresh = small(1)
    fresh[3].weight.data.fill_(-0.0)
    with pytest.warns(UserWarning, match=r"[0-9]+ entries are 0 .* first of them in '3\.weight'"):
        ticket.apply(fresh)
    assert same_state(pol.masks(fresh), ticket.masks)
    for weight in (fresh[0].weight, fresh[3].weight):
        assert not bool(torch.signbit(weight[weight == 0]).any())


def test_a_network_that_was_pruned_already_is_reported() -> None:
    fresh = small(1)
    pol.imp_prune(fresh, density=0.1)
    ticket = ticket_of(small())
    lost = sum(int((m & (tensor_at(fresh, n) == 0)).sum()) for n, m in ticket.masks.items())
    with pytest.warns(UserWarning, match=f"^{lost} entries"):
        ticket.apply(fresh)
    assert same_state(pol.masks(fresh), ticket.masks)


def test_it_says_what_it_touched(capsys: pytest.CaptureFixture[str]) -> None:
    model = half_masked(small())
    ticket = pol.signed_mask(model, include="4")
    ticket.apply(small(1))
    assert capsys.readouterr().out == ""
    ticket.apply(small(1), verbose=True)
    lines = capsys.readouterr().out.splitlines()
    alive = int(ticket.masks["3.weight"].sum())
    positive = int((ticket.signs["3.weight"] == 1).sum())
    row = next(line for line in lines if line.startswith("3.weight")).split()
    counts = [str(each) for each in (alive, positive, alive - positive, 0, 0)]
    assert row == ["3.weight", "5x16", f"{alive / 80:.4f}", *counts]
    assert any(line.startswith("4.bias") and "no mask" in line for line in lines)
    assert "own sign" in str(ticket)
    assert repr(ticket).endswith("the signs of 1 more)")


def another(index: int, layer: nn.Module) -> nn.Sequential:
    model = small(1)
    model[index] = layer
    return model


DIFFERENT = {
    "a layer less": (lambda: small(1)[:4], r"^ticket holds '4\.weight', which is not in"),
    "a layer more": (
        lambda: small(1).append(nn.Linear(3, 2)),
        r"^ticket is missing '5\.weight', which is in",
    ),
    "other names": (lambda: nn.Sequential(small(1)), r"^ticket is missing '0\.0\.weight'"),
    "a wider layer": (lambda: another(4, nn.Linear(5, 4)), r"'4\.weight' in shape \(3, 5\).*4, 5"),
    "a wider norm": (lambda: another(1, nn.BatchNorm2d(5)), r"'1\.weight' in shape \(4,\).*\(5,\)"),
    "no bias": (lambda: another(3, nn.Linear(16, 5, bias=False)), r"holds '3\.bias'"),
    "one more bias": (lambda: another(2, nn.Linear(4, 1)), r"^ticket is missing '2\.weight'"),
    "several": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 5), nn.Linear(1, 1)),
        r"^ticket holds '3\.weight'",
    ),
    "lazy": (lambda: another(3, nn.LazyLinear(5)), r"3\.weight is lazy"),
    "normed": (
        lambda: another(3, nn.utils.parametrizations.weight_norm(nn.Linear(16, 5))),
        r"3\.weight is already parametrized",
    ),
    "NaN": (
        lambda: another(
            3, seeded(nn.Linear(16, 5)).apply(lambda m: m.weight.data.fill_(torch.nan))
        ),
        r"^weight '3\.weight' holds [0-9]+ NaN",
    ),
}


@pytest.mark.parametrize(("make", "words"), DIFFERENT.values(), ids=DIFFERENT.keys())
def test_a_network_that_differs_is_refused_by_its_first_difference_and_left_alone(
    make: Callable[[], nn.Module], words: str
) -> None:
    ticket, model = ticket_of(small()), make()
    before = None if "lazy" in words else everything(model)
    with pytest.raises(ValueError, match=words):
        ticket.apply(model)
    assert before is None or everything(model) == before


def test_what_the_ticket_does_not_sign_may_differ_when_that_is_said() -> None:
    model = pol.mask_weights(small(), exclude="4")
    ticket = pol.signed_mask(model)
    other = another(4, nn.Linear(5, 9)).append(nn.Linear(9, 2))
    with pytest.raises(ValueError, match=r"missing '5\.weight'"):
        ticket.apply(other)
    ticket.apply(other, strict=False)
    assert pol.signed_mask(other) == ticket
    with pytest.raises(ValueError, match=r"3\.weight"):
        ticket.apply(another(3, nn.Linear(16, 6)), strict=False)


def test_a_tied_weight_is_signed_once_and_an_untied_one_is_another_network() -> None:
    ticket = ticket_of(seeded(Tied()))
    assert ticket.names == ("encoder.weight", "middle.weight")
    fresh = ticket.apply(seeded(Tied(), 1))
    assert torch.equal(fresh.encoder.weight, fresh.decoder.weight)
    assert pol.signed_mask(fresh) == ticket
    untied = Tied()
    untied.decoder.weight = nn.Parameter(untied.decoder.weight.detach().clone())
    with pytest.raises(ValueError, match=r"missing 'decoder\.weight', which is in the model"):
        ticket.apply(untied)
    theirs = pol.signed_mask(pol.mask_weights(seeded(untied)), include="encoder")
    with pytest.raises(ValueError, match=r"'decoder\.weight', which the model ties to 'encoder"):
        theirs.apply(Tied())


def test_a_network_pruned_by_torch_takes_the_ticket_and_its_mask() -> None:
    fresh = small(1)
    torch_prune.random_unstructured(fresh[3], "weight", 0.2)
    kept = fresh[3].weight != 0
    ticket = ticket_of(small())
    with pytest.warns(UserWarning, match=r"3\.weight"):
        ticket.apply(fresh)
    assert torch.equal(fresh[3].weight != 0, kept & ticket.masks["3.weight"])
    assert torch.equal(pol.masks(fresh)["3.weight"], ticket.masks["3.weight"])


TAKER = """
import torch
import polarity as pol

torch.manual_seed(7)
layers = torch.nn.Conv2d(2, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten()
model = torch.nn.Sequential(*layers, torch.nn.Linear(16, 5), torch.nn.Linear(5, 3))
torch.save(model.state_dict(), "fresh.pt")
pol.SignedMask.load("ticket.safetensors").apply(model)
torch.save(pol.dense_state_dict(model), "start.pt")
optimizer = torch.optim.AdamW(model.parameters(), lr=0.02, weight_decay=0.1)
for _ in range(20):
    optimizer.zero_grad()
    loss = torch.nn.functional.cross_entropy(model(torch.randn(8, 2, 4, 4)), torch.arange(8) % 3)
    loss.backward()
    optimizer.step()
torch.save(pol.dense_state_dict(model), "end.pt")
"""


def test_a_ticket_of_one_process_trains_in_another(tmp_path: Path) -> None:
    model = small()
    pol.imp_prune(pol.mask_weights(model, exclude="4"), density=0.3)
    train(model, (torch.randn(8, 2, 4, 4, generator=torch.Generator().manual_seed(0)),))
    pol.signed_mask(model, include="4").save(tmp_path / "ticket.safetensors")
    found = pol.dense_state_dict(model)
    command = [sys.executable, "-c", TAKER]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    fresh, start, end = (
        torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("fresh", "start", "end")
    )
    survivors = 0
    for name in ("0.weight", "3.weight"):
        signs = np.sign(found[name].numpy())
        survivors += np.count_nonzero(signs)
        np.testing.assert_array_equal(np.sign(start[name].numpy()), signs)
        np.testing.assert_array_equal(start[name].numpy(), fresh[name].abs().numpy() * signs)
        np.testing.assert_array_equal(end[name].numpy() != 0, signs != 0)
        assert bool((end[name] != start[name])[start[name] != 0].all())
    assert survivors == round(0.3 * (72 + 80))
    for name in ("4.weight", "4.bias"):
        assert torch.equal(start[name].sign(), found[name].sign())
        assert torch.equal(start[name].abs(), fresh[name].abs())


@pytest.mark.gpu
def test_a_ticket_goes_from_the_gpu_to_the_cpu_and_back(tmp_path: Path) -> None:
    model = half_masked(small()).cuda()
    ticket = pol.signed_mask(model, include="4.bias")
    assert ticket == pol.signed_mask(model.cpu(), include="4.bias")
    ticket.save(tmp_path / "a.safetensors")
    fresh = pol.SignedMask.load(tmp_path / "a.safetensors").apply(small(1).cuda())
    assert fresh[3].weight.is_cuda
    assert pol.signed_mask(fresh, include="4.bias") == ticket
    assert torch.equal(ticket.apply(small(1))[3].weight, fresh[3].weight.cpu())
