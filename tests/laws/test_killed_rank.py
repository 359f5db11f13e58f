"""A rank that ends while ranks choose together: the others raise in time, and changed nothing."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed

from tests.laws import killed_rank
from tests.laws.killed_rank import CASES, SHORT, SLOW, TIMEOUT, VICTIM

EVERY = [*CASES, *SLOW]
EXTENTS = {"two ranks": ("some", "2"), "two and three ranks": ("every", "2", "3")}


@pytest.fixture(
    scope="module",
    params=["two ranks", pytest.param("two and three ranks", marks=pytest.mark.slow)],
)
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    if not distributed.is_available() or sys.platform == "win32":
        pytest.skip("needs torch.distributed, and processes that fork")
    folder = tmp_path_factory.mktemp("killed")
    program = Path(str(killed_rank.__file__))
    arguments = [str(folder), *EXTENTS[request.param]]
    root = program.parents[2]
    command = [sys.executable, "-m", "tests.laws.killed_rank", *arguments]
    subprocess.run(command, check=True, cwd=root)
    return torch.load(folder / "found.pt", weights_only=True)


def of_case(found: Any, name: str) -> list[dict[str, Any]]:
    runs = [each for key, each in found.items() if key.startswith(f"{name}, ")]
    if not runs:
        pytest.skip("takes longer, and needs FSDP2 on CPUs: run with --slow")
    return runs


@pytest.mark.parametrize("name", EVERY)
def test_the_others_raise_in_time_and_have_changed_nothing(found: Any, name: str) -> None:
    for runs in of_case(found, name):
        others = set(runs["whole"]) - {VICTIM}
        assert runs["killed"]
        for last, ranks in runs["killed"].items():
            assert set(ranks) == others, last
            for rank in ranks.values():
                assert rank["said"], last
                assert rank["seconds"] < TIMEOUT + 5
                assert rank["unchanged"]


@pytest.mark.parametrize("name", EVERY)
def test_without_a_rank_that_ends_nothing_is_said_and_something_changes(
    found: Any, name: str
) -> None:
    for runs in of_case(found, name):
        for rank in runs["whole"].values():
            assert rank["said"] == ""
            assert not rank["unchanged"]


@pytest.mark.parametrize("name", EVERY[1:])
def test_a_run_that_begins_again_from_its_file_ends_as_one_that_was_never_cut_off(
    found: Any, name: str
) -> None:
    for runs in of_case(found, name):
        for ranks in runs["resumed"].values():
            assert len(ranks) == len(runs["whole"])
            for number, rank in ranks.items():
                whole = runs["whole"][number]
                assert (rank["began"], whole["began"]) == (1, 0)
                assert rank["density"] == whole["density"] < 0.4
                for key, value in rank["state"].items():
                    if key.endswith(".mask"):
                        assert torch.equal(value, whole["state"][key]), key
                # DDP adds three gradients in another order in a first step than in later ones.
                torch.testing.assert_close(rank["state"], whole["state"])


@pytest.mark.parametrize("name", EVERY)
def test_a_rank_that_never_answers_is_given_up_at_the_timeout(found: Any, name: str) -> None:
    if not any(runs["silent"] for runs in of_case(found, name)):
        pytest.skip("takes as long as the timeout; run with --slow")
    for runs in of_case(found, name):
        assert runs["silent"]
        for number, rank in runs["silent"].items():
            assert number != VICTIM
            assert rank["said"]
            assert rank["unchanged"]
            assert 0.5 * SHORT < rank["seconds"] < 3 * SHORT
