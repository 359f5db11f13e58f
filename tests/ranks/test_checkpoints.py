"""Checkpoints of divided models: read by as many ranks, by fewer, and by one process."""

from pathlib import Path
from typing import Any

import pytest
import torch

import polarity as pol
from tests.helpers import from_ranks
from tests.ranks.checkpoints import READERS, SHARED, WITHOUT_OPTIMIZER, one_rank
from tests.ranks.sharded import needs_fsdp_on_cpu, state_of, uneven

pytestmark = [needs_fsdp_on_cpu, pytest.mark.slow]

Written = tuple[Path, list[Any]]

each_reader = pytest.mark.parametrize("reader", READERS)


def ranks_in(place: Path, world: int, *, write: bool) -> list[Any]:
    folder = place / f"{world} ranks"
    folder.mkdir()
    if write:
        (place / SHARED).mkdir()
        (folder / "writes").touch()
    return from_ranks(one_rank, folder, world)


@pytest.fixture(scope="module", params=[2, 4])
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """What 2 or 4 ranks wrote, read and were refused: the folder, and what each rank found."""
    place = tmp_path_factory.mktemp("checkpoints")
    return place / SHARED, ranks_in(place, request.param, write=True)


@pytest.fixture(scope="module", params=[1, 2])
def fewer(request: pytest.FixtureRequest, written: Written) -> list[Any]:
    """What fewer ranks read of it."""
    place, ranks = written
    if request.param >= len(ranks):
        pytest.skip("as many")
    return ranks_in(place.parent, request.param, write=False)


def check_goes_on(found: Any, expected: Any, reader: str) -> None:
    assert not isinstance(found, str), found
    for part in ("state", "masks"):
        for key, value in expected[part].items():
            assert torch.equal(found[part][key], value), key
    # The first loss is of the weights alone, those after it of the optimizer's state too.
    compared = slice(1) if reader in WITHOUT_OPTIMIZER else slice(None)
    torch.testing.assert_close(found["losses"][compared], expected["losses"][compared])
    for name, value in found["later"].items():
        if name.endswith(".original"):
            mask = expected["state"][f"{name.removesuffix('original')}0.mask"]
            assert not value[mask == 0].any(), name
    for key, value in expected["later"].items() if reader not in WITHOUT_OPTIMIZER else ():
        torch.testing.assert_close(found["later"][key], value, msg=key)


@each_reader
def test_as_many_ranks_go_on_as_the_run_that_was_saved(written: Written, reader: str) -> None:
    _, ranks = written
    for rank in ranks:
        check_goes_on(rank[reader], ranks[0]["written"], reader)


@each_reader
def test_fewer_ranks_go_on_as_the_run_that_was_saved(
    written: Written, fewer: list[Any], reader: str
) -> None:
    for rank in fewer:
        check_goes_on(rank[reader], written[1][0]["written"], reader)


def test_a_whole_state_dict_holds_plain_masks_that_load_into_a_whole_model(
    written: Written,
) -> None:
    place, ranks = written
    state = torch.load(place / "full.pt", weights_only=True)
    model = pol.mask_weights(uneven(1))
    model.load_state_dict(state)
    assert all(type(value) is torch.Tensor for value in state.values())
    assert_holds(model, ranks[0]["written"])


def test_a_file_written_by_shards_is_that_of_a_whole_model(
    written: Written, tmp_path: Path
) -> None:
    place, ranks = written
    file = place / "model.safetensors"
    model = pol.load(uneven(1), file)
    assert_holds(model, ranks[0]["written"])
    pol.save(model, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == file.read_bytes()


def test_a_rewind_point_written_by_shards_is_that_of_a_whole_model(
    written: Written, tmp_path: Path
) -> None:
    place, ranks = written
    file = place / "point.safetensors"
    point = pol.RewindPoint.load(file)
    model = pol.load(uneven(1), place / "model.safetensors")
    point.restore_weights(model)
    assert_holds(model, ranks[0]["written"])
    point.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == file.read_bytes()


def test_a_merged_model_is_had_from_the_file_from_a_whole_state_dict_and_divided(
    written: Written,
) -> None:
    """What the error of ``merge`` says to do, and the other ways that the page names."""
    place, ranks = written
    whole = pol.mask_weights(uneven(1))
    whole.load_state_dict(torch.load(place / "full.pt", weights_only=True))
    of_one = pol.load(uneven(1), place / "model.safetensors")
    ways = [pol.merge(of_one).state_dict(), pol.merge(whole).state_dict()]
    ways += [rank["written"]["merged"] for rank in ranks]
    dense = ranks[0]["written"]["dense"]
    for found in ways:
        assert found.keys() == dense.keys()
        for name, value in found.items():
            assert torch.equal(dense[name], value), name


def test_state_that_an_optimizer_keeps_of_pieces_is_zeroed(written: Written) -> None:
    assert all(rank["of pieces"] for rank in written[1])


def assert_holds(model: torch.nn.Module, expected: Any) -> None:
    found = state_of(model)
    assert found.keys() == expected["state"].keys()
    for name, value in expected["state"].items():
        assert torch.equal(found[name], value), name
    for name, mask in pol.masks(model).items():
        assert torch.equal(mask, expected["masks"][name]), name


REFUSALS = {
    "shorter": "in shape (6, 7), expected the model's (7, 7)",
    "without_bias": "is missing 'out.bias', expected the model's own names",
    "nan_in_the_last_row": "holds 'into.bias', which",
    "half_in_the_last_row": "holds values other than 0 and 1 in the mask of 'first.weight'",
    "of_integers": "holds 'norm.bias' of dtype torch.int32",
    "plain": "call load(model, path) before fully_shard(model)",
    "no such file": "does not exist, expected a safetensors file",
    "no such folder": "expected one: make it",
    "no path on one rank": "TypeError: path=5",
    "another model on one rank": "ranks 0 and 1 of the group differ",
    "a full disk": "cannot be written: [Errno 28] No space left on device",
    "a point on a full disk": "cannot be written: [Errno 28] No space left on device",
    "assigned": "use torch.distributed.checkpoint.state_dict.set_model_state_dict, or load before",
    "merge": "load(model, path) fills from the file that save(model, path) writes on all ranks",
    "state of the whole": "keeps 'exp_avg' of 'into.weight' in shape (7, 5)",
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_is_refused_says_so_on_every_rank_and_changes_neither_model_nor_file(
    written: Written, name: str
) -> None:
    found = [rank["refusals"][name] for rank in written[1]]
    assert all(each["error"] for each in found)
    assert any(REFUSALS[name] in each["error"] for each in found), found
    assert all(each["unchanged"] for each in found)


def test_every_refusal_is_tested(written: Written) -> None:
    assert written[1][0]["refusals"].keys() == REFUSALS.keys()
