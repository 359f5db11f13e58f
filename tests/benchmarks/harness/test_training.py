"""The loop: deterministic, complete, and the same arithmetic as the plain one."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from benchmarks.harness.training import evaluate, make_optimizer, train_epochs
from benchmarks.models import build_model


def trained(data, optimizer="adam", epochs=2, seed=0):
    model = build_model("fc", data.shape, data.classes)
    generator = torch.Generator().manual_seed(seed)
    steps = make_optimizer(optimizer, model, 1e-3)
    loss = train_epochs(model, data, steps, epochs, 64, generator)
    return model, loss


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_same_seed_same_weights(digits, optimizer):
    (first, first_loss), (again, again_loss) = (trained(digits, optimizer) for _ in range(2))
    assert first_loss == again_loss
    for a, b in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_other_seed_other_order(digits):
    assert trained(digits, seed=0)[1] != trained(digits, seed=1)[1]


def test_matches_a_plain_loop_that_uses_the_last_small_batch(digits):
    model, loss = trained(digits, "sgd", epochs=1)
    plain = build_model("fc", digits.shape, digits.classes)
    optimizer = torch.optim.SGD(plain.parameters(), lr=1e-3, momentum=0.9)
    order = torch.randperm(len(digits.train_y), generator=torch.Generator().manual_seed(0))
    assert len(order) % 64
    total = 0.0
    for start in range(0, len(order), 64):
        batch = order[start : start + 64]
        optimizer.zero_grad()
        step_loss = cross_entropy(plain(digits.train_x[batch]), digits.train_y[batch])
        step_loss.backward()
        optimizer.step()
        total += step_loss.item() * len(batch)
    assert loss == pytest.approx(total / len(order), rel=1e-5)
    for a, b in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_training_lowers_the_loss(digits):
    assert trained(digits, epochs=5)[1] < trained(digits, epochs=1)[1]


def test_epochs_are_announced(digits):
    model = build_model("fc", digits.shape, digits.classes)
    seen = []
    steps = make_optimizer("sgd", model, 0.1)
    train_epochs(model, digits, steps, 3, 100, torch.Generator(), on_epoch=seen.append)
    assert seen == [1, 2, 3]


def test_evaluation_is_independent_of_its_chunks_and_keeps_the_mode(digits):
    model, _ = trained(digits)
    whole = evaluate(model, digits.test_x, digits.test_y)
    parts = evaluate(model, digits.test_x, digits.test_y, chunk=7)
    assert whole == pytest.approx(parts, rel=1e-6)
    assert model.training
    right = (model(digits.test_x).argmax(dim=1) == digits.test_y).float().mean()
    assert whole[1] == pytest.approx(100 * float(right))


def test_no_images_give_nan(digits):
    model, _ = trained(digits, epochs=0)
    nothing = evaluate(model, digits.test_x[:0], digits.test_y[:0])
    assert all(map(math.isnan, nothing))


def test_unknown_optimizer_is_refused(digits):
    with pytest.raises(ValueError, match="lion"):
        trained(digits, "lion")
