"""Pruning of models that FSDP2 has divided: equal to one process, and nothing is gathered."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers import from_ranks
from tests.ranks.all_cases import CASES
from tests.ranks.factors import penalised
from tests.ranks.memory import CALLS, largest_tensors
from tests.ranks.networks import NETWORKS, rounds
from tests.ranks.options import in_bfloat16
from tests.ranks.refused import REFUSALS
from tests.ranks.sharded import needs_fsdp_on_cpu
from tests.ranks.signs import sigmas

pytestmark = needs_fsdp_on_cpu


def one_rank(rank: int, folder: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "cases": {name: case(True) for name, case in CASES.items()},
        "refusals": {name: refused(rank) for name, refused in REFUSALS.items()},
        "bfloat16": in_bfloat16(),
        "sigmas": sigmas(True),
        "penalised": penalised(True),
        "largest": largest_tensors(),
    }
    if Path(folder, "networks").exists():
        found["networks"] = {name: rounds(name, True) for name in NETWORKS}
    return found


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.slow)])
def ranks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    folder = tmp_path_factory.mktemp("ranks")
    if request.config.getoption("--slow"):
        (folder / "networks").touch()
    return from_ranks(one_rank, folder, request.param)


@pytest.mark.parametrize("name", CASES)
def test_ranks_store_what_one_process_stores(ranks: list[Any], name: str) -> None:
    """Every rank trains on the same batches, so that the mean over ranks rounds nothing."""
    alone = CASES[name](False)
    for rank in ranks:
        found = rank["cases"][name]
        assert list(found) == list(alone)
        for key, value in alone.items():
            assert torch.equal(found[key], value), key


def test_every_rank_reports_the_same_sigma_as_one_process_within_rounding(
    ranks: list[Any],
) -> None:
    alone = sigmas(False)
    for rank in ranks:
        assert torch.equal(rank["sigmas"], ranks[0]["sigmas"])
        torch.testing.assert_close(rank["sigmas"], alone, rtol=1e-14, atol=0)


def test_the_penalty_on_products_is_that_of_one_process_within_rounding(ranks: list[Any]) -> None:
    alone = penalised(False)
    scalings = [key for key in alone if key.startswith("scaling")]
    for rank in ranks:
        assert list(rank["penalised"]) == list(alone)
        for key in alone.keys() - scalings:
            torch.testing.assert_close(rank["penalised"][key], alone[key], msg=key)
    for key in scalings:
        found = torch.cat([rank["penalised"][key] for rank in ranks])
        torch.testing.assert_close(found, alone[key], rtol=1e-4, atol=1e-5, msg=key)


@pytest.mark.parametrize("name", REFUSALS)
def test_what_is_refused_says_so_on_every_rank_and_changes_nothing(
    ranks: list[Any], name: str
) -> None:
    for text in REFUSALS[name].texts:
        assert any(text in rank["refusals"][name]["error"] for rank in ranks), name
    for rank in ranks:
        assert rank["refusals"][name]["error"]
        assert rank["refusals"][name]["unchanged"]


@pytest.mark.parametrize("call", CALLS)
def test_no_call_makes_a_tensor_of_a_whole_weight(ranks: list[Any], call: str) -> None:
    for rank in ranks:
        largest = rank["largest"]
        assert 0 < largest[call] <= largest["piece"] < largest["whole"]


def test_in_mixed_precision_zeros_stay_in_weights_and_gradients(ranks: list[Any]) -> None:
    for rank in ranks:
        assert rank["bfloat16"]["outside"] == 0
        losses = rank["bfloat16"]["losses"]
        assert losses[-1] < 0.1 < losses[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_ranks_that_share_a_batch_train_as_one_process_within_rounding(
    ranks: list[Any], name: str
) -> None:
    alone = rounds(name, False)
    for rank in ranks:
        for key, value in alone.items():
            found = rank["networks"][name][key]
            if value.dtype == torch.bool:
                assert torch.equal(found, value), key
            else:
                torch.testing.assert_close(found, value, atol=2e-5, rtol=1e-4, msg=key)
