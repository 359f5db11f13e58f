"""Rounds of pruning, dense, with masks and with survivors alone, side by side."""

from pathlib import Path

import pytest

import polarity as pol
from benchmarks.survivors import run
from benchmarks.survivors.config import RunConfig
from benchmarks.survivors.run import FORMS, train_rounds

TINY = RunConfig(
    dataset="digits", seed=0, rounds=2, prune_base=0.3, epochs=1, lr=1.2e-3, batch_size=60,
    train_size=300, test_size=100,
)  # fmt: skip


@pytest.fixture
def _everything_compact(monkeypatch):
    """Compact every layer, however small, without timing it."""

    def compact(model, example_inputs):
        return real(
            model,
            example_inputs,
            targets=tuple(pol.masks(model)),
            break_even=1.0,
            measure=lambda masked, sparse: (2.0, 1.0),
        )

    real = pol.compact
    monkeypatch.setattr(run.pol, "compact", compact)


pytestmark = pytest.mark.usefixtures("_everything_compact")


def found(records):
    """What a run finds, without how long it took."""
    names = ("test_accuracy", "density")
    return [[record[form][name] for form in FORMS for name in names] for record in records]


def test_survivors_find_what_masks_find(digits):
    records = train_rounds(TINY, digits)
    assert [record["round"] for record in records] == [0, 1, 2]
    for record in records:
        assert all(layer["compact"] for layer in record["survivors"]["layers"])
        assert record["survivors"]["test_accuracy"] == record["masks"]["test_accuracy"]
        assert record["survivors"]["density"] == record["masks"]["density"]
        assert record["same_masks"] > 0.999
        assert all(record[form]["seconds"] > 0 for form in FORMS)
    assert records[-1]["survivors"]["density"] == pytest.approx(0.09, abs=1e-3)
    assert records[-1]["dense"]["density"] == 1


def test_all_begin_with_the_same_weights_and_see_the_same_batches(digits):
    (first, *_) = train_rounds(TINY, digits)
    assert len({first[form]["train_loss"] for form in ("dense", "masks")}) == 1


def test_an_interrupted_run_goes_on_at_its_last_round(digits, tmp_path):
    checkpoint = tmp_path / "run.safetensors"

    class Interrupted(Exception):
        pass

    def interrupt(record):
        if record["round"] == 1:
            raise Interrupted

    whole = train_rounds(TINY, digits)
    with pytest.raises(Interrupted):
        train_rounds(TINY, digits, checkpoint=checkpoint, on_round=interrupt)
    performed = []
    rest = train_rounds(
        TINY, digits, checkpoint=checkpoint, on_round=lambda record: performed.append(record)
    )
    assert [record["round"] for record in performed] == [2]
    assert found(rest) == found(whole)


def test_a_checkpoint_of_other_settings_is_refused(digits, tmp_path):
    checkpoint: Path = tmp_path / "run.safetensors"
    train_rounds(TINY, digits, checkpoint=checkpoint)
    other = RunConfig.from_json({**vars(TINY), "lr": 1e-3})
    with pytest.raises(ValueError, match="other settings"):
        train_rounds(other, digits, checkpoint=checkpoint)


def test_every_seed_has_a_name_and_streams_of_its_own():
    other = RunConfig.from_json({**vars(TINY), "seed": 1})
    assert TINY.run_id != other.run_id
    streams = {each.stream("batches", at) for each in (TINY, other) for at in range(3)}
    assert len(streams) == 6
