"""Random lives of many models with many optimizers, compared with plain tensors at every step."""

import random
import re
from collections import Counter
from pathlib import Path

import pytest
import torch

import polarity as pol
from tests.machine import life as lives
from tests.machine.kinds import MACHINES, SETTINGS
from tests.machine.life import KINDS, OPERATIONS, OPTIMIZERS, drawn, live, play
from tests.machine.run import Run, Step

KIND_NAMES = [kind.name for kind in MACHINES]
SETTING_NAMES = [setting.name for setting in SETTINGS]

# Public names that the machine does not call, and why.
LEFT_OUT: dict[str, str] = {
    "MaskedWeight": "the class that mask_weights attaches",
    "NormInterp": "the class that interpolate_norms attaches",
    "SignInMW": "the class that sign_in attaches",
    "dense_to_sparse": "tests/dense_to_sparse compares whole runs with transcribed references",
    "SoftThreshold": "the class that threshold_weights attaches",
    "StartReport": "what the starts return",
    "CompactReport": "what compact returns",
    "Summary": "what summary returns",
    "summary": "only looks; tests/laws/test_public_calls.py shows that it changes nothing",
    "SurvivorWeight": "what a layer reads of a compact weight",
    **dict.fromkeys(
        ("start_from_signs", "start_from_magnitudes", "start_from_mask"),
        "begins a run; tests/tickets/test_starts.py compares it with a twin of plain tensors",
    ),
}


def _pairs(each: int) -> list[tuple[str, str]]:
    """Return some optimizers for each model, so that every optimizer has its turn."""
    total = len(SETTING_NAMES)
    return [(kind, SETTING_NAMES[(place * each + i) % total])
            for place, kind in enumerate(KIND_NAMES) for i in range(each)]  # fmt: skip


@pytest.mark.parametrize(("kind", "setting"), _pairs(3))
def test_a_model_and_plain_tensors_agree_after_every_operation(kind, setting):
    live(kind, setting, seed=len(kind) + 10 * len(setting), count=40)


def test_a_weight_above_every_gate_agrees_too():
    live("wide", "adam", seed=3, count=25)


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTING_NAMES)
@pytest.mark.parametrize("kind", KIND_NAMES)
def test_a_long_life_agrees(kind, setting):
    live(kind, setting, seed=hash_of(kind, setting), count=120)


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTING_NAMES)
def test_a_long_life_of_a_weight_above_every_gate_agrees(setting):
    live("wide", setting, seed=hash_of("wide", setting), count=40)


def hash_of(kind: str, setting: str) -> int:
    """Return a number that is the same in every process."""
    return sum(ord(letter) * 31**place for place, letter in enumerate(kind + setting)) % 2**31


def test_there_are_at_least_fourteen_models_and_twenty_optimizers():
    assert len(KIND_NAMES) >= 14
    assert len(SETTING_NAMES) >= 20


def test_every_operation_is_performed():
    counts: Counter[str] = Counter()
    for kind in ("normed", "stack"):
        assert play(KINDS[kind], OPTIMIZERS["adam"], 0, drawn(7, 300), counts) is None
    assert sorted(OPERATIONS.keys() - counts.keys()) == []


def test_every_public_name_is_called_or_left_out_with_a_reason():
    source = "".join(path.read_text() for path in Path(lives.__file__).parent.glob("*.py"))
    called = set(re.findall(r"\bpol\.(\w+)", source))
    assert not set(pol.__all__) - called - LEFT_OUT.keys()
    assert not set(LEFT_OUT) - set(pol.__all__), "no longer public"


# What the machine must notice: each fault is planted in a call, and found.


def planted(run: Run, act) -> None:
    run.perform(Step("planted", act))


def masked_run() -> Run:
    run = Run(KINDS["stack"], OPTIMIZERS["momentum"], 0)
    for name, seed in [("mask_weights", 1), ("train", 2), ("imp_prune", 3), ("train", 4)]:
        step = OPERATIONS[name](run, random.Random(seed))
        run.perform(step)
    return run


@pytest.mark.parametrize(
    "fault",
    [
        lambda run: run.model[0].parametrizations.weight.original.data.view(-1)[0].add_(1e-6),
        lambda run: run.model[0].parametrizations.weight[0].mask.view(-1)[0].fill_(0.5),
        lambda run: run.model.eval(),
        lambda run: run.model[2].bias.requires_grad_(False),
        lambda run: setattr(run.model[2].bias, "grad", None),
        lambda run: run.model.register_buffer("extra", run.model[2].bias.detach().clone()),
        lambda run: pol.merge(run.model),
        lambda run: next(iter(run.optimizers[0].state.values()))["momentum_buffer"].add_(1e-6),
        lambda run: run.optimizers[0].param_groups[0].update(lr=0.051),
        lambda run: torch.rand(1),
    ],
)  # fmt: skip
def test_the_comparison_finds_a_planted_fault(fault):
    run = masked_run()
    with pytest.raises((AssertionError, KeyError)):
        planted(run, lambda: fault(run))


def test_a_refused_call_that_changes_anything_is_found():
    run = masked_run()

    def refuse_after_a_write() -> None:
        run.model[2].bias.data.add_(1)
        raise ValueError("too late")

    with pytest.raises(AssertionError, match="values"):
        run.perform(Step("planted", refuse_after_a_write, refused=ValueError))
