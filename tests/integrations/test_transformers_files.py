"""Checkpoints that are damaged, incomplete, hostile or another's: an error, and nothing changed."""

import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import polarity as pol
from tests.integrations.trained import (
    METHODS,
    STEPS,
    SparseTrainer,
    arguments,
    differences,
    examples,
    gpt2,
    made,
    read_states,
    transformers,
    write_states,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*matrix entries are in reach:UserWarning")

FILES = ("polarity.safetensors", "polarity_schedules.pt")
CALLBACK = METHODS["rewinding"][0]


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.write_text, (self.path, "executed")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    made("gpt2", folder, CALLBACK, max_steps=STEPS).train()
    return folder / f"checkpoint-{STEPS}"


def refused(folder: Path, tmp_path: Path, callback: Any = CALLBACK, **more: Any) -> str:
    """Return what resuming raises, after a look at the model that it must leave alone."""
    run = made("gpt2", tmp_path / "out", callback, seed=3, **more)
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    with pytest.raises(ValueError, match=str(folder)) as caught:
        run.train(resume_from_checkpoint=str(folder))
    assert differences(before, dict(run.model.state_dict())) == []
    assert run.optimizer is None
    return str(caught.value)


DAMAGE = {
    "empty": lambda data, _: b"",
    "cut off": lambda data, _: data[: len(data) // 2],
    "without its end": lambda data, _: data[:-30],
    "zeros": lambda data, _: bytes(len(data)),
    "text": lambda data, _: b"not tensors at all",
    "a pickle": lambda data, path: pickle.dumps(Evil(path)),
}


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_file_is_refused_by_name_and_changes_nothing(
    file: str, kind: str, checkpoint: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(checkpoint, tmp_path / "damaged")
    data = (folder / file).read_bytes()
    (folder / file).write_bytes(DAMAGE[kind](data, tmp_path / "evil"))
    assert str(folder / file) in refused(folder, tmp_path)
    assert not (tmp_path / "evil").exists()


def test_any_byte_that_is_changed_is_seen_or_says_the_same(
    checkpoint: Path, tmp_path: Path
) -> None:
    data = (checkpoint / FILES[1]).read_bytes()
    states = read_states(checkpoint / FILES[1])
    path, seen = tmp_path / FILES[1], 0
    for place in range(0, len(data), 397):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])
        try:
            assert differences(read_states(path), states) == []
        except ValueError:
            seen += 1
    assert seen > 0.5 * len(range(0, len(data), 397))


@pytest.mark.parametrize(
    ("states", "message"),
    [
        ([], "holds no states of schedules"),
        ({"each_step": []}, "holds no states of schedules"),
        ({"each_step": {}, "each_epoch": []}, "a dict for each_step=, expected a list"),
    ],
)
def test_a_file_of_something_else_is_refused(
    states: Any, message: str, checkpoint: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(checkpoint, tmp_path / "other")
    torch.save(states, folder / FILES[1])
    assert message in refused(folder, tmp_path)


def test_a_hostile_object_among_the_states_is_not_executed(
    checkpoint: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(checkpoint, tmp_path / "hostile")
    torch.save({"each_step": [], "each_epoch": [Evil(tmp_path / "evil")]}, folder / FILES[1])
    assert "is damaged" in refused(folder, tmp_path)
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("state", [3, {"schedule": "RigL"}, {"epoch": 1}])
def test_the_state_of_another_schedule_is_refused_with_the_checkpoints_name(
    state: Any, checkpoint: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(checkpoint, tmp_path / "other")
    torch.save({"each_step": [], "each_epoch": [state]}, folder / FILES[1])
    run = made("gpt2", tmp_path / "out", CALLBACK)
    with pytest.raises(ValueError, match=f"{folder} does not fit this run"):
        run.train(resume_from_checkpoint=str(folder))


def test_other_schedules_than_those_saved_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    callback = METHODS["rigl"][0]
    run = made("gpt2", tmp_path, callback)
    with pytest.raises(ValueError, match="0 schedules of each_step=, and this run builds 1"):
        run.train(resume_from_checkpoint=str(checkpoint))


def test_a_checkpoint_of_another_trainer_is_refused(tmp_path: Path) -> None:
    plain = made("gpt2", tmp_path, {}, kind=transformers.Trainer)
    plain.callback_handler.callbacks = [
        each for each in plain.callback_handler.callbacks if "Sparsity" not in type(each).__name__
    ]
    plain.model = plain.model_wrapped = pol.merge(plain.model)
    plain.train()
    folder = tmp_path / f"checkpoint-{STEPS}"
    message = refused(folder, tmp_path)
    assert f"{folder} holds no polarity.safetensors" in message
    assert "from_pretrained" in message


def test_a_checkpoint_of_the_model_alone_is_refused(tmp_path: Path) -> None:
    made("gpt2", tmp_path, CALLBACK, save_only_model=True, max_steps=STEPS).train()
    folder = tmp_path / f"checkpoint-{STEPS}"
    assert (folder / FILES[0]).exists()
    assert "save_only_model=False" in refused(folder, tmp_path)


def test_an_earlier_file_of_states_stays_until_the_new_one_is_done(tmp_path: Path) -> None:
    path = tmp_path / "states.pt"
    states = {"each_step": [{"step": 3}], "each_epoch": [{"point": {"w": torch.ones(2)}}]}
    write_states(path, states)
    with pytest.raises(Exception, match="pickle"):
        write_states(path, {"each_step": [lambda: None], "each_epoch": []})
    assert differences(read_states(path), states) == []
    assert list(tmp_path.iterdir()) == [path]


def test_states_that_are_missing_or_unreadable_are_the_systems_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_states(tmp_path / "none.pt")


def test_a_plain_model_resumes_what_the_checkpoint_holds(checkpoint: Path, tmp_path: Path) -> None:
    run = SparseTrainer(
        gpt2(), arguments(tmp_path, max_steps=STEPS), train_dataset=examples("gpt2")
    )
    run.train(resume_from_checkpoint=str(checkpoint))
    assert pol.density(run.model) == 0.5
