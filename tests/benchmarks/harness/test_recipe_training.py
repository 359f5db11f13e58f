"""What training by a recipe does."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from benchmarks.harness import recipe_training
from benchmarks.harness.recipe_training import crop_and_flip, recipe_optimizer, train
from benchmarks.harness.recipes import Recipe
from benchmarks.harness.schedules import triangular
from benchmarks.models.resnet import cifar_resnet


@pytest.fixture
def net():
    return lambda: cifar_resnet(8, width=8, channels=1, generator=torch.Generator().manual_seed(0))


RECIPE = Recipe(
    epochs=2, batch_size=64, lr=0.05, weight_decay=1e-3, schedule="triangular", label_smoothing=0.1
)


def test_training_is_the_loop_that_one_would_write(digits, net):
    records = train(first := net(), digits, RECIPE, generator=torch.Generator().manual_seed(3))

    second, generator = net(), torch.Generator().manual_seed(3)
    optimizer = torch.optim.SGD(second.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    count = len(digits.train_y)
    steps_each = -(-count // 64)
    factor, step, losses = triangular(2 * steps_each), 0, []
    for _ in range(2):
        total = 0.0
        for index in torch.randperm(count, generator=generator).split(64):
            optimizer.param_groups[0]["lr"] = 0.05 * factor(step)
            logits = second(digits.train_x[index])
            loss = cross_entropy(logits, digits.train_y[index], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(index)
            step += 1
        losses.append(total / count)
    assert [record["train_loss"] for record in records] == pytest.approx(losses, rel=1e-4)
    assert [record["epoch"] for record in records] == [1, 2]
    assert records[-1]["lr"] == pytest.approx(0.05 * factor(step - 1))
    for name, tensor in first.state_dict().items():
        torch.testing.assert_close(tensor, second.state_dict()[name], rtol=1e-3, atol=1e-4)
    second.eval()
    guesses = second(digits.test_x).argmax(dim=1)
    hits = 100 * (guesses == digits.test_y).float().mean().item()
    assert records[-1]["test_accuracy"] == pytest.approx(hits, abs=1.01)


def test_it_learns(digits, net):
    recipe = replace(RECIPE, epochs=6, batch_size=32, lr=0.1, label_smoothing=0.0)
    records = train(net(), digits, recipe, generator=torch.Generator().manual_seed(1))
    assert records[-1]["train_loss"] < 0.5 * records[0]["train_loss"]
    assert records[-1]["test_accuracy"] > 40


def test_the_seed_decides_order_and_augmentation(digits, net):
    recipe = replace(RECIPE, augment=True)
    runs = [
        train(net(), digits, recipe, generator=torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    ]
    assert runs[0] == runs[1] != runs[2]


def test_the_penalty_trains_but_is_not_recorded(digits, net):
    recipe = replace(RECIPE, epochs=1, lr=0.0)

    def start():
        return torch.Generator().manual_seed(0)

    calls = []

    def penalty(model: nn.Module):
        calls.append(model)
        return model.fc.weight.square().sum()

    plain = train(net(), digits, recipe, generator=start())
    with_penalty = train(net(), digits, recipe, generator=start(), penalty=penalty)
    assert with_penalty == plain
    assert len(calls) == -(-len(digits.train_y) // 64)

    model = net()
    train(model, digits, replace(recipe, lr=0.1), generator=start(), penalty=penalty)
    free = net()
    train(free, digits, replace(recipe, lr=0.1), generator=start())
    assert model.fc.weight.norm() < free.fc.weight.norm()


def test_callbacks_come_before_and_after_every_epoch(digits, net):
    seen = []
    train(
        net(),
        digits,
        RECIPE,
        generator=torch.Generator(),
        before_epoch=lambda epoch: seen.append(("before", epoch)),
        on_epoch=lambda record: seen.append(("after", record["epoch"])),
        test_every=0,
    )
    assert seen == [("before", 1), ("after", 1), ("before", 2), ("after", 2)]


def test_a_schedule_acts_after_every_step(digits, net):
    model, seen = net(), []
    optimizer = recipe_optimizer(RECIPE, model)
    before = optimizer.state_dict()["state"]
    assert not before

    def after_step():
        # The optimizer has stepped, and the rate is still that of the step.
        assert optimizer.state_dict()["state"]
        seen.append(optimizer.param_groups[0]["lr"])

    train(
        model,
        digits,
        RECIPE,
        generator=torch.Generator(),
        optimizer=optimizer,
        after_step=after_step,
    )
    factor, steps = triangular(2 * -(-len(digits.train_y) // 64)), len(seen)
    assert steps == 2 * -(-len(digits.train_y) // 64)
    assert seen == pytest.approx([0.05 * factor(step) for step in range(steps)])


@pytest.mark.parametrize(("every", "tested"), [(1, [1, 2, 3]), (2, [2, 3]), (0, [3])])
def test_it_is_tested_every_so_many_epochs_and_at_the_end(every, tested, digits, net):
    recipe = replace(RECIPE, epochs=3)
    records = train(net(), digits, recipe, generator=torch.Generator(), test_every=every)
    assert [record["epoch"] for record in records if "test_accuracy" in record] == tested


def test_padding_limits_the_shift_of_augmented_images(digits, net, monkeypatch):
    shifts = []

    def crop(images, generator, padding):
        shifts.append(padding)
        return crop_and_flip(images, generator, padding)

    monkeypatch.setattr(recipe_training, "crop_and_flip", crop)
    recipe = replace(RECIPE, epochs=1, augment=True)
    train(net(), digits, recipe, generator=torch.Generator(), padding=1)
    assert set(shifts) == {1}
    train(net(), digits, recipe, generator=torch.Generator())
    assert set(shifts) == {1, 4}


def test_bf16_and_channels_last_compute_nearly_the_same(digits, net):
    losses = [
        train(net(), digits, RECIPE, generator=torch.Generator().manual_seed(0), **options)[0]
        for options in ({}, {"channels_last": True}, {"bf16": True})
    ]
    exact = losses[0]["train_loss"]
    assert losses[1]["train_loss"] == pytest.approx(exact, rel=1e-3)
    assert losses[2]["train_loss"] == pytest.approx(exact, rel=0.05)
    assert losses[2]["train_loss"] != exact


@pytest.mark.parametrize(
    ("name", "kind"),
    [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)],
)
def test_optimizers(name, kind, net):
    optimizer = recipe_optimizer(replace(RECIPE, optimizer=name), net())
    assert type(optimizer) is kind
    assert optimizer.defaults["weight_decay"] == 1e-3
    assert optimizer.defaults["lr"] == 0.05


def test_crops_are_shifts_and_flips_of_each_image_on_its_own():
    images = torch.arange(1.0, 1 + 40 * 2 * 5 * 6).reshape(40, 2, 5, 6)
    out = crop_and_flip(images, torch.Generator().manual_seed(0), padding=2)
    assert out.shape == images.shape
    padded = nn.functional.pad(images, (2, 2, 2, 2))
    seen = set()
    for image, frame in zip(out, padded, strict=True):
        cuts = {
            (down, right): frame[:, down : down + 5, right : right + 6]
            for down in range(5)
            for right in range(5)
        }
        places = [(*at, False) for at, cut in cuts.items() if torch.equal(image, cut)]
        places += [(*at, True) for at, cut in cuts.items() if torch.equal(image, cut.flip(2))]
        assert len(places) == 1
        seen.add(places[0])
    assert {down for down, _, _ in seen} == {right for _, right, _ in seen} == set(range(5))
    assert {mirrored for _, _, mirrored in seen} == {False, True}
