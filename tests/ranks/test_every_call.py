"""Every public call on a model that ranks have divided: it does what it does, or is refused.

A call that returns is listed in :data:`PROVEN`, with the test that compares it with one process;
all others raise an error that names the call, what was found and the remedy, on every rank.
"""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import from_ranks
from tests.laws.calls import public_calls
from tests.laws.test_bad_calls import TABLE
from tests.ranks.all_cases import CASES
from tests.ranks.every_call import is_refusal, outcomes
from tests.ranks.sharded import needs_fsdp_on_cpu

pytestmark = needs_fsdp_on_cpu

# Calls that are given no model, but tensors, numbers or files; other laws hold for them.
WITHOUT_A_MODEL = {
    *("Delta", "Delta.__call__", "Delta.count", "Epsilon", "Epsilon.__call__", "Epsilon.count"),
    *("Phi", "Phi.polarity", "MaskedWeight", "MaskedWeight.right_inverse", "SignInMW"),
    *("SignInMW.right_inverse", "NormInterp", "NormInterp.right_inverse", "SoftThreshold"),
    *("SoftThreshold.right_inverse", "balanced_factors", "RewindPoint", "RewindPoint.load"),
    *("SignedMask", "SignedMask.save", "SignedMask.load", "signed_constants"),
    *("init_noise_stability", "dense_to_sparse.acdc_switches", "dense_to_sparse.drop_and_grow"),
    *("dense_to_sparse.find_decay", "deploy.time_in_turns"),
}
# Calls that take a divided model, and the case, or the file, that compares them with one process.
PROVEN = {
    "PruneRounds": "rounds_as_a_schedule",
    "PruneRounds.step": "rounds_as_a_schedule",
    "PruneRounds.state_dict": "rounds_as_a_schedule",
    "PruneRounds.load_state_dict": "rounds_as_a_schedule",
    "RewindPoint.capture": "rounds_of_imp",
    "RewindPoint.restore_weights": "rewound_to_whole",
    "RewindPoint.restore_schedule": "rounds_of_lrr",
    "RewindPoint.check": "rewound_to_whole",
    "RewindPoint.check_schedule": "rounds_of_lrr",
    "StepEnforcement.project": "rounds_of_imp",
    "StepEnforcement.remove": "rounds_of_imp",
    "density": "rounds_of_imp",
    "dense_to_sparse.GradualMagnitude": "gradually",
    "dense_to_sparse.GradualMagnitude.density": "gradually",
    "dense_to_sparse.GradualMagnitude.density_at": "gradually",
    "dense_to_sparse.GradualMagnitude.load_state_dict": "gradually",
    "dense_to_sparse.GradualMagnitude.remove": "gradually",
    "dense_to_sparse.GradualMagnitude.state_dict": "gradually",
    "dense_to_sparse.GradualMagnitude.step": "gradually",
    "densities.balanced": "looked_at",
    "densities.erk": "looked_at",
    "densities.uniform": "looked_at",
    "enforce_in_step": "rounds_of_imp",
    "find_targets": "looked_at",
    "imp_prune": "rounds_of_imp",
    "load_masks": "masks_by_hand",
    "load_norm_alpha_state": "interpolated",
    "lrr_step": "rounds_of_lrr",
    "masks": "masks_by_hand",
    "norm_alpha": "interpolated",
    "norm_alpha_state": "interpolated",
    "prune": "by_scores",
    "recalibrate_batch_norm": "statistics",
    "scores.large_final_diff_sign": "by_initial_scores",
    "scores.large_final_same_sign": "by_initial_scores",
    "scores.magnitude": "by_initial_scores",
    "scores.magnitude_increase": "by_initial_scores",
    "scores.random": "by_scores",
    "set_norm_alpha": "interpolated",
    "sparsity": "looked_at",
    "RescaleSchedule": "sign_in_rounds",
    "RescaleSchedule.step": "sign_in_rounds",
    "RescaleSchedule.state_dict": "sign_in_rounds",
    "RescaleSchedule.load_state_dict": "sign_in_rounds",
    "rescale": "transformed",
    "frobenius_decay": "tests/ranks/factors.py",
    "inner_scaling": "tests/ranks/factors.py",
    "sign_flips": "flips",
    "SignTracker": "flips",
    "SignTracker.step": "flips",
    "SignTracker.mark": "flips",
    "SignTracker.flips": "flips",
    "SignTracker.since": "flips",
    "SignTracker.cumulative": "flips",
    "SignTracker.signs": "starts",
    "signed_mask": "tickets",
    "SignedMask.apply": "tickets",
    "start_from_signs": "starts",
    "start_from_magnitudes": "starts",
    "start_from_mask": "starts",
    "reinit_signs": "every_request",
    "save": "tests/ranks/test_checkpoints.py",
    "load": "tests/ranks/test_checkpoints.py",
    "dense_state_dict": "tests/ranks/test_checkpoints.py",
    "RewindPoint.save": "tests/ranks/test_checkpoints.py",
}


def one_rank(rank: int, folder: str) -> Any:
    return outcomes(TABLE, all_arguments=Path(folder, "all").exists())


@pytest.fixture(
    scope="module", params=["one argument", pytest.param("all", marks=pytest.mark.slow)]
)
def ranks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    folder = tmp_path_factory.mktemp("ranks")
    if request.param == "all arguments":
        (folder / "all").touch()
    return from_ranks(one_rank, folder, 2, timeout=timedelta(seconds=30))


@pytest.mark.parametrize("name", public_calls())
def test_a_call_works_as_proven_or_is_refused_on_every_rank(ranks: list[Any], name: str) -> None:
    for rank in ranks:
        assert name in rank, "a call before it did not end on every rank"
        for argument, found in rank[name].items():
            error = found["error"]
            if error is None:
                assert name in WITHOUT_A_MODEL | set(PROVEN), (
                    f"{name} takes a divided model: add the case that proves it to PROVEN"
                )
                continue
            assert name not in WITHOUT_A_MODEL, error
            assert is_refusal(name, error), f"{argument}: {error}"
            assert found["unchanged"], argument
            assert name not in PROVEN, error


def test_every_proof_is_a_case() -> None:
    root = Path(__file__).parents[2]
    assert all(proof in CASES or (root / proof).is_file() for proof in PROVEN.values())
    assert set(PROVEN) | WITHOUT_A_MODEL <= set(public_calls())
